"""What is computed of a trained network, against definitions written out."""

import numpy as np
import pytest
import torch

from alexnet.analysis import neighbours
from alexnet.analysis.kernels import colour_scores, tower_scores, towers_of
from alexnet.analysis.neighbours import agreement, nearest
from alexnet.errors import DataError, UsageError
from alexnet.models.zoo import build_model


def test_colour_is_what_is_not_grey() -> None:
    grey = torch.randn(1, 1, 5, 5).expand(1, 3, 5, 5)
    opponent = torch.cat([grey[:, :1], -grey[:, :1], 0 * grey[:, :1]], 1)
    noise = torch.randn(1, 3, 400, 400)
    kernels = torch.cat([grey, opponent, 0 * grey])
    assert colour_scores(kernels).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert colour_scores(noise).item() == pytest.approx(2 / 3, abs=0.01)
    assert colour_scores(7 * kernels).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    with pytest.raises(UsageError, match=r"\(4, 1, 3, 3\): a colour score needs"):
        colour_scores(torch.zeros(4, 1, 3, 3))


def test_towers_weigh_kernels_by_their_energy() -> None:
    grey = torch.ones(1, 3, 2, 2)
    colour = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    first, second = tower_scores(torch.cat([grey, grey, 1e-3 * grey, colour]), 2)
    assert (first.kernels, second.kernels) == (range(2), range(2, 4))
    assert (first.colour, second.colour) == pytest.approx((0, 1), abs=1e-4)
    with pytest.raises(UsageError, match="4 kernels do not divide into 3 towers"):
        tower_scores(torch.cat([grey] * 4), 3)


@pytest.mark.parametrize(("name", "towers"), [("alexnet-2012", 2), ("alexnet-2014", 1)])
def test_towers_are_the_groups_of_the_second_layer(name: str, towers: int) -> None:
    with torch.device("meta"):
        assert towers_of(build_model(name)) == towers


@pytest.mark.parametrize("metric", neighbours.METRICS)
def test_nearest_is_exact_whatever_the_blocks(
    metric: neighbours.Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    # Far from the origin, where sums of squares in float32 lose the small differences.
    far = 1000 if metric == "euclidean" else 0
    keys = (far + random.normal(size=(300, 20))).astype(np.float32)
    queries = (far + random.normal(size=(40, 20))).astype(np.float32)
    wide, some = keys.astype(float), queries.astype(float)
    if metric == "euclidean":
        true = np.sqrt(((some[:, None] - wide) ** 2).sum(2))
    else:
        norms = np.linalg.norm(some, axis=1)[:, None] * np.linalg.norm(wide, axis=1)
        true = 1 - some @ wide.T / norms
    expected = np.argsort(true, axis=1)[:, :6]
    for size in (neighbours.BLOCK_BYTES, 4 * 20 * 7):
        monkeypatch.setattr(neighbours, "BLOCK_BYTES", size)
        distances, ids = nearest(queries, keys, 6, metric)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(distances, np.take_along_axis(true, ids, 1), atol=1e-9)


def test_equal_keys_come_in_their_order() -> None:
    keys = np.zeros((30, 4), np.float32)
    keys[7] = 1
    _, ids = nearest(np.ones((1, 4), np.float32), keys, 1)
    assert ids.tolist() == [[7]]
    distances, _ = nearest(np.zeros((1, 4), np.float32), keys, 2, "cosine")
    assert distances.tolist() == [[1, 1]]  # a row of zeros points nowhere


def test_neighbours_that_cannot_be() -> None:
    keys = np.zeros((3, 4), np.float32)
    with pytest.raises(DataError, match="6 neighbours of 3 images: ask for 1 to 3"):
        nearest(keys, keys, 6)
    with pytest.raises(UsageError, match="metric 'manhattan': euclidean or cosine"):
        nearest(keys, keys, 1, "manhattan")  # type: ignore[arg-type]
    keys[1, 1] = np.nan
    with pytest.raises(DataError, match="not a finite number"):
        nearest(keys[:1], keys, 1)


def test_agreement_counts_classes() -> None:
    ids = np.array([[0, 1], [2, 3], [1, 2], [3, 0]])
    found = agreement(ids, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert (found.n, found.k) == (4, 2)
    assert (found.first, found.share) == (0.75, 6 / 8)
    low, high = found.first_ci95
    assert low < 0.75 < high
