"""`alexnet test` by several processes finds what one finds, and one of them writes it."""

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import alexnet
from alexnet.analysis import Mistakes
from alexnet.cli import main
from alexnet.errors import AlexNetError
from alexnet.runs import RunDir
from alexnet.training import Team
from conftest import patterns, without_report, write_idx, write_tree
from shell import one_object
from teams import LONG, end, members, run_team, torchrun

OWN = {"images_per_s", "wall_s", "processes", "run", "checkpoint", "figures"}  # what may differ
BATCH = 30  # 7 batches of 200 images, the last of 20
pytestmark = pytest.mark.usefixtures("one_thread")
FIELDS: dict[str, Any] = {"steps": 4, "batch_size": 16, "workers": 1, "doctor": "off"}


@pytest.fixture(scope="module")
def run(idx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps: what it gets wrong is many, and of every class. Read only: tests copy it."""
    made = tmp_path_factory.mktemp("shared") / "run"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train("digits", data=idx_folder, run=made, size=32, eval_batch=BATCH, **FIELDS)
    return made


def found_by(run: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results, or what was raised."""
    found: list[dict[str, Any]] = []
    for options in given:
        data = options.get("data")
        if isinstance(data, list):  # another for each process
            options = {**options, "data": data[int(os.environ["RANK"])]}
        try:
            found.append(alexnet.test(run, **options).to_json())
        except AlexNetError as error:
            found.append({"raised": type(error).__name__, "says": str(error)})
    return found


def say(words: list[str]) -> dict[str, Any]:
    """What the command line makes of words."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(words)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


def found_and_said_by(run: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results, and then what the command line says of the last but one."""
    found = found_by(run, given)
    return [*found, say(["test", run, "--views", "5", "--checkpoint", "last", "--json"])]


def refused_by(run: str, given: list[dict[str, Any]], data: list[str]) -> list[dict[str, Any]]:
    """The same, and then what the command line makes of other data for each."""
    found = found_by(run, given)
    return [*found, say(["test", run, "--data", data[int(os.environ["RANK"])], "--json"])]


def shown(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in OWN}


def written(run: Path) -> dict[str, Any]:
    """What `test` leaves in a run."""
    events = [shown(e) for e in RunDir.open(run).events() if e.event == "test"]
    pictures = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    return {"events": events, "pictures": pictures, "said": (run / "certificate.json").read_text()}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What is asked of one process and of several."""
    small = tmp_path_factory.mktemp("small")
    write_idx(small, "train", *patterns(40, seed=3))
    write_idx(small, "t10k", *patterns(2, seed=4))  # fewer than processes
    return [{"split": "val"}, {"views": 5, "checkpoint": "last"}, {"data": str(small)}]


@pytest.fixture(scope="module")
def of_one(
    run: Path, given: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What one process finds and writes."""
    place = tmp_path_factory.mktemp("one") / "run"
    shutil.copytree(run, place, symlinks=True)
    return found_by(str(place), given), written(place)


def test_the_figures_are_those_of_one(
    run: Path,
    given: list[dict[str, Any]],
    of_one: tuple[list[dict[str, Any]], dict[str, Any]],
    tmp_path: Path,
) -> None:
    """To the bit, with views and without; the run gets the same lines and pictures, once. On
    standard output one JSON object of all processes."""
    place = tmp_path / "run"
    shutil.copytree(run, place, symlinks=True)
    alone, by_one = of_one
    assert [r["n"] for r in alone] == [60, 200, 2]
    every = run_team(tmp_path / "ranks", 3, found_and_said_by, str(place), given)
    said = [ranks.pop() for ranks in every]
    for ranks in every:
        assert [r["processes"] for r in ranks] == [3] * len(given)
        assert [shown(r) for r in ranks] == [shown(r) for r in alone]
    assert [one["status"] for one in said] == [0, 0, 0]
    assert [one["out"] for one in said[1:]] == ["", ""]
    assert shown(one_object(said[0]["out"])) == shown(alone[1])
    assert not any("Warning" in one["err"] for one in said)
    after = written(place)
    assert after["events"].pop() == by_one["events"][1], "the line of the command"
    assert after == by_one
    assert len(by_one["events"]) == len(given)
    assert len(by_one["pictures"]) == 6


@pytest.mark.slow
def test_another_runtime_is_shared_too(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    place = tmp_path / "run"
    shutil.copytree(run, place, symlinks=True)
    alone = found_by(str(place), [{"engine": "onnx"}])
    for ranks in run_team(tmp_path / "ranks", 2, found_by, str(place), [{"engine": "onnx"}]):
        assert shown(ranks[0]) == shown(alone[0])


def test_what_cannot_be_shared_is_refused_by_one(run: Path, tmp_path: Path) -> None:
    """Other data there, a certificate: one says why, all end. A damaged image in one's share is
    left out by all."""
    tree = write_tree(tmp_path / "tree", each=30)
    model = tmp_path / "model"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        fields = {"size": 32, "crop": 28, "eval_batch": 4, **FIELDS}
        alexnet.train("digits", data=tree, run=model, **fields)
    others = [str(shutil.copytree(tree, tmp_path / f"tree-{i}")) for i in range(2)]
    (Path(others[1]) / "class-0/000.png").rename(Path(others[1]) / "class-0/000-moved.png")
    (tree / "class-1/001.png").write_bytes(b"no image")
    # In the split train are the images of test too, here as part of what is damaged.
    given: list[dict[str, Any]] = [{"split": s} for s in ("train", "val", "test")]
    given += [{"data": others, "split": s} for s in ("train", "val", "test")]
    given += [{"certificate": True}, {"views": 3}, {"split": "tset"}]
    ranks = run_team(tmp_path / "ranks", 2, refused_by, str(model), given, others)
    first, second = (rank.pop() for rank in ranks)
    assert first["status"] == second["status"] == 2
    assert "another process of this run failed" in json.loads(first["out"])["error"]
    assert (first["err"], second["out"]) == ("", "")
    assert second["err"].startswith("process 1: alexnet: the data in ")
    assert second["err"].count("\n") == 1
    for i, (first, second) in enumerate(zip(*ranks, strict=True)):
        raised = [r for r in (first, second) if "raised" in r]
        if not raised:
            continue
        assert {first["raised"], second["raised"]} > {"Elsewhere"}, given[i]
        assert sorted(bool(r["says"]) for r in raised) == [False, True]
    said = [first.get("says") or second.get("says") for first, second in zip(*ranks, strict=True)]
    assert not any(said[:3])
    damaged = [[rank[i]["unreadable"] for i in range(3)] for rank in ranks]
    assert damaged[0] == damaged[1]
    assert [one["path"] for entries in damaged[0] for one in entries] == ["class-1/001.png"]
    assert all("is not what the first process reads" in (line or "") for line in said[3:6])
    assert "certificate=True is proved by one process" in said[6]
    assert "views" in said[7]
    assert "no split 'tset'" in said[8]
    assert not [e for e in RunDir.open(model).events() if getattr(e, "views", None) == 3]


def test_the_surest_mistakes_of_all() -> None:
    """Ties, numbers that are none and ranks without any, against one that sees all."""
    random = np.random.default_rng(5)
    p = random.integers(0, 4, (50, 3)).astype(np.float32) / 4
    p[7] = np.nan
    labels = random.integers(0, 3, 50)
    for limit in (5, 24, 100):
        for ranks in (2, 3, 9):
            whole, parts = Mistakes(limit), [Mistakes(limit) for _ in range(ranks)]
            for turn, at in enumerate(range(0, 50, 8)):
                block = (at, p[at : at + 8], labels[at : at + 8])
                whole.add(*block)
                parts[turn % ranks].add(*block)
            rows: list[torch.Tensor] = []

            class Listening(Team):
                def gather(
                    self, numbers: torch.Tensor, rows: list[torch.Tensor] = rows
                ) -> list[torch.Tensor]:
                    rows.append(numbers)
                    return rows

            for part in parts:
                part.merge(Listening())
            assert parts[-1].count == whole.count
            for name in ("ids", "said", "sure"):
                np.testing.assert_array_equal(getattr(parts[-1], name), getattr(whole, name))


@pytest.mark.slow
def test_the_real_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object of all processes, on standard output; the same as of one."""
    place, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(run, place, symlinks=True)
    assert main(["test", str(place), "--views", "5", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    process = torchrun(3, ["test", place, "--views", "5", "--json"], log)
    try:
        assert process.wait(LONG) == 0, log.read_text()
        assert not members(process)
    finally:
        end(process)
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    assert len(lines) == 1, log.read_text()
    assert shown(json.loads(lines[0])) == shown(alone)
    assert "Warning" not in log.read_text()
