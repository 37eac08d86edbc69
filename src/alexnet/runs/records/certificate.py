"""What a certificate says: what a file was made from, and how to see that it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.runs.records.base import Entry, Record, optional
from alexnet.runs.records.evaluation import Interval
from alexnet.runs.records.events import ResumeEvent
from alexnet.runs.records.run_files import RunCall, RunInit
from alexnet.runs.records.sharing import FileAccuracy


@dataclass(frozen=True, kw_only=True)
class CertifiedImages(Entry):
    """What a network takes: images whose shorter side is brought to `size` pixels, of which the
    centre `crop` x `crop` is shown, with 1 or 3 `channels`. `orient` is what is done about EXIF
    orientation (apply or ignore). `normalize` is the rule, with `mean` and `std` of the channels on
    the 0-255 scale and the digest of the mean image (`mean_image`), None where it has none."""

    size: int
    crop: int
    channels: int
    orient: str | None = optional()
    normalize: str
    mean: Sequence[float]
    std: Sequence[float]
    mean_image: str | None


@dataclass(frozen=True, kw_only=True)
class CertifiedData(Entry):
    """The data a network was trained on: `kind`, `digest`, `counts` of images by split, and how
    `splits` were cut."""

    kind: str
    digest: str | None = None
    counts: Mapping[str, int] | None = None
    splits: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimedVal(Entry):
    """The figures of a validation that are claimed: `top1`, `top1_ci95`, `top5`, `top5_ci95` and
    `loss` over `n` images, as in EvalResult, computed in `precision` (fp32 or bf16)."""

    top1: float | None
    top1_ci95: Interval | None
    top5: float | None
    top5_ci95: Interval | None
    loss: float | None
    n: int | None
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimedTest(Entry):
    """The figures of a test that are claimed: `top1`, `top1_ci95`, `top5`, `top5_ci95`, `loss`,
    `n`, `split`, `views`, `seen`, `near_seen` and `repeated` as in TestResult, computed in
    `precision`, None where nobody noted it."""

    top1: float | None
    top1_ci95: Interval | None
    top5: float | None
    top5_ci95: Interval | None
    loss: float | None
    n: int | None
    split: str | None
    views: int | None
    seen: int | None = None
    near_seen: int | None = None
    repeated: int | None = None
    precision: str | None = None


Claimed = ClaimedTest | FileAccuracy | ClaimedVal


@dataclass(frozen=True, kw_only=True)
class CertifiedTraining(Entry):
    """What beside recipe and data made the weights, whose sha256 is `weights`: those that it began
    with (`init`), the `call`, the `machine` (cpu, gpu, packages), where it was continued under
    conditions that `changed`, and the name of the `data`, empty of a folder."""

    weights: str
    init: RunInit | None = optional()
    call: RunCall | None = optional()
    machine: Mapping[str, Any] | None = optional()
    changed: Sequence[ResumeEvent] | None = optional()
    data: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class Probes(Entry):
    """The outputs for `count` drawn images: `takes` is what the file is given (stored images, or
    preprocessed tensors), `logits` has a row an image, `tolerance` is how far others may be from
    them, beside the largest, or 1."""

    takes: Literal["images", "tensors"]
    count: int
    logits: Sequence[Sequence[float]]
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Description(Record):
    """Where a network comes from and what it takes.

    `model` is its name, `classes` are those that it tells apart, in order, `preprocessing` is what
    its images go through. `recipe` and `recipe_digest` are what it was trained by, `data` is what
    on, `training` what else made its weights, after `step` updates; None in 0.1.0. `metrics` are
    the figures that are claimed, by split.
    """

    model: str
    classes: Sequence[str]
    preprocessing: CertifiedImages
    recipe: Mapping[str, Any]
    recipe_digest: str
    data: CertifiedData
    metrics: Mapping[str, Claimed]
    step: int
    training: CertifiedTraining | None = optional()


@dataclass(frozen=True, kw_only=True)
class _Format(Record):
    """The `format` of a certificate, a number."""

    format: int


@dataclass(frozen=True, kw_only=True)
class Certificate(Description, _Format):
    """A certificate.json. `sha256` is that of the weights, or of the whole exported file; `probes`
    are outputs that anybody can compute again."""

    sha256: str
    probes: Probes
