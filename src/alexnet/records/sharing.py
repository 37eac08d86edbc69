"""Results of `alexnet export`, `import`, `serve`, `completion` and `test --certificate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.records.base import Entry, Record, optional
from alexnet.records.evaluation import EvalImages, EvalResult, Interval


@dataclass(frozen=True, kw_only=True)
class ExportComparison(Entry):
    """The comparison of an exported file with its network in batches of the sizes `batches`.
    `largest_difference` is between their outputs, `largest_output` is the largest output of the
    network."""

    batches: Sequence[int]
    largest_difference: float
    largest_output: float


@dataclass(frozen=True, kw_only=True)
class ExportCheck(ExportComparison):
    """The comparison of an exported file with its network on `images`, a description of them."""

    images: str


@dataclass(frozen=True, kw_only=True)
class FileAccuracy(Entry):
    """The accuracy of a file over `n` images: `top1` with its interval `top1_ci95`, and `top5`,
    None with five classes or fewer. The file computes in `precision` (fp32 or int8) and has a size
    of `bytes`."""

    top1: float
    top1_ci95: Interval
    top5: float | None
    n: int
    precision: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class QuantisationFigures(Entry):
    """A file before (`fp32`) and after (`int8`) quantisation.

    Ranges were measured on `calibration_images` images, accuracies on the others. For one image at
    a time int8 is `speed_ratio` times as fast; `ms` has the milliseconds of both.
    """

    fp32: FileAccuracy
    int8: FileAccuracy
    calibration_images: int
    speed_ratio: float
    ms: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class QuantisationResult(QuantisationFigures):
    """The figures of a quantisation, and the images of which they are.

    `data` is the path of the images, or their kind where they have no path. `split`, `own`,
    `seen`, `near_seen`, `repeated`, `contradicted`, `with_seen`, `ignored` and `absent` are as in
    EvalImages.
    """

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
    """The result of `alexnet export`: `run` was written as a file of a `format`.

    `verified` is the comparison of the file with the network, `int8` the effect of quantisation
    where that was requested, and `pushed` the address it was uploaded to. `out` is the path of the
    export, `files` are all files that were written, and `bytes` is the size of the file of weights.
    """

    format: str
    run: str
    verified: ExportCheck
    int8: QuantisationResult | None = optional()
    pushed: str | None = optional()
    out: str
    files: Sequence[str]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerWeights(Entry):
    """Statistics of the weights of the layer `name`: the standard deviation `std` and the `norm`.
    `outlier` is the largest singular value, divided by that of independent random weights. `smooth`
    is the correlation of neighbouring weights in its filters. They are None where the layer is too
    small for them."""

    name: str
    std: float
    norm: float
    outlier: float | None
    smooth: float | None


@dataclass(frozen=True, kw_only=True)
class WeightsVerdict(Record):
    """Whether weights were trained: the `verdict` (trained, half-trained, random or constant),
    `why`, and statistics of the `layers`."""

    verdict: str
    why: str
    layers: Sequence[LayerWeights]


@dataclass(frozen=True, kw_only=True)
class ImportResult(Record):
    """The result of `alexnet import`.

    `run` was made from `file`, whose digest is `sha256`. It has weights for a `model` with a number
    of `classes`. `matched` are the names of the tensors that were used, `left` those of tensors in
    the file that were not. `expects` describes the images that it expects, and `judged` says
    whether the weights were trained.
    """

    run: str
    file: str
    sha256: str
    model: str
    classes: int
    matched: Sequence[str]
    left: Sequence[str]
    expects: str
    judged: WeightsVerdict


@dataclass(frozen=True, kw_only=True)
class ImportTestResult(EvalImages, EvalResult, ImportResult):
    """An import with the figures on the images in `data`, computed in `precision`."""

    data: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class ServeResult(Record):
    """The `run` that was served, and the address of the server: `host` and `port`."""

    run: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class CompletionResult(Record):
    """The `script` with which a `shell` completes command lines, and `how` to install it."""

    shell: str
    script: str
    how: str


@dataclass(frozen=True, kw_only=True)
class CertificateCheck(Record):
    """One check of a file against its certificate, called `name`: whether it is `ok`, and the
    `evidence`."""

    name: str
    ok: bool
    evidence: str


@dataclass(frozen=True, kw_only=True)
class ProofResult(Record):
    """The result of `alexnet test --certificate`: whether the file `certificate` `holds`, the
    `checks` that decided it, and the checks that were `skipped`, with reasons. `claimed` are the
    figures in the certificate, by split."""

    certificate: str
    holds: bool
    checks: Sequence[CertificateCheck]
    skipped: Sequence[str]
    claimed: Mapping[str, Any]
