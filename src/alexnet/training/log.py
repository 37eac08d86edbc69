"""The log of a run: metrics.jsonl, lines for people, the status under the bar, and TensorBoard."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alexnet.models.net import Net
from alexnet.runs.records import DoctorEvent, Event, TrainEvent, ValEvent
from alexnet.runs.rundir import RunDir
from alexnet.terminal import Progress, duration, percent, progress, say
from alexnet.training.status import Status


class RunLog:
    """Writes each line of figures to where it belongs, and hands it to who reads along.

    Lines of training go under the bar where that is live; they tell top-5 where that says something
    (`top5`). `board` takes each line for TensorBoard; `show` is called with the step and the
    network after each validation. `readers` are called with each event that is added.
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
        self.readers: list[Callable[[Event], None]] = []

    @contextmanager
    def progress(self, step: int, total: int) -> Iterator[None]:
        """Inside, a bar shows how far training is."""
        with progress("training", total, "steps", step, plain=False) as self._bar:
            yield

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.advance()

    def read_back(self, event: Event) -> None:
        """Take an event that was written before a restart."""
        self._status.note(event)

    def train(self, event: TrainEvent) -> None:
        self.add(event)

    def val(self, event: ValEvent, net: Net) -> None:
        self.add(event)
        if self._show is not None:
            self._show(event.step, net)

    def add(self, event: TrainEvent | ValEvent | DoctorEvent) -> None:
        """Write an event, say it, and let the readers see it."""
        self.write(event)
        self._status.note(event)
        if self._bar is None or not self._bar.live or not isinstance(event, TrainEvent):
            say(describe_event(event, self._top5))
        if self._bar is not None:
            self._bar.below(self._status.text())
        for read in self.readers:
            read(event)

    def write(self, event: Event) -> None:
        """Write an event that is not said."""
        self._run.log(event)
        if self._board is not None:
            self._board.add(event)

    def epoch(self, step: int) -> float:
        """How many epochs so many steps are."""
        return step / self._per_epoch


def describe_event(event: TrainEvent | ValEvent | DoctorEvent, with_top5: bool) -> str:
    """One line of the log for people."""
    if isinstance(event, DoctorEvent):
        where = f" ({event.where})" if event.where else ""
        return f"doctor: {event.name}{where}: {event.evidence}; {event.advice}"
    at = f"step {event.step:>6,}  epoch {event.epoch:6.2f}"
    top5 = f"  top-5 {percent(event.top5)}" if with_top5 and event.top5 is not None else ""
    top1 = math.nan if event.top1 is None else event.top1
    if isinstance(event, ValEvent):
        low, high = event.top1_ci95 or (math.nan, math.nan)
        views = f", {event.views} views" if event.views else ""
        return (
            f"{at}  validation: loss {event.loss:.4f}  top-1 {percent(top1)} "
            f"[{percent(low)}, {percent(high)}]{top5}  n {event.n:,}{views}"
        )
    return (
        f"{at}  loss {event.loss:.4f}  mean {event.loss_mean:.4f}  "
        f"top-1 {percent(top1)}{top5}  lr {event.lr:.2e}  "
        f"{event.images_per_s:,.0f} images/s  {duration(event.eta_s or 0.0)} left"
    )
