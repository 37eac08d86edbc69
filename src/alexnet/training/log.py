"""The log of a run: metrics.jsonl, lines for people, the status under the bar, and TensorBoard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alexnet.models.net import Net
from alexnet.runs.rundir import RunDir
from alexnet.terminal import Progress, duration, percent, progress, say
from alexnet.training.status import Status


class RunLog:
    """Writes each line of figures to where it belongs, and hands it to who reads along.

    Lines of training go under the bar where that is live; they tell top-5 where that says something
    (`top5`). `board` takes each line for TensorBoard; `show` is called with the step and the
    network after each validation. `readers` are called with the step and each line that is added.
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
        self.readers: list[Callable[[int, dict[str, Any]], None]] = []

    @contextmanager
    def progress(self, step: int, total: int) -> Iterator[None]:
        """Inside, a bar shows how far training is."""
        with progress("training", total, "steps", step, plain=False) as self._bar:
            yield

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.advance()

    def read_back(self, line: dict[str, Any]) -> None:
        """Take a line that was written before a restart."""
        self._status.note(line)

    def train(self, step: int, figures: dict[str, Any]) -> None:
        self.add("train", step, figures)

    def val(self, step: int, figures: dict[str, Any], net: Net) -> None:
        self.add("val", step, figures)
        if self._show is not None:
            self._show(step, net)

    def add(self, event: str, step: int, figures: dict[str, Any]) -> None:
        """Write a line, say it, and let the readers see it."""
        line = self.write(event, step, figures)
        self._status.note(line)
        if self._bar is None or not self._bar.live or event != "train":
            say(describe_event(line, self._top5))
        if self._bar is not None:
            self._bar.below(self._status.text())
        for read in self.readers:
            read(step, line)

    def write(self, event: str, step: int, figures: dict[str, Any]) -> dict[str, Any]:
        """Write a line that is not said; returns it."""
        line = {"event": event, "step": step, "epoch": step / self._per_epoch, **figures}
        self._run.log(line)
        if self._board is not None:
            self._board.add(line)
        return line


def describe_event(line: dict[str, Any], with_top5: bool) -> str:
    """One line of the log for people."""
    if line["event"] == "doctor":
        where = f" ({line['where']})" if line["where"] else ""
        return f"doctor: {line['name']}{where}: {line['evidence']}; {line['advice']}"
    at = f"step {line['step']:>6,}  epoch {line['epoch']:6.2f}"
    shown = with_top5 and line["top5"] is not None
    top5 = f"  top-5 {percent(line['top5'])}" if shown else ""
    if line["event"] == "val":
        low, high = line["top1_ci95"]
        views = f", {line['views']} views" if line.get("views", 1) > 1 else ""
        return (
            f"{at}  validation: loss {line['loss']:.4f}  top-1 {percent(line['top1'])} "
            f"[{percent(low)}, {percent(high)}]{top5}  n {line['n']:,}{views}"
        )
    return (
        f"{at}  loss {line['loss']:.4f}  mean {line['loss_mean']:.4f}  "
        f"top-1 {percent(line['top1'])}{top5}  lr {line['lr']:.2e}  "
        f"{line['images_per_s']:,.0f} images/s  {duration(line['eta_s'])} left"
    )
