"""What a person sees on a terminal, in a log file and in a pipe."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise

import pytest
from rich.cells import cell_len

from alexnet import terminal

WORK = """
import sys, time
from alexnet import terminal
terminal.PATIENCE = 0.05
with terminal.progress("decoding [train]", total=40, unit="images") as p:
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
    code = "import sys, alexnet.terminal; assert 'rich' not in sys.modules; print('result')"
    assert run(code, tty=False) == ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(terminal, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress("decoding train", total=50_000, unit="images") as shown:
        for _ in range(25):
            clock[0] += 1
            shown.advance(2000)
    assert capsys.readouterr().err.splitlines() == [
        "decoding train: 4,000/50,000 images (8 %), 2,000 images/s, 23 s left",
        "decoding train: 24,000/50,000 images (48 %), 2,000 images/s, 13 s left",
        "decoding train: 44,000/50,000 images (88 %), 2,000 images/s, 3 s left",
        "decoding train: 50,000 images in 25 s, 2,000 images/s",
    ]


def test_short_or_unplain_work_is_silent(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress("hashing", total=2) as shown:
        clock[0] += 1.9
        shown.advance(2)
    with terminal.progress("training", plain=False) as shown:
        clock[0] += 60
        shown.advance(2)
    assert capsys.readouterr() == ("", "")


def test_resumed_work_does_not_count_the_past_as_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress("training", total=1000, unit="steps", done=900) as shown:
        clock[0] += 5
        shown.advance(50)
    assert "950/1,000 steps (95 %), 10 steps/s, 5 s left" in capsys.readouterr().err


def test_unknown_total_and_failure(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(KeyError), terminal.progress("reading", unit="files") as shown:
        clock[0] += 4
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


class Ascii:
    encoding = "ascii"


def test_bars_are_proportional_and_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("cat", 1.0), ("a very long class name that must be cut", 0.5), ("犬", 0.25), ("x", 0)]
    lines = terminal.bars(rows, width=40).splitlines()
    assert [line.count("█") for line in lines] == [40, 20, 10, 0]
    assert len({cell_len(line[: line.index("%")]) for line in lines}) == 1
    assert "…" in lines[1]
    steps = [terminal.bars([("x", i / 80)], width=10) for i in range(81)]
    assert all(a != b for a, b in pairwise(steps))  # eighths: every 1/80 of 10 cells shows
    monkeypatch.setattr(sys, "stdout", Ascii())
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
