"""Linear probes of features, and the similarity of two networks' features (linear CKA)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import DataError
from alexnet.metrics import wilson

STRENGTHS = (1e-2, 1e-3, 1e-4)  # factors of the L2 term; held-out rows choose among them
MIN_LOSS_FALL = 1e-4  # a smaller fall of the loss in a step ends the fit
HELD_OUT_EVERY = 10  # rows
# Steps that L-BFGS keeps, each of twice the weights' size: torch's 100 take 3 GB at 1,000 classes.
HISTORY = 10


@dataclass(frozen=True)
class FeatureProbe:
    """Accuracy on `n` test rows with its 95 % interval, `fitted` rows, and the L2 term's factor."""

    top1: float
    top1_ci95: tuple[float, float]
    n: int
    fitted: int
    strength: float


def fit_linear_probe(
    train: NDArray[np.floating],
    train_labels: NDArray[np.integer],
    test: NDArray[np.floating],
    test_labels: NDArray[np.integer],
    classes: int,
    iterations: int = 60,
) -> FeatureProbe:
    """Fit softmax regression to features, and measure its accuracy on others.

    Shapes: (N, D), (N,), (M, D), (M,). Features are normalised by the mean and deviation of
    `train`. Every tenth row of `train` is held out to choose the factor of the L2 term; then all
    rows are fitted with it. L-BFGS makes the result a function of the rows alone.
    """
    if len(train) < HELD_OUT_EVERY:
        raise DataError(
            f"{len(train)} images are too few to fit a probe: it needs {HELD_OUT_EVERY} or more"
        )
    x, y = torch.from_numpy(np.asarray(train, np.float32)), torch.from_numpy(train_labels).long()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / std
    is_held_out = torch.arange(len(x)) % HELD_OUT_EVERY == 0
    weights = torch.zeros(x.shape[1] + 1, classes)
    fits: list[tuple[int, float, Tensor]] = []  # hits on held-out rows, strength, weights
    for strength in STRENGTHS:  # each starts from the weights of the stronger one before it
        weights = _fit(x[~is_held_out], y[~is_held_out], weights, strength, iterations)
        fits.append((_count_hits(weights, x[is_held_out], y[is_held_out]), strength, weights))
    _, strength, weights = max(fits, key=lambda fit: fit[0])  # the strongest of equals
    weights = _fit(x, y, weights, strength, iterations)
    test_x = (torch.from_numpy(np.asarray(test, np.float32)) - mean) / std
    hits, n = _count_hits(weights, test_x, torch.from_numpy(test_labels).long()), len(test)
    return FeatureProbe(hits / n, wilson(hits, n), n, len(train), strength)


def linear_cka(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Linear centred kernel alignment: the similarity of two sets of features of the same images.

    It is 1 where one set is the other rotated and scaled, and about 0 where they are unrelated. It
    may be slightly below 0, since the estimator has no bias, which matters for few images.
    Shapes: (N, D), (N, E). Sources: Kornblith et al. 2019, equation 4; Song et al. 2012,
    equation 5.
    """
    if len(first) != len(second) or len(first) < 4:
        raise DataError(
            f"features of {len(first)} and of {len(second)} images cannot be compared: give those "
            "of the same images, 4 or more"
        )
    a, b = _gram_matrix(first), _gram_matrix(second)
    scale = float(_hsic(a, a) * _hsic(b, b)) ** 0.5
    return float(_hsic(a, b)) / scale if scale > 0 else 0.0


def _fit(x: Tensor, y: Tensor, start: Tensor, strength: float, iterations: int) -> Tensor:
    """Weights (D + 1, K), the last row the biases, fitted from the weights `start`."""
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        history_size=HISTORY,
        tolerance_change=MIN_LOSS_FALL,
        line_search_fn="strong_wolfe",
    )

    def compute_loss() -> float:
        optimizer.zero_grad()
        cross_entropy = F.cross_entropy(x @ weights[:-1] + weights[-1], y)
        loss = cross_entropy + strength / 2 * weights[:-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(compute_loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _count_hits(weights: Tensor, x: Tensor, y: Tensor) -> int:
    """Number of rows x (N, D) whose predicted class is y (N,)."""
    return int(((x @ weights[:-1] + weights[-1]).argmax(1) == y).sum())


def _gram_matrix(rows: NDArray[np.floating]) -> Tensor:
    """Products (N, N) of centred rows, in float64, with zeros on the diagonal."""
    x = torch.from_numpy(np.asarray(rows, np.float32)).flatten(1).double()
    x = x - x.mean(0)
    gram = x @ x.T
    return gram.fill_diagonal_(0)


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    """Hilbert-Schmidt independence criterion of two such Gram matrices, without bias."""
    n = len(a)
    products = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2))
    return (products - 2 / (n - 2) * (a.sum(0) * b.sum(0)).sum()) / (n * (n - 3))
