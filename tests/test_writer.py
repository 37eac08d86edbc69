"""Checkpoints are written beside the training, in order, and no failure is lost."""

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.errors import CheckpointError
from alexnet.runs import find_checkpoint, load_checkpoint
from conftest import read_events, without_report
from short_runs import Cut, at_each_step
from short_runs import no_pictures as no_pictures  # around every test here
from test_store import disk


@pytest.fixture(scope="module")
def fields(tiny: dict[str, Any], idx_folder: Path) -> dict[str, Any]:
    return {**tiny, "data": idx_folder, "steps": 12, "log_every": 1, "keep": 9}


def holds(ready: Callable[[], bool], seconds: float) -> bool:
    """Whether this becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def figures(run: Path) -> list[int]:
    """The steps of metrics.jsonl as it is now."""
    if not (run / "metrics.jsonl").exists():
        return []
    return [e["step"] for e in read_events(run) if e["event"] == "train"]


def test_the_step_goes_on_while_a_checkpoint_is_written(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    """A save that does not end until four steps later still holds the weights of its own step."""
    reference, run = tmp_path / "reference", tmp_path / "run"
    words = {**fields, "save_every": 8, "eval_every": 9.0}
    alexnet.train("digits", run=reference, **words)
    meanwhile: list[bool] = []

    def slow(file: Path) -> None:
        if "step-8-" in file.parent.name and not meanwhile:
            meanwhile.append(holds(lambda: 12 in figures(run), 200))

    with disk(slow):
        alexnet.train("digits", run=run, **words)
    assert meanwhile == [True], "the steps waited for the disk"
    for step in (0, 8, 12):
        mine, theirs = (
            load_checkpoint(find_checkpoint(r / "checkpoints", f"step-{step}"))
            for r in (run, reference)
        )
        for kind in ("model", "optimizer"):
            for name, value in getattr(theirs, kind).items():
                assert torch.equal(getattr(mine, kind)[name], value), (step, name)
    assert (run / "checkpoints/last").readlink().name == "step-12"
    assert read_events(run) == read_events(reference)


def test_no_figure_before_the_first_checkpoint(fields: dict[str, Any], tmp_path: Path) -> None:
    """A run killed between the two could neither be continued nor made anew."""
    run, before = tmp_path / "run", list[bool]()

    def slow(file: Path) -> None:
        if "step-0-" in file.parent.name and not before:
            before.append(holds(lambda: bool(figures(run)), 1))

    with disk(slow):
        alexnet.train("digits", run=run, **{**fields, "steps": 2})
    assert before == [False]
    assert figures(run) == [1, 2]


@pytest.fixture(scope="module")
def whole(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all its checkpoints. Read only: tests copy it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        alexnet.train("digits", run=run, **{**fields, "steps": 4})
    return run


@pytest.mark.parametrize("moment", ["writing", "linking"])
def test_killed_within_its_first_checkpoint_it_starts_anew(
    moment: str, whole: Path, fields: dict[str, Any], tmp_path: Path
) -> None:
    """What such a kill leaves: a file of a folder not named yet, or a folder nothing links."""
    run = Path(shutil.copytree(whole, tmp_path / "run", symlinks=True))
    checkpoints = run / "checkpoints"
    left = checkpoints / "step-0"
    for path in set(checkpoints.iterdir()) - {left}:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    if moment == "writing":
        (left / "manifest.json").unlink()
        left.rename(checkpoints / ".tmp-step-0-99999999")
    for path in run.iterdir():  # what is made later
        if path.name not in ("recipe.json", "recipe.toml", "environment.json", "checkpoints"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    alexnet.train("digits", run=run, **{**fields, "steps": 4})
    assert read_events(run) == read_events(whole)
    assert not list(checkpoints.glob(".tmp-*"))


def full(step: int, wait: Callable[[], object] = bool) -> Callable[[Path], None]:
    """A disk without room for the checkpoint of that step, of which it says so after a while."""

    def before(file: Path) -> None:
        if f"step-{step}-" in file.parent.name:
            wait()
            raise OSError(errno.ENOSPC, "No space left on device")

    return before


@pytest.mark.parametrize(("step", "last"), [(10, 8), (12, 10)], ids=["midway", "at the end"])
def test_a_failed_write_ends_the_run(
    step: int, last: int, fields: dict[str, Any], tmp_path: Path
) -> None:
    """At the next step that finds it, and with the checkpoints before it in place."""
    checkpoints = tmp_path / "run/checkpoints"
    with disk(full(step)), pytest.raises(CheckpointError, match="No space left"):
        alexnet.train("digits", run=tmp_path / "run", **{**fields, "save_every": 5})
    assert (checkpoints / "last").readlink().name == f"step-{last}"
    assert load_checkpoint(find_checkpoint(checkpoints, "last")).step == last


def test_what_happened_first_is_told(fields: dict[str, Any], tmp_path: Path) -> None:
    """The disk refuses what was to be written when something else has ended the training."""
    ended, refused = list[int](), list[bool]()

    def die(step: int) -> None:
        if step == 7:
            ended.append(step)
            raise Cut

    def wait() -> None:
        refused.append(holds(lambda: bool(ended), 200))

    with disk(full(5, wait)), at_each_step(die), pytest.raises(Cut):
        alexnet.train("digits", run=tmp_path / "run", **{**fields, "save_every": 5})
    assert refused == [True]
    assert (tmp_path / "run/checkpoints/last").readlink().name == "step-0"
