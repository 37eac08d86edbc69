"""What a training shows under its bar on a terminal, and that a log gets lines as ever."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from alexnet.training.status import Status, spark
from test_terminal import COLOUR, run

TRAIN = """
from alexnet import commands, terminal
terminal.PATIENCE = 0
commands.training_run.report = lambda *_, **__: {{"out": None, "figures": []}}
commands.train("digits", data={data!r}, run={run!r}, **{fields!r})
print("result")
"""


def trained(idx_folder: Path, place: Path, tiny: dict[str, Any], tty: bool, **env: str) -> str:
    code = TRAIN.format(data=str(idx_folder), run=str(place / "run"), fields=tiny)
    return run(code, tty, **env)


def test_a_terminal_shows_how_it_goes(
    idx_folder: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    seen = trained(idx_folder, tmp_path, tiny, tty=True, NO_COLOR="1", PYTHONUTF8="1")
    assert not COLOUR.search(seen)
    assert re.search(r"loss   [▁-█]+ \d\.\d{4} train   [▁-█]+ \d\.\d{4} validation", seen)
    assert re.search(r"top-1  [▁-█]+ \d+\.\d\d % train   [▁-█]+ \d+\.\d\d % validation", seen)
    assert re.search(r"\d+ images/s, \d+\.\d % of the time waiting for data, [\d,]+ MiB", seen)
    assert re.search(r"\d+/40 steps", seen)
    assert not re.search(r"lr \d", seen), "what stands below is not said in lines as well"
    assert "validation: loss" in seen


def test_a_log_gets_lines(idx_folder: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    seen = trained(idx_folder, tmp_path, tiny, tty=False)
    assert not re.search(r"[▁-█\x1b]", seen)
    assert (
        len(re.findall(r"^step .* lr \d", seen, re.M)) == 12
    )  # every fifth step, and at validations
    assert "waiting for data" not in seen


def test_sparklines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.training.status.can_print", lambda *_: True)
    assert spark([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert spark([3.0]) == spark([3.0, 3.0])[:1] == "▁"
    assert spark([]) == ""
    assert spark([0.0, math.nan, 1.0, math.inf]) == "▁?█?"
    assert spark(list(range(1000)), 8) == "▁▂▃▄▅▆▇█"
    assert len(spark(list(range(15)), 14)) == 14


def test_sparklines_where_blocks_cannot_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.training.status.can_print", lambda text, *_: text.isascii())
    assert spark([0, 1, 2]) == "_-#"


def test_it_fits_a_terminal_of_80_columns() -> None:
    status = Status()
    assert status.text() == ""
    line = {"loss": 9.0, "loss_mean": 12345.5, "top1": 1.0, "images_per_s": 123456.0}
    for i in range(99):
        status.note({"event": "train", **line, "loss_mean": 12345.5 - i, "data_wait": 1.0})
        status.note({"event": "val", **line, "loss": 12345.5 - i})
        status.note({"event": "look"})
    assert len(status.text().splitlines()) == 3
    assert all(cell_len(row) < 80 for row in status.text().splitlines())
