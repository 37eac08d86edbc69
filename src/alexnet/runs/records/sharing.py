"""What comes of a run in the hands of others: exports, imports, certificates, a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.runs.records.base import Entry, Record, optional
from alexnet.runs.records.evaluation import EvalImages, EvalResult, Interval


@dataclass(frozen=True, kw_only=True)
class Verified(Entry):
    """How a file was held against its network: `batches` of so many `images` (which ones), of whose
    answers the `largest_difference` and the `largest_output` were found."""

    batches: Sequence[int]
    largest_difference: float
    largest_output: float
    images: str


@dataclass(frozen=True, kw_only=True)
class FileAccuracy(Entry):
    """What a file of so many `bytes` answers in `precision` (fp32 or int8): `top1` with its
    interval `top1_ci95`, and `top5` (None with five classes or fewer), over `n` images."""

    top1: float
    top1_ci95: Interval
    top5: float | None
    n: int
    precision: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Quantised(Entry):
    """A file before (`fp32`) and after (`int8`) it was quantised.

    Ranges are from `calibration_images`, figures from the others. One image at a time int8 is
    `speed_ratio` times as fast; `ms` are the milliseconds of both. `data` is where the images lie,
    or their kind; `split`, `own`, `seen`, `near_seen`, `repeated`, `contradicted`, `with_seen`,
    `ignored` and `absent` are as in EvalImages.
    """

    fp32: FileAccuracy
    int8: FileAccuracy
    calibration_images: int
    speed_ratio: float
    ms: Sequence[float]
    own: bool
    data: str
    split: str
    seen: int | None
    near_seen: int | None
    repeated: int
    contradicted: int
    with_seen: bool
    ignored: Mapping[str, int]
    absent: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ExportResult(Record):
    """What `alexnet export` returns: `run` as a file of a `format`.

    `verified` says how it was held against the network, `int8` what quantising did, where it was
    asked for, and `pushed` where it was uploaded to. `out` was written, `files` are all that were,
    and `bytes` is the size of the weights' file.
    """

    format: str
    run: str
    verified: Verified
    int8: Quantised | None = optional()
    pushed: str | None = optional()
    out: str
    files: Sequence[str]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerWeights(Entry):
    """The weights of the layer `name`: their deviation `std` and `norm`; `outlier` is the largest
    singular value beside that of independent draws, and `smooth` the correlation of neighbours in
    its filters; None where the layer is too small to say."""

    name: str
    std: float
    norm: float
    outlier: float | None
    smooth: float | None


@dataclass(frozen=True, kw_only=True)
class WeightsJudged(Record):
    """Whether weights were trained: the `verdict` (trained, half-trained, random or constant),
    `why`, and what the `layers` show."""

    verdict: str
    why: str
    layers: Sequence[LayerWeights]


@dataclass(frozen=True, kw_only=True)
class ImportResult(Record):
    """What `alexnet import` returns.

    `run` was made of `file` (its digest is `sha256`), weights of a `model` that tells so many
    `classes` apart. `matched` are the tensors that were taken, `left` those of the file that were
    not. `expects` says what images it takes, `judged` whether the weights were trained at all.
    """

    run: str
    file: str
    sha256: str
    model: str
    classes: int
    matched: Sequence[str]
    left: Sequence[str]
    expects: str
    judged: WeightsJudged


@dataclass(frozen=True, kw_only=True)
class TestedImport(EvalImages, EvalResult, ImportResult):
    """The same with the figures on the images in `data`, computed in `precision`."""

    data: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class ServeResult(Record):
    """The `run` that was served, and the address: `host` and `port`."""

    run: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class CompletionResult(Record):
    """What a `shell` needs to complete words (`script`), and `how` it takes it up."""

    shell: str
    script: str
    how: str


@dataclass(frozen=True, kw_only=True)
class CertificateCheck(Record):
    """One thing that was held against a certificate, by `name`: whether it is `ok`, and the
    `evidence`."""

    name: str
    ok: bool
    evidence: str


@dataclass(frozen=True, kw_only=True)
class ProofResult(Record):
    """What `alexnet test --certificate` returns: whether what the file `certificate` says `holds`,
    by which `checks`, and what was `skipped` and why. `claimed` are its figures, by split."""

    certificate: str
    holds: bool
    checks: Sequence[CertificateCheck]
    skipped: Sequence[str]
    claimed: Mapping[str, Any]
