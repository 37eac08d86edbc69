"""Checkpoints are written beside the training, in order, and no failure is lost."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import commands
from alexnet.errors import CheckpointError
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from alexnet.runs.writer import Writer, snapshot
from alexnet.training import fitting as engine
from conftest import read_events, without_report


def test_the_step_goes_on_while_a_checkpoint_is_written(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that does not end until ten steps later still holds the weights of its own step."""
    without_report(monkeypatch)
    reference, run = tmp_path / "reference", tmp_path / "run"
    fields = {**tiny, "log_every": 1, "save_every": 20, "eval_every": 9.0, "keep": 9, "steps": 30}
    commands.train("digits", data=idx_folder, run=reference, **fields)
    later, meanwhile = threading.Event(), []
    log = engine.RunDir.log

    def watch(self: Any, event: Any) -> None:
        log(self, event)
        if event["event"] == "train" and event["step"] == 30:
            later.set()

    def slow(root: Path, step: int, **rest: Any) -> Path:
        if step == 20:
            meanwhile.append(later.wait(200))
        return save_checkpoint(root, step, **rest)

    monkeypatch.setattr(engine.RunDir, "log", watch)
    monkeypatch.setattr(engine, "save_checkpoint", slow)
    commands.train("digits", data=idx_folder, run=run, **fields)
    assert meanwhile == [True], "the steps waited for the disk"
    for step in (0, 20, 30):
        mine, theirs = (
            load_checkpoint(find_checkpoint(r / "checkpoints", f"step-{step}"))
            for r in (run, reference)
        )
        for kind in ("model", "optimizer"):
            for name, value in getattr(theirs, kind).items():
                assert torch.equal(getattr(mine, kind)[name], value), (step, name)
    assert read_events(run) == read_events(reference)


def test_no_figure_before_the_first_checkpoint(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed between the two could neither be continued nor made anew."""
    without_report(monkeypatch)
    figures, before = threading.Event(), []
    log = engine.RunDir.log

    def watch(self: Any, event: Any) -> None:
        log(self, event)
        figures.set()

    def slow(root: Path, step: int, **rest: Any) -> Path:
        if step == 0:
            before.append(figures.wait(2))
        return save_checkpoint(root, step, **rest)

    monkeypatch.setattr(engine.RunDir, "log", watch)
    monkeypatch.setattr(engine, "save_checkpoint", slow)
    commands.train("digits", data=idx_folder, run=tmp_path / "run", **{**tiny, "log_every": 1})
    assert before == [False]


@pytest.mark.parametrize("moment", ["writing", "linking"])
def test_killed_within_its_first_checkpoint_it_starts_anew(
    moment: str, idx_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """What such a kill leaves: a file of a folder not named yet, or a folder nothing links."""
    run, fields = tmp_path / "run", {**tiny, "keep": 99}
    commands.train("digits", data=idx_folder, run=run, **fields)
    whole = read_events(run)
    checkpoints = run / "checkpoints"
    left = checkpoints / "step-0"
    for path in set(checkpoints.iterdir()) - {left}:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    if moment == "writing":
        (left / "manifest.json").unlink()
        left.rename(checkpoints / ".tmp-step-0-99999999")
    (run / "metrics.jsonl").unlink()
    for path in run.iterdir():  # what is made at the end
        if path.name not in ("recipe.json", "recipe.toml", "environment.json", "checkpoints"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    commands.train("digits", data=idx_folder, run=run, **fields)
    assert read_events(run) == whole
    assert not list(checkpoints.glob(".tmp-*"))


def test_a_failed_write_ends_the_run(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next step that finds it, and with the checkpoints before it in place."""
    without_report(monkeypatch)

    def full(root: Path, step: int, **rest: Any) -> Path:
        if step == 10:
            raise CheckpointError("cannot save step-10: No space left on device")
        return save_checkpoint(root, step, **rest)

    monkeypatch.setattr(engine, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left"):
        commands.train("digits", data=idx_folder, run=tmp_path / "run", **{**tiny, "save_every": 5})
    checkpoints = tmp_path / "run/checkpoints"
    assert (checkpoints / "last").readlink().name == "step-8"
    assert load_checkpoint(find_checkpoint(checkpoints, "last")).step == 8


def test_a_failure_at_the_end_is_not_lost(
    idx_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(root: Path, step: int, **rest: Any) -> Path:
        if step == tiny["steps"]:
            raise CheckpointError("cannot save: No space left on device")
        return save_checkpoint(root, step, **rest)

    monkeypatch.setattr(engine, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left"):
        commands.train("digits", data=idx_folder, run=tmp_path / "run", **tiny)


def test_order_and_errors_of_the_writer() -> None:
    done: list[int] = []
    go = threading.Event()

    def one(n: int) -> None:
        go.wait(100)
        done.append(n)

    with Writer() as writer:
        writer.submit(one, 1)
        assert not done
        go.set()
        for n in range(2, 9):
            writer.submit(one, n)
    assert done == list(range(1, 9))

    def bad() -> None:
        raise OSError("bad")

    with pytest.raises(OSError, match="bad"), Writer() as writer:
        writer.submit(bad)

    def both() -> None:
        with Writer() as writer:
            writer.submit(bad)
            raise KeyError

    with pytest.raises(KeyError):  # what happened first is what is told
        both()


def test_a_snapshot_is_apart() -> None:
    weight = torch.ones(2, 3)
    taken = snapshot({"w": weight})
    weight.zero_()
    assert torch.equal(taken["w"], torch.ones(2, 3))
