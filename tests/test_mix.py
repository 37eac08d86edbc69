"""Mixup and cutmix: what is mixed, how often, and the loss of it."""

import math

import numpy as np
import pytest
import torch

from alexnet.data import Batch, Preprocess, Statistics, draws, mix
from alexnet.models import Linear, Net
from alexnet.recipe import Recipe
from alexnet.training import build_optimizer, train_step
from crops import pictures


def test_mixup_is_a_blend_with_the_neighbour() -> None:
    x, labels = torch.rand(5, 3, 6, 6), torch.tensor([4, 8, 0, 2, 6])
    shares = []
    for step in range(300):
        mixed, others, share = mix(x, labels, step, Recipe(mixup=1.0, seed=3))
        shares.append(share)
        for i in range(5 if step < 20 else 0):
            expected = share * x[i].double() + (1 - share) * x[i - 1].double()
            torch.testing.assert_close(mixed[i].double(), expected, rtol=1e-5, atol=1e-6)
            assert int(others[i]) == int(labels[i - 1])
    assert 0 <= min(shares) < 0.05
    assert 0.95 < max(shares) < 1
    assert np.mean(shares) == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 300))


def test_cutmix_is_a_rectangle_of_the_neighbour() -> None:
    side = 20
    x, labels = torch.rand(4, 3, side, side), torch.tensor([1, 3, 5, 7])
    shares, middles, unclipped = [], [], 0
    for step in range(400):
        mixed, others, share = mix(x, labels, step, Recipe(cutmix=1.0, seed=3))
        assert others.tolist() == [7, 1, 3, 5]
        taken = (mixed != x).any(1)
        rows, columns = taken[0].any(1).nonzero(), taken[0].any(0).nonzero()
        area = len(rows) * len(columns)
        assert share == pytest.approx(1 - area / side**2, abs=1e-9)
        shares.append(share)
        if not area:
            continue
        (top, bottom), (left, right) = (
            (int(found[0]), int(found[-1]) + 1) for found in (rows, columns)
        )
        expected = x.clone()
        for i in range(4):
            expected[i, :, top:bottom, left:right] = x[i - 1, :, top:bottom, left:right]
        assert torch.equal(mixed, expected)
        middles.append((top + bottom) / 2)
        if min(top, left) > 0 and max(bottom, right) < side:
            unclipped += 1
            assert abs((bottom - top) - (right - left)) <= 1
    assert unclipped > 50
    assert min(shares) < 0.2
    assert max(shares) > 0.95
    assert min(middles) < 4
    assert max(middles) > 16


def test_mixup_and_cutmix_come_as_often_as_asked() -> None:
    n, side = 4000, 32
    x = torch.stack([torch.zeros(1, side, side), torch.ones(1, side, side)])
    labels, recipe = torch.tensor([0, 1]), Recipe(mixup=0.3, cutmix=0.2, seed=1)
    found = {"mixup": 0, "cutmix": 0, "plain": 0}
    for step in range(n):
        mixed, others, share = mix(x, labels, step, recipe)
        values = mixed[0].unique()
        if len(values) > 1:
            found["cutmix"] += 1
        elif float(values) > 0 and share > 0.01:
            found["mixup"] += 1
        elif share == 1.0:
            found["plain"] += 1
            assert torch.equal(mixed, x)
            assert torch.equal(others, labels)
    for kind, p in (("mixup", 0.3), ("cutmix", 0.2), ("plain", 0.5)):
        assert abs(found[kind] / n - p) < 4 * math.sqrt(p * (1 - p) / n) + 0.005, found
    for step in range(50):
        assert mix(x, labels, step, Recipe())[0] is x


def test_mixing_depends_on_seed_and_step_alone() -> None:
    recipe = Recipe(mixup=0.5, cutmix=0.5, seed=9)
    small, large = torch.rand(2, 1, 16, 16), torch.rand(6, 3, 16, 16)
    shares = []
    for step in range(30):
        share = mix(small, torch.arange(2), step, recipe)[2]
        assert mix(large, torch.arange(6), step, recipe)[2] == share
        shares.append(share)
    assert len(set(shares)) > 25
    again = [mix(small, torch.arange(2), s, recipe.replace(seed=8))[2] for s in range(30)]
    assert again != shares


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {}])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_shared_between_own_and_the_neighbours_labels(
    fields: dict[str, float], smoothing: float
) -> None:
    torch.manual_seed(0)
    model = Net([Linear("fc1", 4)], (1, 8, 8))
    recipe = Recipe(channels=1, size=8, crop=8, label_smoothing=smoothing, **fields)  # type: ignore[arg-type]
    images, labels = pictures(6, 8, 1), torch.tensor([0, 1, 2, 3, 1, 0])
    batch = Batch(5, 0, np.arange(6), images, labels)
    preprocess = Preprocess(8, 8, 1, Statistics((120.0,), (60.0,), ()))
    x = (images.permute(0, 3, 1, 2).float() - 120) / 60
    share = 1.0
    if "mixup" in fields:
        share = float(draws.uniform(0, 5, np.zeros(1, int), draws.MIX_SHARE)[0])
        x = torch.stack([share * x[i] + (1 - share) * x[i - 1] for i in range(6)])
    elif fields:
        x, _, share = mix(x, labels, 5, recipe)
    with torch.no_grad():
        p = model(x).double().exp()
    expected = 0.0
    for i in range(6):
        log_p = [math.log(float(p[i, k] / p[i].sum())) for k in range(4)]
        for label, weight in ((int(labels[i]), share), (int(labels[i - 1]), 1 - share)):
            entropy = (1 - smoothing) * log_p[label] + smoothing * sum(log_p) / 4
            expected -= weight * entropy / 6
    sums, optimizer = torch.zeros(4, dtype=torch.float64), build_optimizer(model, recipe)
    loss = train_step(model, optimizer, batch, 0.01, recipe, preprocess, sums)
    assert 0.02 < share < 0.98 or not fields
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    hits = sum(int(p[i].argmax()) == int(labels[i]) for i in range(6))
    assert sums.tolist() == pytest.approx([6, 6 * expected, hits, 6], rel=1e-4)
