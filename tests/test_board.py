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

from alexnet import commands
from conftest import read_events, without_report


def test_the_board_shows_all_and_changes_nothing(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    without_report(monkeypatch)
    fields = {**tiny, "steps": 16, "dropout": 0.5}
    for name, shown in (("shown", True), ("plain", False)):
        commands.train("digits", data=idx_folder, run=tmp_path / name, tensorboard=shown, **fields)
    assert read_events(tmp_path / "shown") == read_events(tmp_path / "plain")
    one, other = (
        (tmp_path / name / "checkpoints/last/model.safetensors").read_bytes()
        for name in ("shown", "plain")
    )
    assert one == other
    assert not (tmp_path / "plain/tensorboard").exists()

    found = accumulator.EventAccumulator(
        str(tmp_path / "shown/tensorboard"), size_guidance={"histograms": 0, "tensors": 0}
    )
    found.Reload()
    tags = found.Tags()
    assert tags["graph"]
    assert {"filters", "predictions"} == set(tags["images"])
    assert {"weights/conv1.weight", "activations/relu7"} <= set(tags["histograms"])
    assert {"train/loss", "val/acc1", "best/acc1"} <= set(tags["scalars"])
    steps = [e["step"] for e in read_events(tmp_path / "shown") if e["event"] == "val"]
    assert [e.step for e in found.Histograms("weights/conv1.weight")] == steps
    graph = found.Graph()
    assert any("conv1" in node.name for node in graph.node)
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_the_real_tensorboard_shows_them(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started on a run's files and asked over HTTP, as its page asks."""
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    without_report(monkeypatch)
    run = tmp_path / "run"
    commands.train("digits", data=idx_folder, run=run, tensorboard=True, **{**tiny, "steps": 16})
    log = tmp_path / "log"
    where = ["--logdir", str(run / "tensorboard"), "--port", "0", "--load_fast", "false"]
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
        events = [e for e in read_events(run) if e["event"] == "val"]
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
