"""Events: the lines of a run's metrics.jsonl."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from alexnet.errors import CheckpointError
from alexnet.records.base import Entry, Misfit, MissingKey, Record, optional
from alexnet.records.evaluation import (
    ClassCount,
    PartialEvalImages,
    PartialEvalResult,
    UnreadFile,
)
from alexnet.records.settings import Settings
from alexnet.records.sharing import WeightsVerdict


@dataclass(frozen=True, kw_only=True)
class Event(Record):
    """An `event` of a run, after `step` updates of the weights."""

    needed: ClassVar[Sequence[str]] = ()  # keys that every run writes; other programs may omit them

    event: str
    step: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class EpochEvent(Event):
    """An event at `step` in `epoch`, which is 0 where another program does not write it."""

    needed: ClassVar[Sequence[str]] = ("epoch",)

    step: int
    epoch: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainEvent(EpochEvent):
    """The progress of training.

    `loss` (nats) is that of the last batch; `loss_mean`, `top1` and `top5` (fractions; `top5` is
    None with five classes or fewer) are over the `n` images of the epoch so far. `lr` is the
    learning rate. Since the line before, `data_wait` is the fraction of the time spent waiting for
    data and `images_per_s` the rate. `eta_s` is the number of seconds left, `wall_s` the number of
    seconds spent so far.
    """

    event: Literal["train"] = "train"
    loss: float
    n: int | None = optional()
    loss_mean: float | None = optional()
    top1: float | None = optional()
    top5: float | None = None
    lr: float | None = optional()
    data_wait: float | None = optional()
    images_per_s: float | None = optional()
    eta_s: float | None = optional()
    wall_s: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class ValEvent(PartialEvalResult, EpochEvent):
    """A validation of `n` images, with the number of `views` of each image where it is not one."""

    needed: ClassVar[Sequence[str]] = ("epoch", "n")

    event: Literal["val"] = "val"
    n: int = 0
    views: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class TestEvent(PartialEvalImages, PartialEvalResult, Event):
    """A test, with the fields of TestResult, of which runs of 0.1.0 lack some: `views`, `engine`,
    `precision`, `processes`, `images_per_s`, `wall_s`, `run`, `checkpoint`, `data`, `unreadable`,
    `per_class` and `figures`, beside those of its base classes."""

    __test__: ClassVar[bool] = False  # pytest takes classes called Test... for tests

    event: Literal["test"] = "test"
    split: str = field()  # required, other than in the base class
    views: int
    engine: str = "torch"
    precision: str | None = optional()
    processes: int | None = optional()
    images_per_s: float | None = optional()
    wall_s: float | None = optional()
    run: str | None = optional()
    checkpoint: str = ""
    data: str | None = optional()
    unreadable: Sequence[UnreadFile] | None = optional()
    per_class: Sequence[ClassCount] | None = optional()
    figures: Sequence[str] | None = optional()

    def precision_of(self, trained: str) -> str | None:
        """The precision of the figures, for a run that was `trained` in this precision.

        Earlier versions did not record it. Their tests of a run in bf16 took the precision that was
        fast on their machine, so it is not known (None).
        """
        if self.precision:
            return self.precision
        of_engine = {"int8": "int8", "onnx": "fp32"}.get(self.engine)
        return of_engine or (None if trained == "bf16" else "fp32")


@dataclass(frozen=True, kw_only=True)
class LookFigures(Entry):
    """Measurements of one update by the doctor's guard: the fraction of `dead` units by layer, the
    size of the update divided by that of the weight (`update_ratio`), and the fraction of weights
    whose gradient does not depend on the images (`untaught`)."""

    dead: Mapping[str, float] = field(default_factory=dict)
    update_ratio: float | None = optional("update")
    untaught: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class LookEvent(LookFigures, EpochEvent):
    """The measurements of the doctor's guard at a step."""

    event: Literal["look"] = "look"


