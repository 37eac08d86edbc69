"""Measurements of which several are made at once."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.errors import DataError, Elsewhere
from alexnet.lab.claims import Arm, Comparison, OutOfTime, Study, measurements_at_once
from alexnet.recipe import find_recipe

Row = dict[str, Any]
CELLS = [{"i": i} for i in range(5)]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As a machine of two processors has them; the work before has left its team of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.randn(400, 400) @ torch.randn(400, 400)
    yield
    torch.set_num_threads(before)


def test_figures_do_not_depend_on_how_many_are_made_at_once(
    two_threads: None, idx_folder: Path, tmp_path: Path
) -> None:
    """Trained in turn and by three processes, every digit is the same."""
    fields = {"steps": 4, "batch_size": 16, "workers": 0, "precision": "fp32", "log_every": 2}
    recipe = find_recipe("digits").replace(size=14, crop=14, eval_every=99, **fields)
    arms = (Arm("smooth", recipe), Arm("hard", recipe.replace(label_smoothing=0.0)))
    design = Comparison(
        arms, ("label_smoothing",), lambda row: row["test"]["loss"], "loss", 100, rates=(1.0,)
    )
    found = []
    for at_once in (1, 3):
        folder = tmp_path / str(at_once)
        outcome = design(Study(folder / "x", idx_folder, 2, at_once=at_once))
        cells = json.loads((folder / "trials.json").read_text())["cells"]
        assert all(cell.pop("wall_s") >= 0 for cell in cells)
        found.append((outcome.figures, sorted(map(json.dumps, cells))))
    assert found[0] == found[1]
    assert len(set(found[0][1])) == 2 * (1 + 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("most", [1, 2])
def test_a_study_has_its_rows_in_order_whoever_ends_first(most: int, tmp_path: Path) -> None:
    def how(cell: Row) -> Row:
        time.sleep(0.2 if cell["i"] == 0 else 0)
        return {"twice": 2 * cell["i"], "process": os.getpid()}

    first = Study(tmp_path / "x", at_once=most).measure(CELLS[::2], how)
    whole = Study(tmp_path / "x", at_once=most).measure(CELLS, how)
    assert [row["twice"] for row in whole] == [0, 2, 4, 6, 8]
    assert whole[::2] == first
    assert (os.getpid() in {row["process"] for row in whole}) == (most == 1)
    kept = json.loads((tmp_path / "x" / "cells.json").read_text())["cells"]
    assert sorted(row["i"] for row in kept) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_are_begun_when_time_is_up(most: int, tmp_path: Path) -> None:
    clock = itertools.count(1)  # a second passes from one look at it to the next
    study = Study(tmp_path / "x", deadline=3, at_once=most, clock=lambda: next(clock))
    with pytest.raises(OutOfTime):
        study.measure(CELLS, dict)
    assert len(json.loads((tmp_path / "x" / "cells.json").read_text())["cells"]) == 3


def test_what_goes_wrong_is_heard_and_nobody_is_left(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()

    def how(cell: Row) -> Row:
        (begun / str(os.getpid())).touch()
        if cell["i"] == 1:
            raise DataError("no such images")
        if cell["i"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell["i"] == 2:
            time.sleep(600)
        return {}

    study = Study(tmp_path / "x", at_once=2)
    with pytest.raises(DataError, match="no such images"):
        study.measure(CELLS[1:3], how)
    with pytest.raises(Elsewhere, match=r"ended from outside \(status -9"):
        study.measure(CELLS[2:], how)
    children = list(begun.iterdir())
    assert len(children) >= 2
    for child in children:
        assert not Path("/proc", child.name).exists()


def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    script = (
        "import sys, os, time, pathlib; from alexnet.lab.claims import Study\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def how(cell):\n"
        "    (folder / 'begun' / str(os.getpid())).touch(); time.sleep(600)\n"
        "Study(folder / 'x', at_once=2).measure([{'i': 0}, {'i': 1}], how)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while len(children := list(begun.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for child in children:
        with suppress(FileNotFoundError):
            while "Z" not in Path("/proc", child.name, "stat").read_text().split(") ")[1][:1]:
                time.sleep(0.05)


def test_how_many_at_once(two_threads: None, tmp_path: Path) -> None:
    """As many as there are threads for, and on a GPU one."""
    assert measurements_at_once(torch.device("cpu")) == 2
    assert measurements_at_once(torch.device("cuda")) == 1
    if not torch.cuda.is_available():
        rows = Study(tmp_path / "x").measure(CELLS[:2], lambda cell: {"process": os.getpid()})
        assert os.getpid() not in {row["process"] for row in rows}
