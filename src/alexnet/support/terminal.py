"""What people see while they wait: lines, progress, small tables and bars, on standard error.

A live bar is drawn only on a real terminal; FORCE_COLOR alone does not make one, because a log
file full of cursor movements helps nobody. NO_COLOR keeps the bar and drops its colours.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from alexnet.support.launch import rank

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE = 2.0  # seconds of work that need no progress report
INTERVAL = 10.0  # seconds between plain lines off a terminal
TOP5_FROM = 20  # classes: of so many, five guesses hit one label in four by chance
NAME_CELLS = 32  # widest class name beside a bar

_NUMBER = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?( ?%| .*)?|-|nan|")


def printable(text: str, keep: str = "") -> str:
    """Escape control characters: names come from folders and may hold terminal commands."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def escaped(text: str, keep: str = "") -> str:
    """The same with control characters, and what is no text, written out: always one line, unless
    `keep` has the end of one."""
    odd = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

    def written_out(found: re.Match[str]) -> str:
        return found[0] if found[0] in keep else found[0].encode("unicode_escape").decode()

    return odd.sub(written_out, text)


def say(line: str, *, everywhere: bool = False) -> None:
    """Print one line for people; above the bar while one is live (rich redirects the stream).

    Of several processes that train together only the first speaks, unless `everywhere`.
    """
    if rank() and not everywhere:
        return
    where = f"process {rank()}: " if rank() else ""
    print(where + printable(line, keep="\n"), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 05 s" or "2 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def percent(fraction: float, digits: int = 2) -> str:
    """Return 0.986 as "98.60 %"."""
    return f"{100 * fraction:.{digits}f} %"


def percent_with_interval(
    share: float | None, ci95: tuple[float, float] | None, n: int | None
) -> str:
    """Return "98.60 % (95 % interval 98.20 % to 98.92 %, n 5,000)"; "none" where nothing was
    measured."""
    if share is None or ci95 is None or n is None:
        return "none" if share is None else percent(share)
    low, high = map(percent, ci95)
    return f"{percent(share)} (95 % interval {low} to {high}, n {n:,})"


def shows_top5(classes: int) -> bool:
    """Whether top-5 is shown to people: of few classes chance alone makes it high."""
    return classes >= TOP5_FROM


def why_no_top5(classes: int) -> str:
    """What is said in its place."""
    chance = percent(min(5 / classes, 1), 0)
    return f"five guesses of {classes} classes are right by chance for {chance}"


def shorten(text: str, cells: int, ellipsis: str = "…") -> str:
    """Return `text` made printable and at most `cells` terminal columns wide."""
    from rich.cells import cell_len, set_cell_size

    text = printable(text)
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - len(ellipsis)).rstrip() + ellipsis


def bars(rows: Sequence[tuple[str, float]], width: int = 30) -> str:
    """Return one line per (name, fraction): the name, the percentage and a bar of the fraction."""
    from rich.cells import cell_len, set_cell_size

    fancy = can_print("█▏…")
    names = [shorten(name, NAME_CELLS, "…" if fancy else "...") for name, _ in rows]
    widest = max(map(cell_len, names), default=0)
    return "\n".join(
        f"{set_cell_size(name, widest)}  {percent(value):>8}  {_bar(value, width, fancy)}".rstrip()
        for name, (_, value) in zip(names, rows, strict=True)
    )


