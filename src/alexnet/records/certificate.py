"""Certificates: the origin of a file of weights, and outputs that prove its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.records.base import Entry, Record, Versioned, optional
from alexnet.records.evaluation import Interval
from alexnet.records.events import ResumeEvent
from alexnet.records.run_files import RunCall, RunInit
from alexnet.records.sharing import FileAccuracy


@dataclass(frozen=True, kw_only=True)
class CertifiedPreprocessing(Entry):
    """The preprocessing of a network's images.

    The shorter side is scaled to `size` pixels, then the centre `crop` x `crop` is cut out; images
    have 1 or 3 `channels`. `orient` says what is done about EXIF orientation (apply or ignore).
    `normalize` names the rule; `mean` and `std` are those of the channels, on the 0-255 scale.
    `mean_image` is the digest of the mean image, None where the rule has none.
    """

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
    """The data that a network was trained on: its `kind` and `digest`, the `counts` of images by
    split, and how the `splits` were made."""

    kind: str
    digest: str | None = None
    counts: Mapping[str, int] | None = None
    splits: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimedVal(Entry):
    """Figures of a validation in a certificate: `top1`, `top1_ci95`, `top5`, `top5_ci95` and
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
    """Figures of a test in a certificate: `top1`, `top1_ci95`, `top5`, `top5_ci95`, `loss`, `n`,
    `split`, `views`, `seen`, `near_seen` and `repeated` as in TestResult, computed in `precision`,
    None where it was not recorded."""

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


ClaimedFigures = ClaimedTest | FileAccuracy | ClaimedVal


@dataclass(frozen=True, kw_only=True)
class CertifiedTraining(Entry):
    """The conditions beside recipe and data that determined the weights.

    `weights` is the sha256 of the weights. `init` are the weights that training started from,
    `call` the options of the call, `machine` the cpu, gpu and packages. `changed` are the events of
    the log where training continued under other conditions. `data` is the name of the data set,
    empty for a folder.
    """

    weights: str
    init: RunInit | None = optional()
    call: RunCall | None = optional()
    machine: Mapping[str, Any] | None = optional()
    changed: Sequence[ResumeEvent] | None = optional()
    data: str | None = optional()


@dataclass(frozen=True, kw_only=True)
class ProbeOutputs(Entry):
    """The outputs of a file for `count` images that are drawn by a rule.

    `takes` is the kind of input: stored images, or preprocessed tensors. `logits` has a row for
    each image. Logits that somebody else computes may differ by `tolerance` times the largest
    logit, or by `tolerance` where that is below 1.
    """

    takes: Literal["images", "tensors"]
    count: int
    logits: Sequence[Sequence[float]]
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class NetworkDescription(Record):
    """The origin of a network, and the input that it expects.

    `model` is the name of the network, `classes` are the names of its outputs, in order, and
    `preprocessing` is that of its images. It was trained with `recipe`, whose digest is
    `recipe_digest`, on `data`, for `step` updates. `training` says what else determined its
    weights; it is None in files of 0.1.0. `metrics` are its figures by split.
    """

    model: str
    classes: Sequence[str]
    preprocessing: CertifiedPreprocessing
    recipe: Mapping[str, Any]
    recipe_digest: str
    data: CertifiedData
    metrics: Mapping[str, ClaimedFigures]
    step: int
    training: CertifiedTraining | None = optional()


@dataclass(frozen=True, kw_only=True)
class Certificate(NetworkDescription, Versioned):
    """The content of a certificate.json. `sha256` is that of the weights, or of the whole exported
    file. `probes` are outputs that anybody can compute again."""

    sha256: str
    probes: ProbeOutputs
