"""All that was measured of a network and its data before training, for the rules to judge."""

import math
import statistics
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from alexnet.diagnosis.batches import BatchSample, batch_label_entropy, entropy, shared_share
from alexnet.diagnosis.label_probe import LabelProbe
from alexnet.diagnosis.modes import ModeComparison
from alexnet.diagnosis.signal import LayerSignal, SignalPropagation
from alexnet.diagnosis.tensor_measures import image_signal
from alexnet.diagnosis.trial import RateTest, Trial
from alexnet.records import LabelProbeFigures, Measurements, RateLosses

LARGE_INPUTS = 20.0  # standard deviation of inputs: twenty times what weights are drawn for
SMALL_INPUTS = 0.02
OFF_CENTRE = 0.5  # mean of inputs in their deviations; photos of 0 to 255 have 1.7
NORMALISING_MATTERS = 0.1  # smallest `normalising_effect` of a network that does not normalise
MIXED_CLASSES = 0.7  # least entropy of validation's labels, relative to train's
USES_IMAGES = 0.85  # loss relative to the entropy of the labels
BURST = 2.0  # rise of the loss in ln K; biases of 1 cost the paper's network one for some steps
MAX_LOGIT_GAIN = 15.0  # deviation of logits for inputs of deviation 1; healthy networks reach 9


@dataclass(kw_only=True)
class DataFindings:
    """Measurements of images and labels.

    `classes` is the number of logits, `probe` says whether labels can be told from images,
    `unmeasured` says why the network could not be measured, and is empty where it was.
    """

    train: BatchSample
    val: BatchSample | None = None
    classes: int = 0
    probe: LabelProbe | None = None
    unmeasured: str = ""

    def label_range(self) -> tuple[int, int]:
        """Smallest and largest label of train."""
        labels = torch.cat(self.train.labels)
        return int(labels.min()), int(labels.max())

    def label_counts(self) -> Tensor | None:
        """Images by class (K,) in train; None unless there are two classes and labels fit them."""
        low, high = self.label_range()
        if self.classes < 2 or low < 0 or high >= self.classes:
            return None
        return torch.bincount(torch.cat(self.train.labels), minlength=self.classes)

    def label_entropy(self) -> float:
        """Entropy of train's labels in nats: the least loss without looking at the images."""
        return _label_entropy(self.train)

    def batch_entropy_ratio(self) -> float | None:
        """Entropy of a batch's labels, divided by that of shuffled batches; None with one batch."""
        if len(self.train.labels) < 2 or not self.classes:
            return None
        as_loaded, shuffled = batch_label_entropy(self.train, self.classes)
        return as_loaded / shuffled if shuffled > 0 else None

    def has_wrong_scale(self) -> bool:
        """Whether the inputs are far from the deviation that initial weights are drawn for."""
        std = float(self.train.std.mean())
        return std > LARGE_INPUTS or 0 < std < SMALL_INPUTS

    def split_distance(self) -> tuple[float, float] | None:
        """Distance of the splits' means in train's deviations, and the ratio of their deviations.

        Both are the largest over channels, the ratio is 1 or more. Channels that are constant in
        both splits do not count.
        """
        if self.val is None or not self.val.n or self.train.mean.shape != self.val.mean.shape:
            return None
        train_scale, val_scale = self.train.scale(), self.val.scale()
        ratio = val_scale / train_scale
        largest_ratio = torch.maximum(ratio, 1 / ratio).max()
        distance = ((self.train.mean - self.val.mean) / train_scale).abs().max()
        return float(distance), float(largest_ratio)

    def val_has_mixed_classes(self) -> bool:
        """Whether the batches read of validation mix the classes; many loaders sort them."""
        if self.val is None or not self.val.n:
            return False
        return _label_entropy(self.val) > MIXED_CLASSES * self.label_entropy()

    def figures(self) -> Measurements:
        """The measurements as a record, with None for those of the network."""
        probe = self.probe
        return Measurements(
            classes=self.classes,
            images=self.train.n,
            label_entropy=self.label_entropy(),
            mean=self.train.mean.tolist(),
            std=self.train.std.tolist(),
            loss=None,
            gain=None,
            arrives=None,
            update=None,
            shrinking=None,
            order=self.batch_entropy_ratio(),
            apart=self.split_distance(),
            shared=None if self.val is None else shared_share(self.train, self.val),
            random=None,
            batchwise=None,
            trial=None,
            overfit=None,
            rates=None,
            best_rate=None,
            rate_limit=None,
            probe=None if probe is None else LabelProbeFigures(n=probe.n, accuracy=probe.accuracy),
        )


