"""The lines of a run's metrics.jsonl."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from alexnet.errors import CheckpointError
from alexnet.runs.records.base import Lacking, Misfit, Record, optional
from alexnet.runs.records.evaluation import ClassCount, Interval, UnreadFile
from alexnet.runs.records.settings import Settings
from alexnet.runs.records.sharing import WeightsJudged


@dataclass(frozen=True, kw_only=True)
class Event(Record):
    """What a run noted of an `event`, after `step` updates of the weights."""

    needed: ClassVar[Sequence[str]] = ()  # that every run writes, whatever other programs do

    event: str
    step: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class TrainEvent(Event):
    """Training, as far as `step` and `epoch` (0 where another program does not say).

    `loss` (nats) is that of the last batch; `loss_mean`, `top1` and `top5` (fractions, None with
    five classes or fewer) are over the `n` images of the epoch so far. `lr` is the learning rate,
    `data_wait` the fraction of the time that was waited for data, `images_per_s` the pace since the
    line before, `eta_s` the seconds left and `wall_s` those spent so far.
    """

    needed: ClassVar[Sequence[str]] = ("epoch",)

    event: Literal["train"] = "train"
    step: int
    epoch: float = 0.0
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
class ValEvent(Event):
    """A validation at `step` and `epoch` (0 where another program does not say) of `n` images, with
    so many `views` an image where they are more than one.

    `loss`, `top1`, `top1_ci95`, `top1_optimistic`, `top1_pessimistic`, `top1_expected`, `top5`,
    `top5_ci95`, `top5_optimistic`, `top5_pessimistic` and `top5_expected` are as in EvalResult.
    """

    needed: ClassVar[Sequence[str]] = ("epoch", "n")

    event: Literal["val"] = "val"
    step: int
    epoch: float = 0.0
    n: int = 0
    loss: float
    top1: float | None = optional()
    top1_ci95: Interval | None = optional()
    top1_optimistic: float | None = optional()
    top1_pessimistic: float | None = optional()
    top1_expected: float | None = optional()
    top5: float | None = None
    top5_ci95: Interval | None = optional()
    top5_optimistic: float | None = optional()
    top5_pessimistic: float | None = optional()
    top5_expected: float | None = optional()
    views: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class TestEvent(Event):
    """A test, as TestResult has it: `n`, `loss`, `top1`, `top1_ci95`, `top1_optimistic`,
    `top1_pessimistic`, `top1_expected`, `top5`, `top5_ci95`, `top5_optimistic`, `top5_pessimistic`,
    `top5_expected`, `split`, `own`, `seen`, `near_seen`, `repeated`, `contradicted`, `with_seen`,
    `ignored`, `absent`, `views`, `engine`, `precision`, `processes`, `images_per_s`, `wall_s`,
    `run`, `checkpoint`, `data`, `unreadable`, `per_class` and `figures`. Runs of 0.1.0 lack some.
    """

    __test__: ClassVar[bool] = False  # no test of pytest's

    event: Literal["test"] = "test"
    n: int
    loss: float
    top1: float | None = optional()
    top1_ci95: Interval | None = optional()
    top1_optimistic: float | None = optional()
    top1_pessimistic: float | None = optional()
    top1_expected: float | None = optional()
    top5: float | None = None
    top5_ci95: Interval | None = optional()
    top5_optimistic: float | None = optional()
    top5_pessimistic: float | None = optional()
    top5_expected: float | None = optional()
    split: str
    own: bool | None = optional()
    seen: int | None = None
    near_seen: int | None = None
    repeated: int | None = optional()
    contradicted: int | None = optional()
    with_seen: bool | None = optional()
    ignored: Mapping[str, int] | None = optional()
    absent: Sequence[str] | None = optional()
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
        """What the figures were computed in, by a run that was `trained` so. Runs from before say
        it in no line: where they were trained in bf16 it depended on the machine, and is not known.
        """
        if self.precision:
            return self.precision
        known = {"int8": "int8", "onnx": "fp32"}.get(self.engine)
        return known or (None if trained == "bf16" else "fp32")


@dataclass(frozen=True, kw_only=True)
class LookEvent(Event):
    """What the doctor's guard measured of the update to `step`, in `epoch`: the fraction of units
    that are `dead` by layer, the size of the update beside the weight (`update_ratio`), and the
    fraction of weights whose gradient tells nothing of the images (`untaught`)."""

    needed: ClassVar[Sequence[str]] = ("epoch",)

    event: Literal["look"] = "look"
    step: int
    epoch: float = 0.0
    dead: Mapping[str, float] = field(default_factory=dict)
    update_ratio: float | None = optional("update")
    untaught: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class DoctorEvent(Event):
    """What the doctor's guard found at `step`, in `epoch`. `name`, `severity`, `where`, `evidence`,
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
    """The run went on from `step`: what was noted beyond it is taken back. `settings` are those of
    a training that started again, `doctor` is what was done about the guard's finds, where that was
    not to stop, and `changed` says what of the machine is another than it was."""

    event: Literal["resume"] = "resume"
    settings: Settings | None = optional()
    doctor: str | None = optional()
    changed: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class DivergedEvent(Event):
    """The training ended at `step`: the `loss`, as text since JSON has no word for it, or a weight
    was no finite number, from `where` on."""

    event: Literal["diverged"] = "diverged"
    loss: str | float | None = optional()
    where: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class BadImageEvent(Event):
    """An image that could not be read: its `path` inside the set, `split` and `index` there, the
    `reason`, the `step` that wanted it first, its `fate` (reported, left out, removed, repaired or
    replaced), and what that means for the `bits` of the weights."""

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
    """Weights were imported: `file`, `sha256`, `model`, `classes`, `matched`, `left`, `expects` and
    `judged` are as in ImportResult."""

    event: Literal["import"] = "import"
    file: str | None = optional()
    sha256: str | None = optional()
    model: str | None = optional()
    classes: int | None = optional()
    matched: Sequence[str] | None = optional()
    left: Sequence[str] | None = optional()
    expects: str | None = optional()
    judged: WeightsJudged | None = optional()


@dataclass(frozen=True, kw_only=True)
class OtherEvent(Event):
    """Something that another version notes: the whole `line`."""

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
    """A line of metrics.jsonl. Numbers may be NaN, infinite or null.

    Raises CheckpointError, which names `source`, for what no run writes: it was edited.
    """
    kind = line.get("event")
    try:
        if not isinstance(kind, str):
            raise Misfit(kind, "a word", "event")
        event = KINDS.get(kind, OtherEvent)
        if missing := [key for key in event.needed if line.get(key) is None]:
            raise Lacking(None, "", missing[0])
        return event.read(line)
    except Lacking as misfit:
        odd = f"{kind} has no {misfit.path}"
    except Misfit as misfit:
        of = f" of {kind}" if isinstance(kind, str) else ""
        odd = f"{misfit.path}{of} is {misfit.value!r:.40}, expected {misfit.expected}"
    raise CheckpointError(
        f"{source}: {odd}; it was edited: restore a copy, or take the line out"
    ) from None


def as_event(line: Event | Mapping[str, Any]) -> Event:
    """A line by whoever wrote it, who may say less than a run does."""
    if isinstance(line, Event):
        return line
    return KINDS.get(line["event"], OtherEvent).from_json(line, f"a line of {line['event']!r}")
