"""The log of a training: metrics.jsonl, lines on the terminal, the status display, TensorBoard."""

import math
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TextIO

import torch

from alexnet.models.net import Net
from alexnet.records import DoctorEvent, Event, ResumeEvent, TrainEvent, ValEvent
from alexnet.runs.rundir import RunDir
from alexnet.support.terminal import Progress, can_print, duration, percent, progress, say

WIDTH = 14  # characters of a sparkline
_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=*#"


class RunLog:
    """Writes each event to metrics.jsonl, terminal and TensorBoard, and passes it to listeners.

    On a live terminal the training figures stand under the progress bar instead of in lines. Lines
    show top-5 if `top5`. `board` is the TensorBoard writer. `show` is called with the step and the
    network after each validation. `listeners` are called with each event that is added.
    """

    def __init__(
        self,
        run: RunDir,
        steps_per_epoch: int,
        board: Any = None,
        show: Callable[[int, Net], None] | None = None,
        *,
        top5: bool = True,
    ) -> None:
        self._run, self._per_epoch = run, steps_per_epoch
        self._board, self._show, self._top5 = board, show, top5
        self._status = Status()
        self._bar: Progress | None = None
        self.listeners: list[Callable[[Event], None]] = []

    @contextmanager
    def progress(self, step: int, total: int) -> Iterator[None]:
        """Show a progress bar while the block runs."""
        with progress("training", total, "steps", step, plain=False) as self._bar:
            yield

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.advance()

    def replay(self, event: Event) -> None:
        """Show an event that was logged before the run was continued."""
        self._status.note(event)

    def train(self, event: TrainEvent) -> None:
        self.add(event)

    def val(self, event: ValEvent, net: Net) -> None:
        self.add(event)
        if self._show is not None:
            self._show(event.step, net)

    def add(self, event: TrainEvent | ValEvent | DoctorEvent) -> None:
        """Write an event, print it, and pass it to the listeners."""
        self.write(event)
        self._status.note(event)
        if self._bar is None or not self._bar.live or not isinstance(event, TrainEvent):
            say(describe_event(event, self._top5))
        if self._bar is not None:
            self._bar.below(self._status.text())
        for listen in self.listeners:
            listen(event)

    def write(self, event: Event) -> None:
        """Write an event without printing it."""
        self._run.log(event)
        if self._board is not None:
            self._board.add(event)

    def epoch(self, step: int) -> float:
        """Convert steps to epochs."""
        return step / self._per_epoch


def training_pace(events: Sequence[Event], batch: int) -> float | None:
    """Return the images a second of all logged training steps, without validation and saving.

    None if the log has no steps. The rate of a line is that of the steps since the line before, or
    since the run was continued.
    """
    images, seconds, before = 0.0, 0.0, 0
    for event in events:
        if isinstance(event, TrainEvent) and event.images_per_s:
            images += (event.step - before) * batch
            seconds += (event.step - before) * batch / event.images_per_s
        if isinstance(event, TrainEvent | ResumeEvent) and event.step is not None:
            before = event.step
    return round(images / seconds, 1) if seconds > 0 else None


def describe_event(event: TrainEvent | ValEvent | DoctorEvent, with_top5: bool) -> str:
    """Format an event as a line for the terminal."""
    if isinstance(event, DoctorEvent):
        where = f" ({event.where})" if event.where else ""
        return f"doctor: {event.name}{where}: {event.evidence}; {event.advice}"
    position = f"step {event.step:>6,}  epoch {event.epoch:6.2f}"
    top5 = f"  top-5 {percent(event.top5)}" if with_top5 and event.top5 is not None else ""
    top1 = math.nan if event.top1 is None else event.top1
    if isinstance(event, ValEvent):
        low, high = event.top1_ci95 or (math.nan, math.nan)
        views = f", {event.views} views" if event.views else ""
        return (
            f"{position}  validation: loss {event.loss:.4f}  top-1 {percent(top1)} "
            f"[{percent(low)}, {percent(high)}]{top5}  n {event.n:,}{views}"
        )
    return (
        f"{position}  loss {event.loss:.4f}  mean {event.loss_mean:.4f}  "
        f"top-1 {percent(top1)}{top5}  lr {event.lr:.2e}  "
        f"{event.images_per_s:,.0f} images/s  {duration(event.eta_s or 0.0)} left"
    )


class Status:
    """Status display under the progress bar: loss, top-1, speed and memory, three short lines."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], list[float]] = {}
        self._last: TrainEvent | None = None

    def note(self, event: Event) -> None:
        """Update the display; only training and validation events count."""
        if not isinstance(event, TrainEvent | ValEvent):
            return
        loss = event.loss_mean if isinstance(event, TrainEvent) else event.loss
        for name, value in (("loss", loss), ("top-1", event.top1)):
            if value is not None:
                self._series.setdefault((name, event.event), []).append(value)
        if isinstance(event, TrainEvent):
            self._last = event

    def text(self) -> str:
        """Return at most three lines of at most 79 columns."""
        rows = []
        for name, show in (("loss", lambda v: f"{v:.4f}"), ("top-1", percent)):
            parts = [
                f"{spark(values)} {show(values[-1])} {label}"
                for event, label in (("train", "train"), ("val", "validation"))
                if (values := self._series.get((name, event)))
            ]
            if parts:
                rows.append(f"{name:<5}  " + "   ".join(parts))
        if self._last is not None:
            rows.append(
                f"{self._last.images_per_s or 0:,.0f} images/s, "
                f"{percent(self._last.data_wait or 0, 1)} of the time waiting for data, {_memory()}"
            )
        return "\n".join(rows)


def spark(values: Sequence[float], width: int = WIDTH, stream: TextIO | None = None) -> str:
    """Draw values as a sparkline of at most `width` characters, each the mean of its interval.

    A value that is not finite is a question mark. `stream` is the file that it is printed to,
    standard error by default: it decides whether block characters can be encoded.
    """
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    blocks = _BLOCKS if can_print(_BLOCKS, stream or sys.stderr) else _PLAIN
    finite = [v for v in values if math.isfinite(v)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    top = len(blocks) - 1
    return "".join(
        blocks[round(top * (v - low) / span) if span else 0] if math.isfinite(v) else "?"
        for v in values
    )


def _memory() -> str:
    """Peak memory of this process, and of its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    text = f"{peak / 2**20:,.0f} MiB at most"
    if torch.cuda.is_available():
        text += f", GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"
    return text
