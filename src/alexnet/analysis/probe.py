"""What features are worth to a linear classifier, and how alike two networks see images."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import DataError
from alexnet.metrics import wilson

STRENGTHS = (1e-2, 1e-3, 1e-4)  # of the L2 term, of which held-out rows choose
ENOUGH = 1e-4  # a smaller fall of the loss in a step ends a fit
HELD_OUT = 10  # every so many-th row
HISTORY = 10  # steps that L-BFGS remembers, each twice the weights: torch's 100 are 3 GB at K 1,000


@dataclass(frozen=True)
class FeatureProbe:
    """Accuracy on `n` rows that were not fitted, with its 95 % interval; the L2 term chosen."""

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
    """Fits softmax regression to features and tries it on others.

    Shapes: (N, D), (N,), (M, D), (M,). Features are brought to mean 0 and deviation 1 as of
    `train`; every tenth row of it chooses the strength of the L2 term, and all of it is fitted
    again with that one. Fitting is by L-BFGS, so the same rows give the same figure.
    """
    if len(train) < HELD_OUT:
        raise DataError(f"{len(train)} images are too few to fit a probe: {HELD_OUT} or more")
    x, y = torch.from_numpy(np.asarray(train, np.float32)), torch.from_numpy(train_labels).long()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / std
    apart = torch.arange(len(x)) % HELD_OUT == 0
    weights, found = torch.zeros(x.shape[1] + 1, classes), list[tuple[int, float, Tensor]]()
    fitted, held = (x[~apart], y[~apart]), (x[apart], y[apart])
    for strength in STRENGTHS:  # each begins where the stronger one before it ended
        weights = _fit(*fitted, weights, strength, iterations)
        found.append((_hits(weights, *held), strength, weights))
    _, strength, weights = max(found, key=lambda one: one[0])  # of equals the strongest
    weights = _fit(x, y, weights, strength, iterations)
    other = (torch.from_numpy(np.asarray(test, np.float32)) - mean) / std
    right, n = _hits(weights, other, torch.from_numpy(test_labels).long()), len(test)
    return FeatureProbe(right / n, wilson(right, n), n, len(train), strength)


def linear_cka(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Linear centred kernel alignment of two features of the same images: 1 where one is the other
    turned and scaled, about 0 where they have nothing in common.

    Shapes: (N, D), (N, E). Sources: Kornblith et al. 2019, equation 4; its estimator without bias,
    which few images need, is Song et al. 2012, equation 5. So it can be a little below 0.
    """
    if len(first) != len(second) or len(first) < 4:
        raise DataError(f"{len(first)} and {len(second)} images: the same ones, at least 4")
    a, b = _gram(first), _gram(second)
    scale = float(_hsic(a, a) * _hsic(b, b)) ** 0.5
    return float(_hsic(a, b)) / scale if scale > 0 else 0.0


def _fit(x: Tensor, y: Tensor, start: Tensor, strength: float, iterations: int) -> Tensor:
    """(D + 1, K), the last row the biases; so is `start`, from which it goes on."""
    weights = start.clone().requires_grad_()
    steps = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        history_size=HISTORY,
        tolerance_change=ENOUGH,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        steps.zero_grad()
        fit = F.cross_entropy(x @ weights[:-1] + weights[-1], y)
        whole = fit + strength / 2 * weights[:-1].square().sum()
        whole.backward()  # type: ignore[no-untyped-call]
        return whole.item()

    steps.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _hits(weights: Tensor, x: Tensor, y: Tensor) -> int:
    return int(((x @ weights[:-1] + weights[-1]).argmax(1) == y).sum())


def _gram(rows: NDArray[np.floating]) -> Tensor:
    x = torch.from_numpy(np.asarray(rows, np.float32)).flatten(1).double()
    x = x - x.mean(0)
    gram = x @ x.T
    return gram.fill_diagonal_(0)


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)
    apart = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2))
    return (apart - 2 / (n - 2) * (a.sum(0) * b.sum(0)).sum()) / (n * (n - 3))
