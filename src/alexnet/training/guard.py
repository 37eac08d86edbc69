"""The doctor during training: it reads the log, measures some steps, and may stop the run."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from alexnet.diagnosis.rules import advice_in_flags
from alexnet.diagnosis.sentinel import Sentinel
from alexnet.errors import Diverged
from alexnet.records import (
    DoctorEvent,
    Event,
    LookEvent,
    TrainEvent,
    Verdict,
    as_event,
)
from alexnet.support.options import AdvisedCall
from alexnet.support.terminal import say
from alexnet.training.log import RunLog
from alexnet.training.trainer import Trainer

Doctor = Literal["stop", "say", "off"]  # reaction to a verdict of the sentinel

TIMING_VERDICTS = ("starved-loader",)  # depend on the machine, not on recipe and data


class RunGuard:
    """Feeds the sentinel with log events and measured steps, and logs its verdicts.

    `fatal` is the reason to stop the run. It is set by a verdict "will not learn" if `doctor` is
    "stop". `again` is the command that continues the run.
    """

    def __init__(self, sentinel: Sentinel, log: RunLog, again: AdvisedCall, doctor: Doctor) -> None:
        self._sentinel, self._log, self._again, self._doctor = sentinel, log, again, doctor
        self.fatal: Diverged | None = None
        if doctor != "off":
            log.listeners.append(self._listen)

    def looks_at(self, step: int) -> bool:
        return step % self._sentinel.every == 0

    @contextmanager
    def look(self, step: int) -> Iterator[None]:
        if self._doctor == "off":
            yield
            return
        with self._sentinel.look(step):
            yield
        if measured := self._sentinel.measured:
            epoch = self._log.epoch(step + 1)
            self._log.write(LookEvent(step=step + 1, epoch=epoch, **measured.by_field()))
        self._report(self._sentinel.verdicts, step + 1)

    def replay(self, lines: Iterable[Mapping[str, Any]], trainer: Trainer) -> None:
        """Feed the sentinel the events of a continued run, and report verdicts not yet logged."""
        step, unlogged = trainer.state.step, dict[str, Verdict]()
        for event in map(as_event, lines):
            self._log.replay(event)
            if isinstance(event, TrainEvent) and event.n is None:  # as 0.1.0 wrote it
                steps = (event.step - 1) % trainer.steps_per_epoch + 1
                event = replace(event, n=steps * trainer.recipe.batch_size)
            if isinstance(event, DoctorEvent):
                verdict = unlogged.pop(event.name, None)
                # Earlier versions stopped some runs that had learnt: those may continue.
                fatal = event.severity == "will not learn" and not self._sentinel.has_learnt()
                if fatal and self._doctor == "stop":
                    self.fatal = self._stop_reason(verdict or event, step)
            unlogged |= {v.name: v for v in self._sentinel.note(event)}
        if self._doctor != "off":
            self._report(list(unlogged.values()), step)

    def _listen(self, event: Event) -> None:
        if not isinstance(event, DoctorEvent) and event.step is not None:
            self._report(self._sentinel.note(event), event.step)

    def _report(self, verdicts: list[Verdict], step: int) -> None:
        for v in verdicts:
            if v.name in TIMING_VERDICTS:  # the log holds only what recipe and data determine
                say(f"doctor: {v.name}: {v.evidence}; {v.advice}")
                continue
            self._log.add(
                DoctorEvent(
                    step=step,
                    epoch=self._log.epoch(step),
                    name=v.name,
                    severity=v.severity,
                    where=v.where,
                    evidence=v.evidence,
                    advice=advice_in_flags(v),
                )
            )
            if v.severity == "will not learn" and self._doctor == "stop" and not self.fatal:
                self.fatal = self._stop_reason(v, step)

    def _stop_reason(self, v: Verdict | DoctorEvent, step: int) -> Diverged:
        return Diverged(
            f"stopped at step {step:,}: {v.name}: {v.evidence}; {v.advice}; "
            f"to continue anyway: {self._again.also(doctor='say')}"
        )