@dataclass(frozen=True, kw_only=True)
class DoctorEvent(Event):
    """A fault that the doctor's guard saw in `epoch`. `name`, `severity`, `where`, `evidence`,
    `advice`, `cause` and `source` are as in Verdict."""

    event: Literal["doctor"] = "doctor"
    epoch: float | None = optional()
    name: str
    severity: str
    where: str = ""
    evidence: str
    advice: str
    cause: str | None = optional()
    source: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class ResumeEvent(Event):
    """The run continued from `step`, so earlier events of later steps no longer count.

    `settings` are those of a training that started again from step 0. `doctor` says what happens
    when the guard finds a fault, where that is not to stop. `changed` says how the machine differs
    from the one before.
    """

    event: Literal["resume"] = "resume"
    settings: Settings | None = optional()
    doctor: str | None = optional()
    changed: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class DivergedEvent(Event):
    """The training ended since the `loss` or a weight was not finite. JSON has no word for such a
    number, so `loss` is text. `where` names the first part of the network that was not finite."""

    event: Literal["diverged"] = "diverged"
    loss: str | float | None = optional()
    where: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class BadImageEvent(Event):
    """An image that could not be read: its `path` in the data set, its `split` and `index` there,
    the `reason`, the first `step` that needed it, its `fate` (reported, left out, removed, repaired
    or replaced), and the effect of that on the `bits` of the weights."""

    derived_first: ClassVar[bool] = True

    event: Literal["unreadable"] = "unreadable"
    path: str
    split: str
    index: int
    reason: str
    step: int
    fate: str
    bits: str


@dataclass(frozen=True, kw_only=True)
class ImportEvent(Event):
    """Weights were imported. `file`, `sha256`, `model`, `classes`, `matched`, `left`, `expects` and
    `judged` are as in ImportResult."""

    event: Literal["import"] = "import"
    file: str | None = optional()
    sha256: str | None = optional()
    model: str | None = optional()
    classes: int | None = optional()
    matched: Sequence[str] | None = optional()
    left: Sequence[str] | None = optional()
    expects: str | None = optional()
    judged: WeightsVerdict | None = optional()


@dataclass(frozen=True, kw_only=True)
class OtherEvent(Event):
    """An event of a later version: the whole `line`."""

    line: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.line)

    @classmethod
    def read(cls, values: object) -> Self:
        return super().read({**values, "line": values} if isinstance(values, Mapping) else values)


KINDS: Mapping[str, type[Event]] = {
    "train": TrainEvent,
    "val": ValEvent,
    "test": TestEvent,
    "look": LookEvent,
    "doctor": DoctorEvent,
    "resume": ResumeEvent,
    "diverged": DivergedEvent,
    "unreadable": BadImageEvent,
    "import": ImportEvent,
}


def read_event(line: Mapping[str, Any], source: str) -> Event:
    """Read a line of metrics.jsonl. Numbers may be NaN, infinite or null.

    Raises CheckpointError, which names `source`, for a line that no run writes: it was edited.
    """
    kind = line.get("event")
    try:
        if not isinstance(kind, str):
            raise Misfit(kind, "a word", "event")
        event = KINDS.get(kind, OtherEvent)
        if missing := [key for key in event.needed if line.get(key) is None]:
            raise MissingKey(None, "", missing[0])
        return event.read(line)
    except MissingKey as misfit:
        problem = f"{kind} has no {misfit.path}"
    except Misfit as misfit:
        of_kind = f" of {kind}" if isinstance(kind, str) else ""
        problem = f"{misfit.path}{of_kind} is {misfit.value!r:.40}, expected {misfit.expected}"
    raise CheckpointError(
        f"{source}: {problem}; it was edited: restore a copy, or take the line out"
    ) from None


def as_event(line: Event | Mapping[str, Any]) -> Event:
    """The event of a line that a caller made, which may have fewer keys than a run's."""
    if isinstance(line, Event):
        return line
    return KINDS.get(line["event"], OtherEvent).from_json(line, f"a line of {line['event']!r}")
