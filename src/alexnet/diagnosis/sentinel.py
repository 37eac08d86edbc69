"""The guard beside a training: it looks at a step from time to time, and at every line of figures.

It may stop a training only on what no training shows that learns or has learnt: a verdict of
severity "will not learn". Some measurements that look bad are harmless. A network that has learnt
its images gets almost no gradient from them, so that weight decay alone still moves it. A wide
layer may be off for every image of a small batch. A plateau may end. So such a measurement is
checked against the figures: where they are better than a constant answer's, or too few to tell, the
verdict is a note at most.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.look import StepLook, look_at_step
from alexnet.diagnosis.ranking import SEVERITIES, as_severity, ranked
from alexnet.diagnosis.rules import MAY_END, find_run_faults, find_step_faults
from alexnet.diagnosis.run_figures import Learning, RunFigures
from alexnet.records import (
    DoctorEvent,
    Event,
    LookEvent,
    LookFigures,
    ResumeEvent,
    Severity,
    TrainEvent,
    ValEvent,
    Verdict,
    as_event,
)

LOOK_EVERY = 100  # steps
SCHEDULE_END = 1e-3  # learning rate relative to its highest: the schedule is coming to its end
MAX_LINES = 200  # lines of figures that are kept and judged


class Sentinel:
    """Reports each fault of a training once, and again where it has become more severe.

    `class_shares` are those of the classes among training labels. `look` surrounds a training step,
    and measures every `every`-th one. `note` takes each line of figures; lines from before a
    restart too, so that the verdicts do not depend on where a run was cut. Both report what is new,
    the worst first.
    """

    def __init__(
        self, model: nn.Module, class_shares: Sequence[float], every: int = LOOK_EVERY
    ) -> None:
        self.model, self.class_shares, self.every = model, class_shares, every
        self.events: list[Event] = []
        self.reported: dict[tuple[str, str], Severity] = {}  # by name and place
        self.verdicts: list[Verdict] = []  # new ones of the last look
        self.measured: LookFigures | None = None  # by the last look
        self.measured_before = LookFigures()  # by the look before it
        self.highest_rate = 0.0

    def learning(self) -> Learning:
        """What the figures since the last look show."""
        return RunFigures(self.events, self.class_shares).learning(self.every)

    def has_learnt(self) -> bool:
        return self.learning() == "learnt"

    @contextmanager
    def look(self, step: int) -> Iterator[None]:
        """Measures the training step made inside, if it is one to look at.

        `measured` then has the share of dead units by layer, the size of the update relative to the
        weight (median over weights), and the share of weights that the images teach nothing.
        """
        self.verdicts, self.measured = [], None
        if step % self.every:
            yield
            return
        look = StepLook(
            step,
            dead_before=self.measured_before.dead,
            untaught_before=self.measured_before.untaught,
        )
        with look_at_step(self.model, look):
            yield
        look.learning, look.schedule_is_ending = self.learning(), self._schedule_is_ending()
        self.measured = self.measured_before = look.measured()
        self.verdicts = self._report(find_step_faults(look))

    def note(self, line: Event | Mapping[str, Any]) -> list[Verdict]:
        """New verdicts on a line of figures, together with the lines before it."""
        event = as_event(line)
        if isinstance(event, DoctorEvent):  # reported before a restart
            if (severity := as_severity(event.severity)) is not None:
                self.reported[event.name, event.where] = severity
            return []
        if isinstance(event, LookEvent):
            self.measured_before = event
        if not isinstance(event, TrainEvent | ValEvent | ResumeEvent):
            return []
        if isinstance(event, TrainEvent):
            self.highest_rate = max(self.highest_rate, event.lr or 0.0)
        self.events = [*self.events[-MAX_LINES:], event]
        verdicts = ranked(find_run_faults(self.events, self.class_shares))
        return self._report(map(_while_training, verdicts))

    def _report(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """Those verdicts that were not reported before, or only as less severe."""
        new = []
        for verdict in verdicts:
            key = verdict.name, verdict.where
            before = self.reported.get(key)
            if before is None or SEVERITIES.index(verdict.severity) < SEVERITIES.index(before):
                self.reported[key] = verdict.severity
                new.append(verdict)
        return new

    def _schedule_is_ending(self) -> bool:
        """Whether the schedule has brought the learning rate down to almost nothing."""
        lines = (event for event in self.events if isinstance(event, TrainEvent))
        rates = [event.lr for event in lines if event.lr is not None]
        return bool(rates) and rates[-1] < SCHEDULE_END * self.highest_rate


def _while_training(verdict: Verdict) -> Verdict:
    """A verdict on the figures of a training that goes on: what may end is not fatal yet."""
    if verdict.name in MAY_END and verdict.severity == "will not learn":
        return replace(verdict, severity="learns badly")
    return verdict


def first_not_finite(model: nn.Module, x: Tensor | None) -> str:
    """The first weight that is not finite, else the first layer whose output for x is not.

    "the images" where x itself is not finite, "the loss" where nothing else is to blame.
    """
    for name, p in model.named_parameters():
        if not bool(p.isfinite().all()):
            return f"{name} (a weight)"
    if x is None:
        return "the loss"
    not_finite: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def check_output(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not not_finite and not bool(output.isfinite().all()):
            not_finite.append(names[module])

    layers = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [layer.register_forward_hook(check_output) for layer in layers]
    try:
        if not bool(x.isfinite().all()):
            return "the images"
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return not_finite[0] if not_finite else "the loss"
