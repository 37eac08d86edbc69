"""All that was measured of one network and its data, for the rules to judge."""

import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.diagnosis.batches import BatchSample, LabelProbe, entropy, order_of_labels, shared
from alexnet.diagnosis.contract import Contract
from alexnet.diagnosis.signal import LayerSignal, SignalPropagation
from alexnet.diagnosis.sizes import image_signal
from alexnet.diagnosis.trial import RateRange, Trial
from alexnet.runs.records import LabelProbeFigures, Measurements, RateLosses

MIXED = 0.7  # entropy of validation's labels beside train's
SEEN = 0.85  # of the entropy of the labels
ROSE = 2.0  # of ln K; biases of 1 cost the paper's network one for some steps
GAIN = 15.0  # deviation of the logits where that of the input is 1
BIG = 20.0  # standard deviation of the inputs: ten times what weights are drawn for
SMALL = 0.02
OFF_CENTRE = 0.5  # mean of the inputs in their deviations; photos of 0 to 255 have 1.7
UNDONE = 0.1  # of the differences between images: what is left where the scale is undone


@dataclass
class Findings:
    """`rate` is the optimiser's learning rate; `entropic` whether the loss is the cross-entropy of
    logits, whoever computes it; `standard` are the logits (N, K) of images of mean 0 and
    deviation 1, `after` the shares of dead units by layer after the trial steps; `normalised` is
    the trial with such images, where inputs of an odd scale made the first one burst; `moves` is
    how far the logits move when the images are normalised, batch norms being at work, beside how
    far they differ between images; `known` is the cross-entropy of logits before any step;
    `unmeasured` says why the network could not be measured, or is empty."""

    train: BatchSample
    val: BatchSample | None = None
    rate: float | None = None
    classes: int = 0
    signals: SignalPropagation | None = None
    standard: Tensor | None = None
    moves: float = 0.0
    entropic: bool = True
    contract: Contract | None = None
    trial: Trial | None = None
    normalised: Trial | None = None
    after: dict[str, float] | None = None
    rates: RateRange | None = None
    overfit: Trial | None = None
    probe: LabelProbe | None = None
    known: float | None = None
    unmeasured: str = ""

    def prior(self) -> float:
        """The entropy of the labels seen, in nats: the least loss of who ignores the images."""
        return entropy(torch.bincount(torch.cat(self.train.labels).clamp(min=0)))

    def order(self) -> float | None:
        """Entropy of the labels of a batch beside that of shuffled batches."""
        if len(self.train.labels) < 2 or not self.classes:
            return None
        batch, chance = order_of_labels(self.train, self.classes)
        return batch / chance if chance > 0 else None

    def misscaled(self) -> bool:
        """Whether the inputs are far from the scale that weights are drawn for."""
        std = float(self.train.std.mean())
        return std > BIG or 0 < std < SMALL

    def raw(self) -> bool:
        """Whether the first weights get numbers of 0 to 255 whose mean nobody subtracted, and
        nothing after them undoes it."""
        layers = self.signals.layers if self.signals else []
        first = next((layer for layer in layers if layer.has_weights), None)
        if first is None or first.gain == 0 or first.rms / first.gain < BIG:
            return False
        off = self.train.mean.abs().mean() > OFF_CENTRE * self.train.std.mean()
        return bool(off) and self.moves > UNDONE

    def bursts(self, trial: Trial | None) -> bool:
        """Whether the steps made the loss much worse."""
        if trial is None or not trial.losses:
            return False
        rise = statistics.fmean(trial.losses[-4:]) - trial.losses[0]
        return not rise < ROSE * math.log(max(self.classes, 2))  # NaN is no number that is smaller

    def gain(self) -> float | None:
        """The deviation of the logits where the inputs have a deviation of 1."""
        return None if self.standard is None else float(self.standard.std())

    def explodes(self) -> bool:
        """Whether the weights enlarge what they are given beyond what any good network does."""
        return (self.gain() or 0.0) > GAIN

    def head(self) -> LayerSignal | None:
        """The last layer with weights."""
        layers = self.signals.layers if self.signals else []
        return next((layer for layer in reversed(layers) if layer.has_weights), None)

    def arrives(self) -> float | None:
        """1 - cosine between what two images bring to the last layer of weights."""
        if self.signals is None:
            return None
        head = self.head()
        known = head is not None and head.arrives is not None
        return head.arrives if head and known else image_signal(self.signals.logits)

    def update(self) -> float | None:
        """rms of an update beside that of the weight, the median over weights."""
        if self.trial is None or not self.trial.moves:
            return None
        return statistics.median(move.ratio for move in self.trial.moves.values())

    def shrinking(self) -> float | None:
        """How far a step only makes the weights smaller, the median over weights."""
        if self.trial is None or not self.trial.moves:
            return None
        return statistics.median(move.shrinking for move in self.trial.moves.values())

    def apart(self) -> tuple[float, float] | None:
        """How far the means of the splits are apart in train's deviations, and by what their
        deviations differ; channels that are constant in both are left out."""
        if self.val is None or not self.val.n or self.train.mean.shape != self.val.mean.shape:
            return None
        scale, other = self.train.scale(), self.val.scale()
        ratio = other / scale
        stretch = torch.maximum(ratio, 1 / ratio).max()
        return float(((self.train.mean - self.val.mean) / scale).abs().max()), float(stretch)

    def val_is_mixed(self) -> bool:
        """Whether what was read of validation has the classes of train; many loaders sort them."""
        if self.val is None or not self.val.n:
            return False
        return (
            entropy(torch.bincount(torch.cat(self.val.labels).clamp(min=0))) > MIXED * self.prior()
        )

    def sees(self) -> bool:
        """Whether the trial, or learning a batch by heart, came to a loss that nobody reaches who
        does not see the images."""
        trials = [trial.losses for trial in (self.trial, self.overfit) if trial is not None]
        means = [
            statistics.fmean(losses[i : i + 4]) for losses in trials for i in range(len(losses) - 3)
        ]
        ends = [losses[-1] for losses in trials if len(losses) < 4]
        return min([*means, *ends], default=math.inf) < SEEN * self.prior()

    def has_learnt(self) -> bool:
        """Whether the network tells these images apart before any step: then they have next to
        nothing to teach it, and no step is to be judged by how little they do."""
        return self.known is not None and self.known < SEEN * self.prior()

    def figures(self) -> Measurements:
        """What people plot: losses and rates, data and probe."""
        rates, probe = self.rates, self.probe
        return Measurements(
            classes=self.classes,
            images=self.train.n,
            label_entropy=self.prior(),
            mean=self.train.mean.tolist(),
            std=self.train.std.tolist(),
            loss=None if self.signals is None else self.signals.loss,
            gain=self.gain(),
            arrives=self.arrives(),
            update=self.update(),
            shrinking=self.shrinking(),
            order=self.order(),
            apart=self.apart(),
            shared=None if self.val is None else shared(self.train, self.val),
            random=None if self.contract is None else self.contract.random,
            batchwise=None if self.contract is None else self.contract.batchwise,
            trial=None if self.trial is None else self.trial.losses,
            overfit=None if self.overfit is None else self.overfit.losses,
            rates=None if rates is None else RateLosses(rate=rates.rates, loss=rates.losses),
            best_rate=None if rates is None else rates.best,
            rate_limit=None if rates is None else rates.limit,
            probe=None if probe is None else LabelProbeFigures(n=probe.n, accuracy=probe.accuracy),
        )
