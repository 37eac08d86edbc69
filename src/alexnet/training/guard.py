"""The doctor beside a training: it reads the log, looks at some steps, and may stop it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from alexnet.diagnosis.sentinel import Sentinel
from alexnet.errors import Diverged
from alexnet.options import AdvisedCall
from alexnet.runs.records import (
    DoctorEvent,
    Event,
    LookEvent,
    TrainEvent,
    Verdict,
    as_event,
)
from alexnet.terminal import say
from alexnet.training.log import RunLog
from alexnet.training.trainer import Trainer

Doctor = Literal["stop", "say", "off"]  # what is done when the sentinel finds something

BY_THE_CLOCK = ("starved-loader",)


class RunGuard:
    """Lets a sentinel read the log and look at steps; writes what it finds into the log.

    `fatal` is why the run is to stop: set where the sentinel finds what keeps it from learning and
    `doctor` is "stop". `again` is the command that goes on.
    """

    def __init__(self, sentinel: Sentinel, log: RunLog, again: AdvisedCall, doctor: Doctor) -> None:
        self._sentinel, self._log, self._again, self._doctor = sentinel, log, again, doctor
        self.fatal: Diverged | None = None
        if doctor != "off":
            log.readers.append(self._read)

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
        self._heed(self._sentinel.verdicts, step + 1)

    def read_back(self, lines: Iterable[Mapping[str, Any]], trainer: Trainer) -> None:
        """Let the sentinel know what was before a restart, and heed what nobody heeded then."""
        step, unsaid = trainer.state.step, dict[str, Verdict]()
        for event in map(as_event, lines):
            self._log.read_back(event)
            if isinstance(event, TrainEvent) and event.n is None:  # as 0.1.0 wrote it
                steps = (event.step - 1) % trainer.steps_per_epoch + 1
                event = replace(event, n=steps * trainer.recipe.batch_size)
            if isinstance(event, DoctorEvent):
                said = unsaid.pop(event.name, None)
                # An earlier version stopped some that had learnt: those go on.
                fatal = event.severity == "will not learn" and not self._sentinel.has_learnt()
                if fatal and self._doctor == "stop":
                    self.fatal = self._stopped(said or event, step)
            unsaid |= {v.name: v for v in self._sentinel.note(event)}
        if self._doctor != "off":
            self._heed(list(unsaid.values()), step)

    def _read(self, event: Event) -> None:
        if not isinstance(event, DoctorEvent) and event.step is not None:
            self._heed(self._sentinel.note(event), event.step)

    def _heed(self, verdicts: list[Verdict], step: int) -> None:
        for v in verdicts:
            if v.name in BY_THE_CLOCK:  # not a function of recipe and data, as the log is
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
                    advice=v.advice,
                )
            )
            if v.severity == "will not learn" and self._doctor == "stop" and not self.fatal:
                self.fatal = self._stopped(v, step)

    def _stopped(self, v: Verdict | DoctorEvent, step: int) -> Diverged:
        return Diverged(
            f"stopped at step {step:,}: {v.name}: {v.evidence}; {v.advice}; "
            f"to go on all the same: {self._again.also(doctor='say')}"
        )
