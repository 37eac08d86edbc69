"""Where a training's figures go: metrics.jsonl, people, TensorBoard, and the sentinel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alexnet.diagnosis.sentinel import Sentinel
from alexnet.diagnosis.verdict import Verdict
from alexnet.runs.rundir import RunDir
from alexnet.terminal import Progress, duration, percent, say
from alexnet.training.status import Status

Doctor = Literal["stop", "say", "off"]  # what is done when the sentinel finds something

BY_THE_CLOCK = ("starved-loader",)


class Record:
    """Takes each line of figures, and lets the sentinel read along.

    `fatal` is what it found that keeps the run from learning, where the doctor is to stop it. Lines
    of training go under `bar` where that is live, with `top5` where that says something. `batch` is
    how many images a step takes.
    """

    def __init__(
        self,
        run: RunDir,
        board: Any,
        per_epoch: int,
        batch: int,
        sentinel: Sentinel,
        doctor: Doctor,
        top5: bool = True,
    ) -> None:
        self._run, self._board, self._per_epoch, self._batch = run, board, per_epoch, batch
        self._sentinel, self._doctor, self._top5 = sentinel, doctor, top5
        self._status = Status()
        self.bar: Progress | None = None
        self.fatal: Verdict | None = None

    def read_back(self, step: int) -> None:
        """Lets the sentinel know what was before a restart, and heeds what nobody heeded then."""
        unsaid: dict[str, Verdict] = {}
        for event in self._run.events():
            self._status.note(event)
            if event["event"] == "train" and "n" not in event:  # as 0.1.0 wrote it
                event["n"] = ((event["step"] - 1) % self._per_epoch + 1) * self._batch
            if event["event"] == "doctor":
                said = unsaid.pop(event["name"], None)
                # An earlier version stopped some that had learnt: those go on.
                fatal = event["severity"] == "will not learn" and not self._sentinel.has_learnt()
                if fatal and self._doctor == "stop":
                    self.fatal = said or Verdict(
                        event["name"], event["severity"], event["evidence"], "", event["advice"]
                    )
            unsaid |= {v.name: v for v in self._sentinel.note(event)}
        if self._doctor != "off":
            self._heed(list(unsaid.values()), step)

    def add(self, event: str, step: int, figures: dict[str, Any]) -> None:
        line = self._write(event, step, figures)
        self._status.note(line)
        if self.bar is None or not self.bar.live or event != "train":
            say(describe_event(line, self._top5))
        if self.bar is not None:
            self.bar.below(self._status.text())
        if event != "doctor" and self._doctor != "off":
            self._heed(self._sentinel.note(line), step)

    def _write(self, event: str, step: int, figures: dict[str, Any]) -> dict[str, Any]:
        line = {"event": event, "step": step, "epoch": step / self._per_epoch, **figures}
        self._run.log(line)
        if self._board is not None:
            self._board.add(line)
        return line

    @contextmanager
    def look(self, step: int) -> Iterator[None]:
        """The sentinel's look at the training step inside."""
        if self._doctor == "off":
            yield
            return
        with self._sentinel.look(step):
            yield
        if self._sentinel.measured:
            self._write("look", step + 1, self._sentinel.measured)
        self._heed(self._sentinel.found, step + 1)

    def _heed(self, verdicts: list[Verdict], step: int) -> None:
        for v in verdicts:
            if v.name in BY_THE_CLOCK:  # not a function of recipe and data, as the log is
                say(f"doctor: {v.name}: {v.evidence}; {v.advice}")
                continue
            told = {k: getattr(v, k) for k in ("name", "severity", "where", "evidence", "advice")}
            self.add("doctor", step, told)
            if v.severity == "will not learn" and self._doctor == "stop":
                self.fatal = self.fatal or v


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
