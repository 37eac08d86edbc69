"""How far a network's probabilities can be believed, and where they contradict the labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.metrics import wilson
from alexnet.terminal import percent

BINS, LEAST = 15, 30  # bins at most, and the images that each has at least
TRUSTED = 0.8  # of images that must be right, at the least, before labels are questioned
DRAWS = 1000  # of networks that are right as often as they say


@dataclass(frozen=True)
class Bin:
    """Images whose probability lies in `low` <= p <= `high`: how many, what was said and what was
    right (means, with the 95 % interval of the second)."""

    low: float
    high: float
    n: int
    said: float
    right: float
    right_ci95: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """How far what is said is from what is right.

    `ece` is their mean distance, each bin with its number of images, and `ece_ci95` its interval,
    too wide rather than too narrow. Also a network that is right exactly as often as it says shows
    some: `ece_by_chance` in the middle case of as many images, `ece_by_chance_ci95` in 95 of 100.
    `surplus` is `mean_said` minus `accuracy`, above 0 where the network is too sure.
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
    bins: int = BINS,
    least: int = LEAST,
) -> Calibration:
    """Holds the largest probability of each image against whether it is right.

    Shapes: (N, K), (N,). Source: Guo et al. 2017, equation 3, with bins of as many images each:
    `bins` at most, and so few that each has `least`. Chance is drawn with a fixed seed.
    """
    sure = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    n, chance = len(labels), np.random.default_rng(0)
    draws = max(min(DRAWS, 50_000_000 // max(n, 1)), 100)
    found, off, variance, by_chance = [], 0.0, 0.0, np.zeros(draws)
    for inside in _equal_bins(sure, bins, least):
        of, count, hits = sure[inside], len(inside), int(right[inside].sum())
        said = float(of.mean())
        interval = wilson(hits, count)
        found.append(Bin(float(of.min()), float(of.max()), count, said, hits / count, interval))
        off += abs(hits - count * said)
        likely = (hits + 1) / (count + 2)  # never quite 0 or 1
        variance += count * likely * (1 - likely)
        drawn = (chance.random((draws, count), np.float32) < of).sum(1)
        by_chance += np.abs(drawn - of.sum())
    ece, by_chance = off / n, by_chance / n
    low, high = np.quantile(by_chance, (0.025, 0.975)).tolist()
    # What is measured is at most what chance shows above what is true, and on average not below it.
    ends = max(ece - high, 0.0), min(ece + 1.959964 * float(np.sqrt(variance)) / n, 1.0)
    mean_said, accuracy = float(sure.mean()), float(right.mean())
    worst, best = wilson(int(right.sum()), n)
    return Calibration(
        n=n,
        bins=found,
        ece=ece,
        ece_ci95=ends,
        ece_by_chance=float(np.median(by_chance)),
        ece_by_chance_ci95=(low, high),
        mean_said=mean_said,
        accuracy=accuracy,
        surplus=mean_said - accuracy,
        surplus_ci95=(mean_said - best, mean_said - worst),
    )


def _equal_bins(sure: NDArray[np.float64], most: int, least: int) -> Iterator[NDArray[np.intp]]:
    """The images (N,) in bins of as many each, by their probability; equal ones stay together."""
    order = np.argsort(sure, kind="stable")
    n, start = len(sure), 0
    size = max(-(-n // most), least)
    while start < n:
        end = start + size
        if n - end < least:
            end = n
        else:  # equal probabilities stay in one bin
            end = int(np.searchsorted(sure[order], sure[order[end - 1]], side="right"))
            end = n if n - end < least else end
        yield order[start:end]
        start = end


def confused_pairs(matrix: NDArray[np.integer], limit: int = 12) -> list[tuple[int, int, int]]:
    """(true class, said class, images) of the cells off the diagonal with most images."""
    off = np.array(matrix)
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, off.shape)
    cells = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column, int(off[row, column])) for row, column in cells if off[row, column]]


def surest_mistakes(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.intp]:
    """The images that are named wrongly, those the network is surest of first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")]


def too_weak_for_labels(right: float, n: int) -> str:
    """Why a network that names `right` of `n` images as labelled cannot question their labels: most
    of what it contradicts would be its own mistakes. "" where it can."""
    low, high = wilson(right, n)
    if low >= TRUSTED:
        return ""
    return (
        f"the network is right for {percent(right / max(n, 1))} of {n:,} images ({percent(low)} to "
        f"{percent(high)}): where the lower end is below {percent(TRUSTED, 0)}, most of what it "
        "contradicts may be its own mistake"
    )


def doubtful_labels(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.intp]:
    """Images whose label deserves a look, the most doubtful first.

    Another class is likelier there than it is on average for images that bear its label, and
    likelier than the image's own. Ranked by own minus other probability. Only images the network
    was not trained on say something. Source: Northcutt et al. 2021 (confident learning), the
    confident joint and the normalised margin.
    """
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    counts = np.bincount(labels, minlength=classes)
    usual = np.bincount(labels, weights=own, minlength=classes) / np.maximum(counts, 1)
    usual[counts == 0] = np.inf
    candidates = np.where(probabilities >= usual, probabilities, 0.0)
    candidates[rows, labels] = 0.0
    other = candidates.max(1)
    found = np.flatnonzero(other > own)
    return found[np.argsort((own - other)[found], kind="stable")]
