"""Zoomed crops: their share, their sides and their places."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data import augment, draws
from alexnet.recipe import Recipe
from crops import place_of, untouched


def ramp(n: int, size: int) -> torch.Tensor:
    """Red is twice the column, green twice the row: a value says where it comes from."""
    line = 2 * torch.arange(size, dtype=torch.uint8)
    red, green = line.expand(size, size), line[:, None].expand(size, size)
    return torch.stack([red, green, torch.zeros_like(red)], 2).expand(n, -1, -1, -1)


def boxes_of(crops: torch.Tensor, size: int) -> NDArray[np.float64]:
    """(N, 4): left, right, top, bottom of what was cut out, from the values at its ends.

    A crop's first and last pixel are the middles of the first and last of `crop` equal windows;
    right is below left in a mirrored one.
    """
    crop, ends = crops.shape[-1], []
    for along in (crops[:, 0, 0, :], crops[:, 1, :, 0]):
        first, last = (along[:, i].double().numpy() / 2 + 0.5 for i in (0, -1))
        window = (last - first) / (crop - 1)
        ends += [first - window / 2, last + window / 2]
    return np.stack(ends, 1) / size


def zoomed(n: int, epoch: int = 0, **fields: Any) -> NDArray[np.float64]:
    recipe = Recipe(size=64, crop=8, **fields)
    crops = augment(ramp(n, 64), np.arange(n), epoch, recipe, untouched(64, 8))
    return boxes_of(crops, 64)


@pytest.mark.parametrize("area", [0.08, 0.35, 0.7])
def test_a_zoomed_crop_keeps_its_share_and_its_sides(area: float) -> None:
    left, right, top, bottom = zoomed(2000, area=area).T
    width, height = right - left, bottom - top
    assert min(left.min(), top.min()) > -1e-5
    assert max(right.max(), bottom.max()) < 1 + 1e-5
    share, ratio = width * height, width / height
    assert area - 1e-5 < share.min() < area + 0.02
    assert 0.95 < share.max() < 1 + 1e-5
    assert 0.75 - 1e-4 < ratio.min() < 0.77
    assert 1.30 < ratio.max() < 4 / 3 + 1e-4
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    free = width < 0.7  # where there is room, places go from edge to edge
    where = left[free] / (1 - width[free])
    if free.sum() > 200:
        assert where.min() < 0.03
        assert where.max() > 0.97
        assert where.mean() == pytest.approx(0.5, abs=0.05)


def test_a_zoomed_crop_keeps_a_large_share() -> None:
    left, right, top, bottom = zoomed(500, area=0.9).T
    assert ((right - left) * (bottom - top)).min() > 0.9 - 1e-5


def test_a_zoomed_crop_is_the_formula_of_its_draws() -> None:
    found = zoomed(200, epoch=3, area=0.2, seed=8)
    narrowed = 0
    for i, (left, right, top, bottom) in enumerate(found):
        names = (draws.AREA, draws.RATIO, draws.CROP_Y, draws.CROP_X)
        u, v, y, x = (float(draws.uniform(8, 3, np.array([i]), name)[0]) for name in names)
        share = 0.2 + 0.8 * u
        low, high = max(3 / 4, share), min(4 / 3, 1 / share)  # beyond, a side leaves the image
        aspect = low ** (1 - v) * high**v
        width, height = math.sqrt(share * aspect), math.sqrt(share / aspect)
        narrowed += low > 3 / 4
        expected = (x * (1 - width), x * (1 - width) + width, y * (1 - height))
        np.testing.assert_allclose((left, right, top), expected, atol=1e-4)
        assert bottom - top == pytest.approx(height, abs=1e-4)
    assert narrowed > 2


def test_a_mirrored_zoomed_crop_is_the_same_box_reversed() -> None:
    plain, flipped = zoomed(400, area=0.3), zoomed(400, area=0.3, flip=True)
    mirrored = np.array(
        [draws.uniform(0, 0, np.array([i]), draws.FLIP)[0] < 0.5 for i in range(400)]
    )
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(flipped[:, 0] > flipped[:, 1], mirrored)
    np.testing.assert_allclose(flipped[mirrored][:, [1, 0, 2, 3]], plain[mirrored], atol=1e-4)
    np.testing.assert_allclose(flipped[~mirrored], plain[~mirrored], atol=1e-4)


def test_area_of_one_is_the_plain_crop() -> None:
    recipe, images = Recipe(size=64, crop=8, area=1.0, seed=2), ramp(50, 64)
    found = augment(images, np.arange(50), 1, recipe, untouched(64, 8))
    for i in range(50):
        top, left, _ = place_of(recipe, 1, i, 64 - 8 + 1)
        assert torch.equal(found[i, 0], (2.0 * torch.arange(left, left + 8)).expand(8, 8))
        assert torch.equal(found[i, 1].T, (2.0 * torch.arange(top, top + 8)).expand(8, 8))
