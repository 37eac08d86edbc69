"""Figures of an evaluation: hits under ties, intervals and sums over batches."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.training import Tally, topk_hits, wilson


def test_topk_under_ties_is_the_count_over_all_orders() -> None:
    """Every order in which a sort might leave the classes, for scores full of ties."""
    random = np.random.default_rng(0)
    for classes, k in ((4, 1), (5, 2), (5, 5), (3, 5)):
        scores = random.integers(0, 3, (12, classes))
        labels = random.integers(0, classes, 12)
        found = topk_hits(torch.from_numpy(scores).float(), torch.from_numpy(labels), k)
        for row, label, hits in zip(scores, labels, found, strict=True):
            orders = [
                sorted(range(classes), key=lambda c, row=row, order=order: (-row[c], order[c]))
                for order in itertools.permutations(range(classes))
            ]
            inside = [label in order[:k] for order in orders]
            expected = (any(inside), all(inside), float(np.mean(inside)))
            np.testing.assert_allclose(hits.numpy(), np.array(expected, float), atol=1e-6)


def test_scores_that_are_no_number_are_misses() -> None:
    scores = torch.eye(3, 8)
    scores[0, 5] = math.nan
    scores[1, 6] = math.inf
    hits = topk_hits(scores, torch.arange(3), 5)
    assert hits.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert topk_hits(torch.full((2, 8), math.nan), torch.tensor([0, 1]), 8).sum() == 0


def test_wilson_against_known_values() -> None:
    """Newcombe 1998, table I: the score interval without continuity correction."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        np.testing.assert_allclose(wilson(hits, n), (low, high), atol=5e-5)
    np.testing.assert_allclose(wilson(0, 20), (0, 0.1611), atol=5e-5)
    np.testing.assert_allclose(wilson(29, 29), (0.8830, 1), atol=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def tally_of(scores: torch.Tensor, labels: torch.Tensor) -> Tally:
    tally = Tally(scores.shape[1])
    losses = F.cross_entropy(scores, labels, reduction="none")
    for part in range(0, len(labels), 7):
        rows = slice(part, part + 7)
        tally.add(scores[rows], labels[rows], losses[rows])
    return tally


def test_tally_sums_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 8, (50,), generator=generator)
    tally = tally_of(scores, labels)
    figures = tally.figures()
    assert figures.n == 50
    assert figures.loss == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-6)
    order = scores.argsort(1, descending=True)
    top5 = float((order[:, :5] == labels[:, None]).any(1).double().mean())
    assert figures.top1 == pytest.approx(float((order[:, 0] == labels).double().mean()))
    assert figures.top5 == pytest.approx(top5)
    for rule in ("optimistic", "pessimistic", "expected"):
        assert getattr(figures, f"top5_{rule}") == pytest.approx(top5)
    assert figures.top1_ci95 == wilson(figures.top1 * 50, 50)
    for label, (right, n) in enumerate(tally.per_class()):
        assert n == int((labels == label).sum())
        assert right == int(((order[:, 0] == label) & (labels == label)).sum())
    for true, said in itertools.product(range(8), repeat=2):
        count = int(((labels == true) & (order[:, 0] == said)).sum())
        assert int(tally.confusion[true, said]) == count
    assert tally.tie_warning() is None


@pytest.mark.parametrize(("classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top5_of_five_classes_is_nothing(classes: int, has_top5: bool) -> None:
    figures = tally_of(torch.randn(10, classes), torch.arange(10) % classes).figures()
    assert (figures.top5 is not None) == has_top5
    assert ("top5_ci95" in figures) == has_top5


def test_a_dead_network_is_warned_of() -> None:
    tally = tally_of(torch.zeros(20, 10), torch.arange(20) % 10)
    figures = tally.figures()
    assert figures.top1_optimistic == figures.top5_optimistic == 1
    assert figures.top1_pessimistic == figures.top5_pessimistic == 0
    assert figures.top1 == pytest.approx(0.1)
    assert figures.top5 == pytest.approx(0.5)
    warning = tally.tie_warning()
    assert warning is not None
    assert "100.00 % with ties as hits, 0.00 % as misses, 10.00 % expected" in warning
