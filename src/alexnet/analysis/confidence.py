"""How far a network's probabilities can be believed, and where they contradict the labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet.metrics import wilson

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose probability lies in `low` < p <= `high`: how many, what was said and what was
    right (means, with the 95 % interval of the second)."""

    low: float
    high: float
    n: int
    said: float
    right: float
    right_ci95: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """`ece` is the mean distance between said and right, each bin with its number of images;
    `mean_said` minus `accuracy` is above 0 where the network is too sure."""

    n: int
    bins: list[Bin]
    ece: float
    mean_said: float
    accuracy: float


def calibration(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = BINS
) -> Calibration:
    """Holds the largest probability of each image against whether it is right.

    Shapes: (N, K), (N,). Source: Guo et al. 2017, equation 3, with bins of equal width.
    """
    sure = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    places = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    found, off = [], 0.0
    for i in range(bins):
        inside = places == i
        n, hits = int(inside.sum()), int(right[inside].sum())
        if n:
            said = float(sure[inside].mean())
            found.append(Bin(i / bins, (i + 1) / bins, n, said, hits / n, wilson(hits, n)))
            off += abs(hits - n * said)
    return Calibration(
        len(labels), found, off / len(labels), float(sure.mean()), float(right.mean())
    )


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


def doubtful_labels(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.intp]:
    """Images whose label looks wrong, the most doubtful first.

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
