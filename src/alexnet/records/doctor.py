"""Results of the doctor: its measurements and its verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet.records.base import Entry, Record, optional

Severity = Literal["will not learn", "learns badly", "misleads", "note"]


@dataclass(frozen=True)
class Verdict(Entry):
    """A fault, called `name`.

    `severity` says how bad it is, `evidence` what shows it, `cause` what probably causes it, and
    `advice` what to change. The value `measured` is beyond `threshold`, whose origin is `source`.
    `where` names the layer, parameter or split.
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
    """Measurements of a layer on one batch; None where one was not taken, or is not finite.

    `name` and `kind` identify the layer; `shape` is that of its output, without the batch.
    `mean` and `rms` are those of the output, and `gain` is its rms divided by that of the input.
    `signal` is 1 - cosine between the outputs for two images (0: the image does not matter), and
    `arrives` the same for the input. `zeros` is the fraction of outputs that are 0, `dead` the
    fraction of units that are 0 for the whole batch. `follows` is the elasticity of the output's
    size with the input's, `responds` the fraction of a small change of the input that gets
    through. The input of a `silent` layer is all zeros. `gradient` is the rms of the gradient of
    the loss; `has_weights` says whether the layer learns.
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
    """The `loss` (nats) after trial steps at each learning rate (`rate`)."""

    rate: Sequence[float | None]
    loss: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class LabelProbeFigures(Entry):
    """The `accuracy` of a simple classifier on `n` images: a probe of the labels."""

    n: int
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Measurements(Entry):
    """Measurements of the data, the network and trial steps; None where one could not be taken.

    `classes` and `images` are counts. `label_entropy` (nats) is the loss of a model that ignores
    the images. `mean` and `std` are those of the channels.

    Before the first step: `loss` (nats), `gain` (standard deviation of the logits for images of
    standard deviation 1), and `arrives` (1 - cosine between the last layer's inputs for two
    images). Of one step: `update` (rms of the update divided by that of the weight) and `shrinking`
    (cosine between the update and minus the weight; 1: the step is weight decay alone), as medians
    over the weights.

    Of the data: `order` (entropy of the labels in a batch, divided by that in shuffled batches),
    `apart` (distance between the means of the splits, in standard deviations of train, and the
    ratio of their standard deviations), `shared` (the fraction of images in both splits), and
    `probe`, a simple classifier. `random` and `batchwise` measure whether outputs in evaluation
    vary between calls, or with the other images of the batch.

    `trial` has the losses (nats) of trial steps, `overfit` those of fitting one batch, `rates`
    those at rising learning rates. `best_rate` and `rate_limit` are read from `rates`.
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
    """The result of `alexnet.diagnose`.

    `healthy` is true or false, or None where that is not known, and `unmeasured` says why.
    `verdicts` are the faults, the worst first. `layers` are the measurements of each layer,
    `figures` all others. The diagnosis took `seconds`.
    """

    healthy: bool | None
    unmeasured: str
    verdicts: Sequence[Verdict]
    layers: Sequence[LayerSignals]
    figures: Measurements
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _OfRecipe(Record):
    """The name of the `recipe` that a result is about, which comes first in it."""

    recipe: str


@dataclass(frozen=True, kw_only=True)
class RecipeDiagnosis(Diagnosis, _OfRecipe):
    """The result of `alexnet doctor` for a recipe, whose name is `recipe`."""


@dataclass(frozen=True, kw_only=True)
class RunDiagnosis(Record):
    """The result of `alexnet doctor` for a `run`.

    `recipe` is the name of its recipe, `checkpoint` the one whose `layers` were measured; None, and
    no layers, where the run's data is missing. `healthy` is true or false, or None where that is
    not known, and `unmeasured` says why. `verdicts` are the faults, the worst first. `figures` is
    the path of the page that was written, where one was requested.
    """

    run: str
    recipe: str
    checkpoint: str | None
    layers: Sequence[LayerSignals]
    healthy: bool | None
    unmeasured: str
    verdicts: Sequence[Verdict]
    figures: Sequence[str] | None = optional()
