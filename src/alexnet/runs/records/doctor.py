"""What the doctor finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet.runs.records.base import Entry, Record, optional

Severity = Literal["will not learn", "learns badly", "misleads", "note"]


@dataclass(frozen=True)
class Verdict(Entry):
    """One fault, by `name`.

    `severity` is how bad it is, `evidence` what shows it, `cause` why it is likely so, and `advice`
    what to change. `measured` stands against `threshold`, whose origin is `source`; `where` names
    the layer, parameter or split.
    """

    name: str
    severity: Severity
    evidence: str
    cause: str
    advice: str
    measured: float | None = None
    threshold: float | None = None
    source: str = ""
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerSignals(Entry):
    """What one batch shows of a layer.

    `name` and `kind` say which it is, `shape` is its output's without the batch. Of the outputs:
    `mean` and `rms`, `gain` (rms beside that of the input), `signal` (1 - cosine between those for
    two images: how much the image matters; `arrives` is the same of the input), the fractions that
    are 0 (`zeros`), and of units that are 0 for the whole batch (`dead`). `follows` is the
    elasticity of the output's size with the input's, `responds` how much of a small change gets
    through. A `silent` layer is given nothing but zeros. `gradient` is the rms of the loss's;
    `has_weights` whether it learns. None is what was not measured, or is no number.
    """

    name: str
    kind: str
    shape: Sequence[int]
    mean: float | None
    rms: float | None
    gain: float | None
    signal: float | None
    zeros: float | None
    dead: float | None
    arrives: float | None
    follows: float | None
    responds: float | None
    silent: bool = False
    gradient: float | None = 0.0
    has_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class RateLosses(Entry):
    """The `loss` (nats) after steps of each `rate`."""

    rate: Sequence[float | None]
    loss: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class LabelProbeFigures(Entry):
    """The `accuracy` of a simple classifier on `n` images."""

    n: int
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Measurements(Entry):
    """What was measured of data, network and steps; None where it could not be.

    `classes` and `images` were counted, `label_entropy` (nats) is what who ignores the images has
    as loss; `mean` and `std` are the channels'. Before any step: `loss` (nats), `gain` (deviation
    of the logits for images of deviation 1) and `arrives` (1 - cosine between what two images bring
    to the last layer). Of a step: `update` (rms beside the weight's) and `shrinking` (how far it
    only makes weights smaller), medians over weights. Of the data: `order` (how far classes come in
    order), `apart` (how far the splits' means and deviations differ), `shared` (images in both
    splits), and `probe`, a simple classifier. `random` and `batchwise` are what evaluation should
    not be. `trial` and `overfit` are losses (nats) of trial steps and of learning one batch by
    heart; `rates` those at rising learning rates, of which `best_rate` and `rate_limit` were read.
    """

    classes: int
    images: int
    label_entropy: float | None
    mean: Sequence[float | None]
    std: Sequence[float | None]
    loss: float | None
    gain: float | None
    arrives: float | None
    update: float | None
    shrinking: float | None
    order: float | None
    apart: Sequence[float | None] | None
    shared: float | None
    random: float | None
    batchwise: float | None
    trial: Sequence[float | None] | None
    overfit: Sequence[float | None] | None
    rates: RateLosses | None
    best_rate: float | None
    rate_limit: float | None
    probe: LabelProbeFigures | None


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Record):
    """What `alexnet.diagnose` returns.

    `healthy` is true, false, or None where it could not be told, and `unmeasured` says why.
    `verdicts` are the faults, the worst first, `layers` what each layer does, `figures` everything
    else that was measured. It took `seconds`.
    """

    healthy: bool | None
    unmeasured: str
    verdicts: Sequence[Verdict]
    layers: Sequence[LayerSignals]
    figures: Measurements
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _OfRecipe(Record):
    """Something that was found of the `recipe` with this name."""

    recipe: str


@dataclass(frozen=True, kw_only=True)
class RecipeDiagnosis(Diagnosis, _OfRecipe):
    """What `alexnet doctor` returns of the `recipe` with this name."""


@dataclass(frozen=True, kw_only=True)
class RunDiagnosis(Record):
    """What `alexnet doctor` returns of a `run`.

    `recipe` is its recipe's name, `checkpoint` the one whose `layers` were measured; None and no
    layers where its data is not there. `healthy` is true, false, or None where it could not be
    told, and `unmeasured` says why. `verdicts` are the faults, the worst first; `figures` is the
    page that was written, where one was asked for.
    """

    run: str
    recipe: str
    checkpoint: str | None
    layers: Sequence[LayerSignals]
    healthy: bool | None
    unmeasured: str
    verdicts: Sequence[Verdict]
    figures: Sequence[str] | None = optional()