@dataclass(kw_only=True)
class NetworkFindings(DataFindings):
    """Measurements of a network, beside those of its data.

    `signals` and `modes` are of one batch. `initial_cross_entropy` is that of its logits;
    `uses_cross_entropy` whether the loss is the cross-entropy too. `normalised_logits` (N, K) are
    the logits for normalised images. `normalising_effect` is the distance between logits of images
    and of normalised images, batch norms at work, divided by the distance between images.

    The rest comes from trial steps, and is None where none were made: `trial` at the learning rate
    of the optimiser, `dead_after_trial` the share of dead units by layer after it,
    `normalised_trial` the same trial with normalised images, where inputs of a wrong scale made the
    first one burst, `rate_test`, and `overfit_trial`, which learns one batch by heart.
    """

    signals: SignalPropagation
    modes: ModeComparison
    initial_cross_entropy: float
    uses_cross_entropy: bool
    normalised_logits: Tensor
    normalising_effect: float
    learning_rate: float | None = None
    trial: Trial | None = None
    dead_after_trial: dict[str, float] = field(default_factory=dict)
    normalised_trial: Trial | None = None
    rate_test: RateTest | None = None
    overfit_trial: Trial | None = None

    def rated_trial(self) -> tuple[Trial, float] | None:
        """The trial and the optimiser's learning rate; None where no such step was made."""
        if self.trial is None or not self.trial.losses or self.learning_rate is None:
            return None
        return self.trial, self.learning_rate

    def ln_k(self) -> float:
        """Loss of a network that gives each class the same probability, in nats."""
        return math.log(max(self.classes, 2))

    def gets_raw_pixels(self) -> bool:
        """Whether the first weights get numbers of 0 to 255 whose mean was not subtracted, and no
        later layer normalises them."""
        first = next((layer for layer in self.signals.layers if layer.has_weights), None)
        if first is None or first.gain == 0 or first.rms / first.gain < LARGE_INPUTS:
            return False
        is_off_centre = self.train.mean.abs().mean() > OFF_CENTRE * self.train.std.mean()
        return bool(is_off_centre) and self.normalising_effect > NORMALISING_MATTERS

    def bursts(self, trial: Trial | None) -> bool:
        """Whether the loss rose in the trial by more than `BURST`, or stopped being a number."""
        if trial is None or not trial.losses:
            return False
        rise = statistics.fmean(trial.losses[-4:]) - trial.losses[0]
        return not rise < BURST * self.ln_k()  # also true of NaN

    def logit_gain(self) -> float:
        """Deviation of the logits for inputs of deviation 1."""
        return float(self.normalised_logits.std())

    def weights_explode(self) -> bool:
        """Whether the weights enlarge their inputs more than those of any healthy network do."""
        return self.logit_gain() > MAX_LOGIT_GAIN

    def last_weight_layer(self) -> LayerSignal | None:
        layers = reversed(self.signals.layers)
        return next((layer for layer in layers if layer.has_weights), None)

    def signal_at_last_layer(self) -> float:
        """1 - cosine between the inputs of the last layer with weights, for two images."""
        last = self.last_weight_layer()
        if last is None or last.arrives is None:
            return image_signal(self.signals.logits)
        return last.arrives

    def update_ratio(self) -> float | None:
        """rms(update) / rms(weight) of the measured trial step, the median over weights."""
        if self.trial is None or not self.trial.updates:
            return None
        return statistics.median(update.ratio for update in self.trial.updates.values())

    def decay_cosine(self) -> float | None:
        """Cosine between update and minus the weight in the trial, the median over weights."""
        if self.trial is None or not self.trial.updates:
            return None
        return statistics.median(update.decay_cosine for update in self.trial.updates.values())

    def learns_from_images(self) -> bool:
        """Whether a trial reached a loss that no network reaches which ignores the images."""
        trials = [t.losses for t in (self.trial, self.overfit_trial) if t is not None]
        means = [
            statistics.fmean(losses[i : i + 4]) for losses in trials for i in range(len(losses) - 3)
        ]
        ends = [losses[-1] for losses in trials if len(losses) < 4]
        return min([*means, *ends], default=math.inf) < USES_IMAGES * self.label_entropy()

    def is_already_trained(self) -> bool:
        """Whether the network tells these images apart before any step.

        Then they have little to teach it, and small updates are no fault.
        """
        return self.initial_cross_entropy < USES_IMAGES * self.label_entropy()

    def figures(self) -> Measurements:
        test = self.rate_test
        return replace(
            super().figures(),
            loss=self.signals.loss,
            gain=self.logit_gain(),
            arrives=self.signal_at_last_layer(),
            update=self.update_ratio(),
            shrinking=self.decay_cosine(),
            random=self.modes.random,
            batchwise=self.modes.batchwise,
            trial=None if self.trial is None else self.trial.losses,
            overfit=None if self.overfit_trial is None else self.overfit_trial.losses,
            rates=None if test is None else RateLosses(rate=test.rates, loss=test.losses),
            best_rate=None if test is None else test.best,
            rate_limit=None if test is None else test.limit,
        )


def _label_entropy(sample: BatchSample) -> float:
    return entropy(torch.bincount(torch.cat(sample.labels).clamp(min=0)))
