"""train --tensorboard: read by TensorBoard's own reader, and without influence on the training."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import alexnet
from alexnet.errors import Diverged
from alexnet.runs import RunDir
from conftest import CLOCK, read_events
from short_runs import cut_at
from test_guard import HOPELESS, PLAIN

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture(scope="module")
def fields(idx_folder: Path, tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, "data": idx_folder, "steps": 16, "dropout": 0.5}


@pytest.fixture(scope="module")
def shown(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut at step 10 and went on from step 8. Read only."""
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    run = tmp_path_factory.mktemp("board") / "run"
    cut_at(10, "digits", run=run, tensorboard=True, **fields)
    alexnet.train(run=run, resume=True, tensorboard=True)
    return run


def accumulated(run: Path) -> Any:
    """What TensorBoard's own reader finds."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(
        str(run / "tensorboard"), size_guidance={"histograms": 0, "tensors": 0}
    )
    found.Reload()
    return found


def test_the_board_shows_all_and_changes_nothing(
    shown: Path, fields: dict[str, Any], tmp_path: Path
) -> None:
    """And what a restart takes back is gone there too."""
    plain = tmp_path / "plain"
    alexnet.train("digits", run=plain, **fields)
    events = [e for e in RunDir.open(shown).events() if e.event != "resume"]
    assert [{k: v for k, v in e.items() if k not in CLOCK} for e in events] == read_events(plain)
    one, other = (
        (run / "checkpoints/last/model.safetensors").read_bytes() for run in (shown, plain)
    )
    assert one == other
    assert not (plain / "tensorboard").exists()

    found = accumulated(shown)
    tags = found.Tags()
    assert tags["graph"]
    assert {"filters", "predictions"} == set(tags["images"])
    assert {"weights/conv1.weight", "activations/relu7"} <= set(tags["histograms"])
    scalars = {"train/loss", "train/acc1", "train/acc5", "train/lr", "val/acc1", "best/acc1"}
    assert {*scalars, "val/acc1_ci95_low", "train/images_per_sec"} <= set(tags["scalars"])
    train = [e for e in events if e.event == "train"]
    assert [e.step for e in found.Scalars("train/loss")] == [e.step for e in train]
    rates = [e.images_per_s for e in train]
    assert [e.value for e in found.Scalars("train/images_per_sec")] == pytest.approx(rates)
    steps = [e.step for e in events if e.event == "val"]
    assert [e.step for e in found.Histograms("weights/conv1.weight")] == steps
    graph = found.Graph()
    assert any("conv1" in node.name for node in graph.node)
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_the_board_shows_what_stopped_a_run(tree: Path, tmp_path: Path) -> None:
    """Of three classes, of which five guesses are not counted."""
    with pytest.raises(Diverged, match="loss-is-ln-k"):
        alexnet.train("digits", data=tree, run=tmp_path, tensorboard=True, **(PLAIN | HOPELESS))
    found = accumulated(tmp_path)
    assert "train/acc1" in found.Tags()["scalars"]
    assert "train/acc5" not in found.Tags()["scalars"]
    (*_, last) = found.Tensors("doctor/text_summary")
    assert b"loss-is-ln-k" in last.tensor_proto.string_val[0]


def test_the_real_tensorboard_shows_them(shown: Path, tmp_path: Path) -> None:
    """Started on a run's files and asked over HTTP, as its page asks."""
    log = tmp_path / "log"
    where = ["--logdir", str(shown / "tensorboard"), "--port", "0", "--load_fast", "false"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tensorboard.main", *where],
            stderr=file, stdout=file,
        )  # fmt: skip
    try:
        while not (found := re.search(r"http://localhost:\d+/", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)

        def ask(path: str, body: Any = None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{found[0]}data/{path}", data, kind)
            with urllib.request.urlopen(request, timeout=120) as answer:
                content = answer.read()
            return content if path.startswith("plugin/graphs/graph") else json.loads(content)

        while not (scalars := ask("plugin/scalars/tags").get(".")):  # it reads files on its own
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        usual = {
            "train/loss",
            "train/lr",
            "train/images_per_sec",
            "val/loss",
            "val/acc1",
            "val/acc5",
        }
        assert usual <= set(scalars)
        points = ask("plugin/scalars/scalars?run=.&tag=val/acc1")
        events = [e for e in read_events(shown) if e["event"] == "val"]
        assert [(p[1], round(p[2], 5)) for p in points] == [
            (e["step"], round(e["top1"], 5)) for e in events
        ]
        assert {"filters", "predictions"} <= set(ask("plugin/images/tags")["."])
        assert "weights/conv1.weight" in ask("plugin/histograms/tags")["."]
        assert b"conv1" in ask("plugin/graphs/graph?run=.&conceptual=false")
        told = ask("plugin/hparams/experiment", {"experimentName": ""})
        names = {h["name"] for h in told["hparamInfos"]}
        assert {"lr", "batch_size"} <= names
    finally:
        process.terminate()
        process.wait()
