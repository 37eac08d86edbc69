"""A linear probe that tests whether labels can be told from images at all."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.diagnosis.batches import SEED, BatchSample, fixed_permutation

PICTURE_SIDE = 16  # pixels to which an image is shrunk for the first probe
MIN_PROBE_IMAGES = 300  # with fewer the accuracy says nothing
MIN_IMAGES_PER_CLASS = 20
CLEARLY_ABOVE_CHANCE = 4.0  # standard errors
FILTERS, TEXTURE_SIDE = 48, 48  # random filters of the second probe, and the side of its pictures
RIDGE = 0.3  # of the mean diagonal of the Gram matrix


@dataclass(frozen=True)
class LabelProbe:
    """How well a linear probe names images that it was not fitted on.

    `accuracy` is the mean over classes, so that naming the most frequent class earns nothing.
    `chance` is one divided by the number of classes that occur, `error` its standard error, `least`
    the number of images of the rarest class. `shifts` are the accuracies on validation where its
    labels are moved by 0, 1, ...; `renamed` is the accuracy under the best exchange of class
    numbers.
    """

    n: int
    accuracy: float
    chance: float
    error: float
    least: int
    val_n: int = 0
    shifts: tuple[float, ...] = ()
    renamed: float = 0.0

    def above_chance(self, standard_errors: float) -> float:
        """The accuracy that lies so many standard errors above chance."""
        return self.chance + standard_errors * self.error


def probe_labels(train: BatchSample, val: BatchSample | None, classes: int) -> LabelProbe | None:
    """Fits ridge regression from images to labels, in two folds of train, and tries it on val.

    The first probe reads pictures of 16 pixels. Where it does not get clearly above chance, a
    second one reads the responses of random filters, since orientation and texture are not linear
    in pixels. None where there are too few images.
    """
    labels = torch.cat(train.labels)
    in_range = (labels >= 0) & (labels < classes)
    best: LabelProbe | None = None
    for describe in (_small_pictures, _filter_responses):
        x = describe(train)
        usable = in_range & x.isfinite().all(1)
        too_few = int(usable.sum()) < max(MIN_PROBE_IMAGES, MIN_IMAGES_PER_CLASS * classes)
        if too_few or float(x[usable].std()) == 0:
            return best
        probe = _cross_validate(x[usable], labels[usable], classes)
        if val is not None and val.n:
            ridge = _fit_ridge(x[usable], labels[usable], classes)
            probe = _try_on_val(probe, _scores(describe(val), ridge).argmax(1), val, classes)
        if best is None or probe.accuracy > best.accuracy:
            best = probe
        if best.accuracy > best.above_chance(CLEARLY_ABOVE_CHANCE):
            break
    return best


def _cross_validate(x: Tensor, labels: Tensor, classes: int) -> LabelProbe:
    """Accuracy on each half of x (N, D) of the probe that was fitted on the other half."""
    first_half = fixed_permutation(len(labels)) % 2 == 0
    hits_by_class = torch.zeros(classes)
    for fitted in (first_half, ~first_half):
        truth = labels[~fitted]
        predicted = _scores(x[~fitted], _fit_ridge(x[fitted], labels[fitted], classes)).argmax(1)
        hits_by_class += torch.bincount(truth[predicted == truth], minlength=classes)
    counts = torch.bincount(labels, minlength=classes)
    present = counts > 0
    chance = 1 / int(present.sum())
    error = float((chance * (1 - chance) / counts[present]).sum().sqrt()) * chance
    accuracy = float((hits_by_class[present] / counts[present]).mean())
    return LabelProbe(len(labels), accuracy, chance, error, int(counts[present].min()))


def _try_on_val(probe: LabelProbe, predicted: Tensor, val: BatchSample, classes: int) -> LabelProbe:
    """The probe with its accuracies on validation: labels moved, and classes exchanged."""
    truth = torch.cat(val.labels)
    in_range = (truth >= 0) & (truth < classes)
    predicted, truth = predicted[in_range], truth[in_range]
    # Row: true class; column: predicted class; value: share of that class's images.
    confusion = torch.zeros(classes, classes)
    confusion.index_put_((truth, predicted), torch.ones(len(truth)), accumulate=True)
    counts = confusion.sum(1)
    present = (counts > 0).nonzero()[:, 0]
    share = confusion / counts.clamp(min=1)[:, None]
    shifts = tuple(
        float(share[present, (present - shift) % classes].mean()) for shift in range(classes)
    )
    most = share[present].max(1)
    is_exchange = len(set(most.indices.tolist())) == len(present)
    renamed = float(most.values.mean()) if is_exchange else 0.0
    return replace(probe, val_n=len(truth), shifts=shifts, renamed=renamed)


def _small_pictures(sample: BatchSample) -> Tensor:
    """Pixels (N, C * 256) of images shrunk to 16 x 16."""
    small = [F.adaptive_avg_pool2d(x.detach().float().cpu(), PICTURE_SIDE) for x in sample.images]
    return torch.cat(small).flatten(1)


def _filter_responses(sample: BatchSample) -> Tensor:
    """Mean and maximum response (N, 384) of random filters in each quarter of an image."""
    channels = sample.images[0].shape[1]
    generator = torch.Generator().manual_seed(SEED)
    filters = torch.randn(FILTERS, channels, 7, 7, generator=generator)
    filters -= filters.mean((1, 2, 3), keepdim=True)
    responses = []
    for x in sample.images:
        for chunk in x.detach().float().cpu().split(64):  # type: ignore[no-untyped-call]
            side = min(*chunk.shape[-2:], TEXTURE_SIDE)
            response = F.conv2d(F.adaptive_avg_pool2d(chunk, side), filters, padding=3).relu_()
            pooled = F.adaptive_avg_pool2d(response, 2), F.adaptive_max_pool2d(response, 2)
            responses.append(torch.cat(pooled, 1).flatten(1))
    return torch.cat(responses)


Ridge = tuple[Tensor, Tensor, Tensor]  # mean (D,) and deviation (D,) of x, weights (D, K)


def _fit_ridge(x: Tensor, labels: Tensor, classes: int) -> Ridge:
    """Ridge regression from x (N, D) to one-hot labels; every class has the same weight."""
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / std
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    targets = F.one_hot(labels, classes).float() / counts - 1 / len(labels)
    # Solve with the smaller of the two Gram matrices.
    if len(x) <= x.shape[1]:
        gram = x @ x.T
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        return mean, std, x.T @ torch.linalg.solve(gram, targets)
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    return mean, std, torch.linalg.solve(gram, x.T @ targets)


def _scores(x: Tensor, ridge: Ridge) -> Tensor:
    """Scores (N, K) of x (N, D)."""
    mean, std, weights = ridge
    return ((x - mean) / std) @ weights