def are_numbers(cells: Sequence[str]) -> bool:
    """Whether a table's column is of numbers, which are aligned to the right."""
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned plain-text table; columns of numbers are aligned to the right."""
    from rich.cells import cell_len

    columns = []
    for head, *cells in zip(*([printable(c) for c in row] for row in (header, *rows)), strict=True):
        width = max(map(cell_len, (head, *cells)))
        numeric = are_numbers(cells)
        pads = [" " * (width - cell_len(cell)) for cell in (head, *cells)]
        lines = [
            pad + cell if numeric else cell + pad
            for cell, pad in zip((head, *cells), pads, strict=True)
        ]
        columns.append([lines[0], "-" * width, *lines[1:]])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


class Progress:
    """How far a piece of work is; made by `progress`. Short work shows nothing."""

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        done: int,
        plain: bool,
        patience: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._patience, self._clock = PATIENCE if patience is None else patience, clock
        self.what, self.total, self.unit, self.done = printable(what), total, unit, done
        self._first, self._note, self._began = done, "", clock()
        self._spoke = self._began - INTERVAL
        self._live = (
            not rank() and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        )
        self._heard = self._live or plain
        self._bar: Any = None
        self._below = ""

    @property
    def live(self) -> bool:
        """Whether it is drawn on a terminal, and not said in lines."""
        return self._live

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self.done += n
        self._refresh()

    def note(self, text: str) -> None:
        """Set the text that trails the numbers, such as the loss."""
        self._note = printable(text)
        self._refresh()

    def below(self, text: str) -> None:
        """Set lines that stand under the bar while it is live."""
        self._below = printable(text, keep="\n")
        self._refresh()

    def close(self) -> None:
        """Replace the bar by one lasting line."""
        if self._bar is not None:
            self._bar.stop()
        elapsed = self._clock() - self._began
        if elapsed >= self._patience:
            self._say(f"{self._count()} in {duration(elapsed)}", self._speed(elapsed))

    def _refresh(self) -> None:
        now = self._clock()
        elapsed = now - self._began
        if elapsed < self._patience:
            return
        if self._live:
            if self._bar is None:
                self._bar = _make_bar(self.what, self.total)
            numbers = _join(self._count(), self._speed(elapsed), self._left(elapsed))
            # The note goes below: beside the numbers it leaves no room for the bar at 80 columns.
            text = f"{numbers}\n{self._note}".rstrip()
            self._bar.below = self._below
            self._bar.update(self._bar.task_ids[0], completed=self.done, text=text)
            self._bar.start()  # does nothing if it already runs
        elif now - self._spoke >= INTERVAL:
            self._spoke = now
            share = f" ({percent(self.done / self.total, 0)})" if self.total else ""
            self._say(self._count() + share, self._speed(elapsed), self._left(elapsed))

    def _say(self, *parts: str) -> None:
        if self._heard:
            say(f"{self.what}: {_join(*parts, self._note)}")

    def _count(self) -> str:
        if self.total in (None, self.done):
            return f"{self.done:,} {self.unit}"
        return f"{self.done:,}/{self.total:,} {self.unit}"

    def _speed(self, elapsed: float) -> str:
        rate = (self.done - self._first) / elapsed
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def _left(self, elapsed: float) -> str:
        new = self.done - self._first
        if not self.total or new <= 0 or self.done >= self.total:
            return ""
        return f"{duration(elapsed * (self.total - self.done) / new)} left"


@contextmanager
def progress(
    what: str,
    total: int | None = None,
    unit: str = "items",
    done: int = 0,
    plain: bool = True,
    *,
    patience: float | None = None,
    clock: Callable[[], float] = monotonic,
) -> Iterator[Progress]:
    """Show how far `what` is; `done` units of `total` came from an earlier run.

    Without `plain` nothing is said off a terminal: for callers that print lines of their own.
    Work that takes less than `patience` seconds of the clock, two without it, shows nothing.
    """
    shown = Progress(what, total, unit, done, plain, patience, clock)
    try:
        yield shown
    finally:
        shown.close()


@cache
def _console() -> "Console":
    """Return the one console of all bars, so that nested bars know of each other."""
    from rich.console import Console

    return Console(stderr=True)


def _make_bar(what: str, total: int | None) -> Any:
    from rich.console import RenderableType
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Bar(RichProgress):
        below = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            if self.below:
                yield Text(self.below, no_wrap=True, overflow="ellipsis")

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}", markup=False),
        console=_console(),
        expand=True,
        transient=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # a piped result must not end up on stderr
    )
    bar.add_task(what, total=total, text="")
    return bar


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _bar(value: float, width: int, fancy: bool) -> str:
    value = min(max(0.0, value), 1.0)
    if not fancy:
        return "#" * round(value * width)
    whole, eighths = divmod(round(value * width * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def can_print(text: str, *streams: TextIO) -> bool:
    """Tell whether streams can encode `text`; without any, both: the caller may print on either."""
    try:
        for stream in streams or (sys.stdout, sys.stderr):
            real = getattr(stream, "rich_proxied_file", stream)  # what a live bar stands before
            text.encode(real.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
