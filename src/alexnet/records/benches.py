"""Results of `alexnet bench`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from alexnet.records.base import Entry, Record, optional
from alexnet.records.environment import Environment


@dataclass(frozen=True, kw_only=True)
class BenchRow(Record):
    """The speed of one implementation, called `name`.

    `images_per_s` is the median over the rounds, `range` the lowest and the highest rate, and
    `ratio` the rate divided by that of the reference. `extra_bytes` is the memory used, None where
    the system does not report it. In `bench infer` each call had `batch` images and took `ms`
    milliseconds. `share` is the fraction of the machine's limit that was reached.
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
    """The speed of one implementation while one other process on each core is busy.

    `company` is the priority of those processes (lowest or equal). `name`, `images_per_s`, `range`,
    `ratio` (to the reference under the same load) and `batch` are as in BenchRow. `of_quiet` is the
    rate divided by the rate without other processes.
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
    """The load beside a bench: the number of busy `processes`, and their `niceness` (0 to 19) by
    name of priority."""

    processes: int
    niceness: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BenchResult(Record):
    """The fields that all benches return.

    `what` was measured (input, train or infer), with which `model`, in how many `rounds`. `rows`
    has a row for each implementation. `company` describes the load beside some of the rows,
    `missing` says what could not be measured and why, `environment` is the machine.
    """

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
        """The rows that were measured without other load."""
        return [row for row in self.rows if isinstance(row, BenchRow)]

    @property
    def beside(self) -> list[CompanyRow]:
        """The rows that were measured under other load."""
        return [row for row in self.rows if isinstance(row, CompanyRow)]


@dataclass(frozen=True, kw_only=True)
class DataWait(Entry):
    """How long training waits for its images: the `share` of the time of `steps` steps, the rate
    `images_per_s`, and the time of 90 epochs of ILSVRC-2012 at this rate (`hours_of_90_epochs`)."""

    share: float
    images_per_s: float
    hours_of_90_epochs: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class InputBench(BenchResult):
    """The speed of reading images.

    A round reads `batches` batches of `batch_size` images, from `images` JPEG files of `jpeg_bytes`
    bytes on average. With a model, `waits` says for each encoding how long its training waits.
    """

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
    """The speed of training steps in batches of `batch_size` images.

    `flops` is the number of additions and multiplications in a step for each image. `limits` has
    the operations a second that the machine reaches in each precision. `parts` has the time of each
    part of the network.
    """

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
    """Milliseconds (`ms`) by part of the network, for a batch of `batch` images."""

    batch: int
    ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class InferBench(BenchResult):
    """The speed of inference.

    `flops` is the number of additions and multiplications for an image. `limits` has the operations
    a second that the machine reaches in each precision. Memory is read at `read_bytes_per_s`, so
    reading the weights alone takes `floor_ms` milliseconds. `parts` has the times of each part of
    the network.
    """

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
