"""What a person sees on a terminal, in a log file and in a pipe; and of a training."""

import io
import math
import multiprocessing
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import alexnet
from alexnet.records import LookEvent, TrainEvent, ValEvent

# Deep because no command takes a clock, or as long as a test can make it: what is said of ten
# seconds of work, and what a terminal of any width or encoding is given, is made here.
from alexnet.support import terminal

# Deep because what stands under a bar is made of figures that no training of a test has.
from alexnet.training.log import Status, spark
from conftest import without_report

# Deep because of the same as above: this one runs in a process with a terminal of its own.
WORK = """
import sys, time
from alexnet.support import terminal
with terminal.progress("decoding [train]", total=40, unit="images", patience=0.05) as p:
    for i in range(40):
        time.sleep(0.01)
        p.advance()
        p.note("loss 0.31")
        if i == 30:
            terminal.say("a line [bold] \\x1b[31m above")
            print("result")
"""
COLOUR = re.compile(r"\x1b\[[\d;]*[1-9]\d*[\d;]*m")


def run(code: str, tty: bool, **env: str) -> str:
    """Run `code` and return its standard error, a terminal of 80 columns if `tty`."""
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    env = {**plain, "TERM": "xterm-256color", "COLUMNS": "80", **env}
    ours, theirs = pty.openpty() if tty else os.pipe()
    with (
        os.fdopen(ours, "rb", buffering=0) as reader,
        subprocess.Popen(
            [sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, env=env
        ) as process,
    ):
        os.close(theirs)
        heard = b""
        try:
            while some := reader.read(65536):
                heard += some
        except OSError:  # how Linux ends a pty whose other side has closed
            pass
        out, _ = process.communicate()
    assert process.returncode == 0, heard.decode()
    assert out == b"result\n"  # never moved to standard error, even beside a live bar
    return heard.decode()


def test_a_terminal_gets_a_bar_and_clean_lines() -> None:
    seen = run(WORK, tty=True)
    assert COLOUR.search(seen)
    assert "━" in seen
    assert "\x1b[2Ka line [bold] \\x1b[31m above\r\n" in seen
    assert "decoding [train]: 40 images in " in seen.splitlines()[-1]
    assert seen.index("\x1b[?25l") < seen.index("\x1b[?25h")  # the cursor comes back


def test_no_color_keeps_the_bar() -> None:
    seen = run(WORK, tty=True, NO_COLOR="1")
    assert not COLOUR.search(seen)
    assert "━" in seen


@pytest.mark.parametrize(
    ("tty", "env"), [(False, {}), (False, {"FORCE_COLOR": "1"}), (True, {"TERM": "dumb"})]
)
def test_no_terminal_no_escape_codes(tty: bool, env: dict[str, str]) -> None:
    first, said, last = run(WORK, tty, **env).splitlines()
    assert re.fullmatch(
        r"decoding \[train\]: \d+/40 images \(\d+ %\), \d+ images/s, \d s left(, loss 0.31)?", first
    )
    assert said == "a line [bold] \\x1b[31m above"
    assert re.fullmatch(r"decoding \[train\]: 40 images in \d s, \d+ images/s, loss 0.31", last)


def test_importing_does_not_load_rich() -> None:
    code = "import sys, alexnet.support.terminal; assert 'rich' not in sys.modules; print('result')"
    assert run(code, tty=False) == ""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with terminal.progress("decoding train", total=50_000, unit="images", clock=clock) as shown:
        for _ in range(25):
            clock.now += 1
            shown.advance(2000)
    assert capsys.readouterr().err.splitlines() == [
        "decoding train: 4,000/50,000 images (8 %), 2,000 images/s, 23 s left",
        "decoding train: 24,000/50,000 images (48 %), 2,000 images/s, 13 s left",
        "decoding train: 44,000/50,000 images (88 %), 2,000 images/s, 3 s left",
        "decoding train: 50,000 images in 25 s, 2,000 images/s",
    ]


def test_short_or_unplain_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with terminal.progress("hashing", total=2, clock=clock) as shown:
        clock.now += 1.9
        shown.advance(2)
    with terminal.progress("training", plain=False, clock=clock) as shown:
        clock.now += 60
        shown.advance(2)
    assert capsys.readouterr() == ("", "")


def test_resumed_work_does_not_count_the_past_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with terminal.progress("training", total=1000, unit="steps", done=900, clock=clock) as shown:
        clock.now += 5
        shown.advance(50)
    assert "950/1,000 steps (95 %), 10 steps/s, 5 s left" in capsys.readouterr().err


def test_unknown_total_and_failure(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with suppress(KeyError), terminal.progress("reading", unit="files", clock=clock) as shown:
        clock.now += 4
        shown.advance(1)
        raise KeyError
    assert capsys.readouterr().err.splitlines() == [
        "reading: 1 files, 0.25 files/s",
        "reading: 1 files in 4 s, 0.25 files/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_percent() -> None:
    assert terminal.percent(0.986) == "98.60 %"
    assert terminal.percent(1, digits=0) == "100 %"


def ascii_only() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def test_bars_are_proportional_and_aligned() -> None:
    rows = [("cat", 1.0), ("a very long class name that must be cut", 0.5), ("犬", 0.25), ("x", 0)]
    lines = terminal.bars(rows, width=40).splitlines()
    assert [line.count("█") for line in lines] == [40, 20, 10, 0]
    assert len({cell_len(line[: line.index("%")]) for line in lines}) == 1
    assert "…" in lines[1]
    steps = [terminal.bars([("x", i / 80)], width=10) for i in range(81)]
    assert all(a != b for a, b in pairwise(steps))  # eighths: every 1/80 of 10 cells shows
    with redirect_stdout(ascii_only()):
        plain = terminal.bars(rows[:2], width=40)
    assert plain.isascii()
    assert [line.count("#") for line in plain.splitlines()] == [40, 20]


def test_names_cannot_command_the_terminal() -> None:
    assert "\x1b" not in terminal.bars([("\x1b[2J", 1.0)])
    assert "\x1b" not in terminal.format_table(["\x1b[2J"], [["\x1b]0;x"]])
    assert terminal.printable("caf\udce9\u202e") == "caf\\udce9\\u202e"


def test_table() -> None:
    text = terminal.format_table(
        ["model", "top-1", "time", "layer"],
        [["alexnet", "98.60 %", "3 min 05 s", "11x11"], ["犬", "9.10 %", "-", "3"]],
    )
    assert text.splitlines() == [
        "model      top-1        time  layer",
        "-------  -------  ----------  -----",
        "alexnet  98.60 %  3 min 05 s  11x11",
        "犬        9.10 %           -  3",
    ]


# How a training goes


def _train_on(tty: str, fields: dict[str, Any]) -> None:
    """A training in a process of its own that says how it goes on a terminal."""
    os.environ |= {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}
    os.environ.pop("FORCE_COLOR", None)
    sys.stderr = open(tty, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    # Patched because the training is to be over before a bar is usually shown.
    terminal.PATIENCE = 0
    without_report(pytest.MonkeyPatch())
    alexnet.train("digits", **fields)


@pytest.mark.usefixtures("launch")  # begins the server of processes that have torch already
def test_a_terminal_shows_how_a_training_goes(
    idx_folder: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    ours, theirs = pty.openpty()
    heard = bytearray()

    def listen() -> None:
        with suppress(OSError):  # how Linux ends a pty whose other side has closed
            while some := os.read(ours, 65536):
                heard.extend(some)

    listener = threading.Thread(target=listen)
    listener.start()
    fields = {"data": idx_folder, "run": tmp_path / "run", **tiny, "steps": 20}
    process = multiprocessing.get_context("forkserver").Process(
        target=_train_on, args=(os.ttyname(theirs), fields)
    )
    process.start()
    process.join()
    os.close(theirs)
    listener.join()
    os.close(ours)
    seen = heard.decode()
    assert process.exitcode == 0, seen
    assert not COLOUR.search(seen)
    assert re.search(r"loss   [▁-█]+ \d\.\d{4} train   [▁-█]+ \d\.\d{4} validation", seen)
    assert re.search(r"top-1  [▁-█]+ \d+\.\d\d % train   [▁-█]+ \d+\.\d\d % validation", seen)
    assert re.search(r"\d+ images/s, \d+\.\d % of the time waiting for data, [\d,]+ MiB", seen)
    assert re.search(r"\d+/20 steps", seen)
    assert not re.search(r"lr \d", seen), "what stands below is not said in lines as well"
    assert "validation: loss" in seen


def test_a_log_of_a_training_gets_lines(
    idx_folder: Path, tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    without_report(monkeypatch)
    alexnet.train("digits", data=idx_folder, run=tmp_path / "run", **tiny | {"steps": 20})
    seen = capsys.readouterr().err
    assert not re.search(r"[▁-█\x1b]", seen)
    # every fifth step, and at validations
    assert len(re.findall(r"^step .* lr \d", seen, re.M)) == 6
    assert "waiting for data" not in seen


def test_sparklines() -> None:
    def line(values: list[float], width: int = 14) -> str:
        return spark(values, width, stream=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))

    assert line([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert line([3.0]) == line([3.0, 3.0])[:1] == "▁"
    assert line([]) == ""
    assert line([0.0, math.nan, 1.0, math.inf]) == "▁?█?"
    assert line(list(range(1000)), 8) == "▁▂▃▄▅▆▇█"
    assert len(line(list(range(15)))) == 14


def test_sparklines_where_blocks_cannot_be_printed() -> None:
    assert spark([0, 1, 2], stream=ascii_only()) == "_-#"


def test_it_fits_a_terminal_of_80_columns() -> None:
    status = Status()
    assert status.text() == ""
    for i in range(99):
        pace = {"images_per_s": 123456.0, "data_wait": 1.0}
        status.note(TrainEvent(step=i, loss=9.0, loss_mean=12345.5 - i, top1=1.0, **pace))
        status.note(ValEvent(step=i, loss=12345.5 - i, top1=1.0))
        status.note(LookEvent(step=i))
    assert len(status.text().splitlines()) == 3
    assert all(cell_len(row) < 80 for row in status.text().splitlines())
