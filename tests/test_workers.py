"""Measurements of which several are made at once."""

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

from alexnet.claims import lab, workers
from alexnet.claims.comparison import gap
from alexnet.claims.lab import Lab, OutOfTime
from alexnet.claims.trial import gather, train
from alexnet.claims.workers import measured
from alexnet.errors import DataError, Elsewhere
from alexnet.recipebook import find_recipe
from alexnet.runtime import threads

Row = dict[str, Any]
CELLS = [{"i": i} for i in range(5)]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


def yes() -> bool:
    return True


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As a machine of two processors has them; the work before has left its team of them."""
    with threads(2):
        torch.randn(400, 400) @ torch.randn(400, 400)
        yield


def test_figures_do_not_depend_on_how_many_are_made_at_once(
    two_threads: None, idx_folder: Path
) -> None:
    """Trained in turn and by three processes, every digit is the same."""
    recipe = find_recipe("digits").replace(
        steps=6, batch_size=16, workers=0, precision="fp32", log_every=2
    )
    material = gather(recipe, Lab(Path(), idx_folder), 100)

    def how(cell: Row) -> Row:
        found = train(recipe.replace(seed=cell["i"]), material)
        row = {part: found.figures(getattr(material, part)) for part in ("train", "test")}
        return {"curve": found.curve, "gap": gap(row), **row}

    cells = CELLS[:3]
    in_turn, together = [Row() for _ in cells], [Row() for _ in cells]
    for most, rows in ((1, in_turn), (3, together)):
        for i, row in measured(how, cells, most, yes):
            assert row.pop("wall_s") >= 0
            rows[i] = row
    assert in_turn == together
    assert in_turn[0] != in_turn[1]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("most", [1, 2])
def test_a_lab_has_its_rows_in_order_whoever_ends_first(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "at_once", lambda: most)

    def how(cell: Row) -> Row:
        time.sleep(0.2 if cell["i"] == 0 else 0)
        return {"twice": 2 * cell["i"], "process": os.getpid()}

    first = Lab(tmp_path / "x").measure(CELLS[::2], how)
    whole = Lab(tmp_path / "x").measure(CELLS, how)
    assert [row["twice"] for row in whole] == [0, 2, 4, 6, 8]
    assert whole[::2] == first
    assert (os.getpid() in {row["process"] for row in whole}) == (most == 1)
    kept = json.loads((tmp_path / "x" / "cells.json").read_text())["cells"]
    assert sorted(row["i"] for row in kept) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_are_begun_when_time_is_up(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "at_once", lambda: most)
    asked = iter([True] * 3 + [False] * 9)
    monkeypatch.setattr(Lab, "_in_time", lambda self: next(asked))
    with pytest.raises(OutOfTime):
        Lab(tmp_path / "x").measure(CELLS, dict)
    assert len(json.loads((tmp_path / "x" / "cells.json").read_text())["cells"]) == 3


def test_what_goes_wrong_is_heard_and_nobody_is_left(tmp_path: Path) -> None:
    def how(cell: Row) -> Row:
        (tmp_path / str(os.getpid())).touch()
        if cell["i"] == 1:
            raise DataError("no such images")
        if cell["i"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell["i"] == 2:
            time.sleep(600)
        return {}

    with pytest.raises(DataError, match="no such images"):
        list(measured(how, CELLS[1:3], 2, yes))
    with pytest.raises(Elsewhere, match=r"ended from outside \(status -9"):
        list(measured(how, CELLS[2:], 2, yes))
    for child in tmp_path.iterdir():
        assert not Path("/proc", child.name).exists()


def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import sys, os, time, pathlib; from alexnet.claims.workers import measured\n"
        "def how(cell):\n"
        "    pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(600)\n"
        "list(measured(how, [{}, {}], 2, lambda: True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while len(children := list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for child in children:
        with suppress(FileNotFoundError):
            while "Z" not in Path("/proc", child.name, "stat").read_text().split(") ")[1][:1]:
                time.sleep(0.05)


def test_how_many_at_once(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.at_once() == 2
    monkeypatch.setattr(workers, "pick_device", lambda: torch.device("cuda"))
    assert workers.at_once() == 1
