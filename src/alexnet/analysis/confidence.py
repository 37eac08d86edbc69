"""Calibration of a network's probabilities, its most confident mistakes, and doubtful labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.metrics import wilson
from alexnet.support.terminal import percent

MAX_BINS, MIN_BIN_IMAGES = 15, 30
TRUSTED_ACCURACY = 0.8  # lower bound of the accuracy from which on a network may question labels
DRAWS = 1000  # simulated networks whose accuracy equals their confidence
MAX_DRAWN_NUMBERS = 50_000_000  # of all draws: with many images there are fewer draws
MIN_DRAWS = 100
Z_95 = 1.959964  # standard errors of a 95 % interval


@dataclass(frozen=True)
class Bin:
    """The `n` images whose confidence lies between `low` and `high`, both included.

    `said` is their mean confidence, `right` their accuracy, with its 95 % interval.
    """

    low: float
    high: float
    n: int
    said: float
    right: float
    right_ci95: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Confidence compared with accuracy.

    `ece` is the expected calibration error: the mean distance of the two over bins, weighted by
    their images. Its interval `ece_ci95` is rather too wide than too narrow. A perfectly calibrated
    network has an error above 0 too: `ece_by_chance` is its median for as many images, and
    `ece_by_chance_ci95` holds 95 of 100. `surplus` is `mean_said` (mean confidence) minus
    `accuracy`: above 0 where the network is overconfident.
    """

    n: int
    bins: list[Bin]
    ece: float
    ece_ci95: tuple[float, float]
    ece_by_chance: float
    ece_by_chance_ci95: tuple[float, float]
    mean_said: float
    accuracy: float
    surplus: float
    surplus_ci95: tuple[float, float]


def measure_calibration(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    bins: int = MAX_BINS,
    least: int = MIN_BIN_IMAGES,
) -> Calibration:
    """Compares the confidence of each image, its largest probability, with whether it is correct.

    Shapes: (N, K), (N,). Source: Guo et al. 2017, equation 3, but all bins have the same number of
    images: `least` or more, in at most `bins` bins. The draws have a fixed seed.
    """
    confidence = probabilities.max(1).astype(np.float64)
    is_correct = probabilities.argmax(1) == labels
    n, rng = len(labels), np.random.default_rng(0)
    draws = max(min(DRAWS, MAX_DRAWN_NUMBERS // max(n, 1)), MIN_DRAWS)
    measured_bins: list[Bin] = []
    error_sum, variance, drawn_error_sums = 0.0, 0.0, np.zeros(draws)
    for ids in _equal_bins(confidence, bins, least):
        in_bin, count, hits = confidence[ids], len(ids), int(is_correct[ids].sum())
        mean = float(in_bin.mean())
        low, high = float(in_bin.min()), float(in_bin.max())
        measured_bins.append(Bin(low, high, count, mean, hits / count, wilson(hits, count)))
        error_sum += abs(hits - count * mean)
        smoothed = (hits + 1) / (count + 2)  # never exactly 0 or 1
        variance += count * smoothed * (1 - smoothed)
        drawn_hits = (rng.random((draws, count), np.float32) < in_bin).sum(1)
        drawn_error_sums += np.abs(drawn_hits - in_bin.sum())
    ece, drawn_ece = error_sum / n, drawn_error_sums / n
    lower, upper = np.quantile(drawn_ece, (0.025, 0.975)).tolist()
    # The measured error exceeds the true one by what chance adds at most, and is not below it on
    # average.
    interval = max(ece - upper, 0.0), min(ece + Z_95 * float(np.sqrt(variance)) / n, 1.0)
    mean_confidence, accuracy = float(confidence.mean()), float(is_correct.mean())
    lowest, highest = wilson(int(is_correct.sum()), n)
    return Calibration(
        n=n,
        bins=measured_bins,
        ece=ece,
        ece_ci95=interval,
        ece_by_chance=float(np.median(drawn_ece)),
        ece_by_chance_ci95=(lower, upper),
        mean_said=mean_confidence,
        accuracy=accuracy,
        surplus=mean_confidence - accuracy,
        surplus_ci95=(mean_confidence - highest, mean_confidence - lowest),
    )


def _equal_bins(
    confidence: NDArray[np.float64], most: int, least: int
) -> Iterator[NDArray[np.intp]]:
    """Indices of the images, sorted by confidence, in at most `most` bins of equal size.

    Each has `least` images or more. Images of equal confidence stay in one bin.
    """
    order = np.argsort(confidence, kind="stable")
    n, start = len(confidence), 0
    size = max(-(-n // most), least)
    while start < n:
        end = start + size
        if n - end < least:
            end = n
        else:
            last = confidence[order[end - 1]]
            end = int(np.searchsorted(confidence[order], last, side="right"))
            end = n if n - end < least else end
        yield order[start:end]
        start = end


def confused_pairs(matrix: NDArray[np.integer], limit: int = 12) -> list[tuple[int, int, int]]:
    """The pairs (true class, predicted class, images) that are confused most often."""
    errors = np.array(matrix)
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, errors.shape)
    cells = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column, int(errors[row, column])) for row, column in cells if errors[row, column]]


def surest_mistakes(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.intp]:
    """Indices of the wrongly classified images, those of highest confidence first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")]


def too_weak_for_labels(right: float, n: int) -> str:
    """Why a network that is right for `right` of `n` images cannot question labels; "" if it can.

    Below an accuracy most labels that it contradicts would be correct, and the network wrong.
    """
    low, high = wilson(right, n)
    if low >= TRUSTED_ACCURACY:
        return ""
    return (
        f"the network is right for {percent(right / max(n, 1))} of {n:,} images ({percent(low)} to "
        f"{percent(high)}): where the lower end is below {percent(TRUSTED_ACCURACY, 0)}, most "
        "labels that it contradicts may be correct, and the mistakes its own"
    )


def doubtful_labels(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.intp]:
    """Indices of the images whose label may be wrong, the most doubtful first.

    Another class has a higher probability than the label, and at least the probability that this
    class has on average for the images labelled with it. They are ranked by the probability of the
    label minus that of the other class. Use images that the network was not trained on.
    Shapes: (N, K), (N,). Source: Northcutt et al. 2021 (confident learning), the confident joint
    and the normalised margin.
    """
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=classes)
    class_means = np.bincount(labels, weights=of_label, minlength=classes) / np.maximum(counts, 1)
    class_means[counts == 0] = np.inf
    candidates = np.where(probabilities >= class_means, probabilities, 0.0)
    candidates[rows, labels] = 0.0
    of_other = candidates.max(1)
    doubtful = np.flatnonzero(of_other > of_label)
    return doubtful[np.argsort((of_label - of_other)[doubtful], kind="stable")]
