"""What `alexnet bench` returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from alexnet.runs.records.base import Entry, Record, optional
from alexnet.runs.records.environment import Environment


@dataclass(frozen=True, kw_only=True)
class BenchRow(Record):
    """One way of doing it, by `name`.

    `images_per_s` is the median of the rounds, `range` the lowest and the highest; `ratio` is it
    beside the reference. `extra_bytes` is the memory that it took, None where the system does not
    say. Of answers `batch` images were asked at a time, in `ms`. `share` is the fraction of the
    machine's limit that is reached.
    """

    name: str
    images_per_s: float
    range: tuple[float, float]
    ratio: float
    extra_bytes: int | None
    batch: int | None = optional()
    ms: float | None = optional()
    share: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class CompanyRow(Record):
    """The same way beside one busy process a core, whose priority is `company` (lowest or equal).

    `name`, `images_per_s`, `range`, `ratio` (to the reference in the same company) and `batch` are
    as in BenchRow; `of_quiet` is the fraction of its own rate without company.
    """

    name: str
    company: str
    images_per_s: float
    range: tuple[float, float]
    ratio: float
    of_quiet: float
    batch: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class Company(Entry):
    """Who was beside: so many `processes`, of the `niceness` of each priority (0 to 19)."""

    processes: int
    niceness: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BenchResult(Record):
    """What all benches say: `what` was measured of a `model`, in so many `rounds` of turns. `rows`
    are its ways, `company` is who was beside some of them, `missing` what could not be measured and
    why, `environment` the machine."""

    derived_first: ClassVar[bool] = True

    what: str
    model: str | None
    rounds: int
    rows: Sequence[BenchRow | CompanyRow]
    company: Company | None = optional()
    missing: Sequence[str] | None = optional()
    environment: Environment

    @property
    def quiet(self) -> list[BenchRow]:
        """The rows without company."""
        return [row for row in self.rows if isinstance(row, BenchRow)]

    @property
    def beside(self) -> list[CompanyRow]:
        """The rows in company."""
        return [row for row in self.rows if isinstance(row, CompanyRow)]


@dataclass(frozen=True, kw_only=True)
class DataWait(Entry):
    """How far training waits for its images: the `share` of `steps` spent waiting, the pace
    `images_per_s`, and what 90 epochs of ILSVRC-2012 take at it (`hours_of_90_epochs`)."""

    share: float
    images_per_s: float
    hours_of_90_epochs: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class InputBench(BenchResult):
    """Reading: `batches` of `batch_size` a round, of `images` JPEGs of `jpeg_bytes` on average.
    With a model, `waits` says by encoding how far its training waits for images."""

    what: Literal["input"] = "input"
    rows: Sequence[BenchRow | CompanyRow]
    waits: Mapping[str, DataWait]
    model: str | None
    jpeg_bytes: int
    images: int
    batch_size: int
    batches: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class PartSeconds(Entry):
    """Seconds that a `part` takes in one training step: `forward` and `backward`."""

    part: str
    forward: float
    backward: float


@dataclass(frozen=True, kw_only=True)
class TrainBench(BenchResult):
    """Training steps in batches of `batch_size`. `flops` are additions and multiplications of a
    step an image, `limits` what the machine does in a second by precision, `parts` the seconds of
    each part of ours."""

    what: Literal["train"] = "train"
    model: str
    batch_size: int
    rounds: int
    flops: int
    limits: Mapping[str, float]
    rows: Sequence[BenchRow | CompanyRow]
    parts: Sequence[PartSeconds]
    missing: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PartTimes(Entry):
    """Milliseconds (`ms`) that each part takes for a `batch` of so many images."""

    batch: int
    ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class InferBench(BenchResult):
    """Answers. `flops` are additions and multiplications an image, `limits` what the machine does
    in a second by precision. Memory is read at `read_bytes_per_s`, so that the weights alone take
    `floor_ms`; `parts` are the times of each part of ours."""

    what: Literal["infer"] = "infer"
    model: str
    rounds: int
    flops: int
    limits: Mapping[str, float]
    read_bytes_per_s: float
    floor_ms: float
    rows: Sequence[BenchRow | CompanyRow]
    parts: Sequence[PartTimes]
    missing: Sequence[str]
