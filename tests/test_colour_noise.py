"""Colour noise: the covariance of its rule, one offset an image, and its end."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.data import Preprocess, Statistics, augment, colour_noise
from alexnet.recipe import Recipe
from crops import COVARIANCE, CROP, SIZE, measured, pictures, untouched


@pytest.mark.parametrize("rule", ["paper", "code"])
def test_colour_noise_has_the_covariance_of_its_rule(rule: Any) -> None:
    """Paper: a_i lambda_i p_i of pixels 0 to 1; code: sqrt(lambda_i), so a hundredth of all."""
    n, recipe = 20_000, Recipe(colour=0.1, colour_rule=rule, seed=2)
    noise = colour_noise(Statistics((), (), COVARIANCE), np.arange(n), 1, recipe).double().numpy()
    assert noise.shape == (n, 3)
    values, vectors = np.linalg.eigh(np.array(COVARIANCE))
    lengths = 0.1 * (values / 255 if rule == "paper" else np.sqrt(values))
    expected = vectors @ np.diag(lengths**2) @ vectors.T
    if rule == "code":
        np.testing.assert_allclose(expected, np.array(COVARIANCE) / 100)
    variances = np.diag(expected)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
    assert (abs(noise.T @ noise / n - expected) < 4.5 * error).all()
    assert (abs(noise.mean(0)) < 4.5 * np.sqrt(variances / n)).all()


def test_colour_noise_depends_on_seed_epoch_and_image_alone() -> None:
    statistics, ids = Statistics((), (), COVARIANCE), np.arange(2000)
    recipe = Recipe(colour=0.1, seed=5)
    first = colour_noise(statistics, ids, 3, recipe)
    assert torch.equal(colour_noise(statistics, ids[[900, 7]], 3, recipe), first[[900, 7]])
    assert len(first.unique(dim=0)) == 2000
    for other in (
        colour_noise(statistics, ids, 4, recipe),
        colour_noise(statistics, ids, 3, recipe.replace(seed=6)),
    ):
        for c in range(3):
            assert abs(np.corrcoef(first[:, c], other[:, c])[0, 1]) < 5 / math.sqrt(2000)
    twice = colour_noise(statistics, ids, 3, recipe.replace(colour=0.2))
    torch.testing.assert_close(twice, 2 * first)


@pytest.mark.parametrize("rule", ["paper", "code"])
@pytest.mark.parametrize("normalize", ["mean", "image"])
def test_colour_noise_is_one_offset_an_image_until_it_ends(rule: Any, normalize: Any) -> None:
    fields: dict[str, Any] = {"size": SIZE, "crop": CROP, "flip": True, "normalize": normalize}
    plain = Recipe(**fields)
    noisy = Recipe(**fields, colour=0.1, colour_rule=rule, colour_until=3)
    preprocess = Preprocess(SIZE, CROP, 3, measured(), normalize)
    images, ids = pictures(20), np.arange(20)
    for epoch in range(5):
        without = augment(images, ids, epoch, plain, preprocess)
        with_it = augment(images, ids, epoch, noisy, preprocess)
        if epoch >= 3:
            assert torch.equal(with_it, without), epoch
            continue
        offsets = with_it * (1.1 if rule == "code" else 1.0) - without
        flat = offsets.flatten(2)
        assert float(flat.amax(2).sub(flat.amin(2)).max()) < 1e-3  # all pixels move alike
        assert float(flat.mean(2).std(0).min()) > 0.1, "and each image by another amount"
        noise = colour_noise(measured(), ids, epoch, noisy)
        torch.testing.assert_close(flat.mean(2), noise, rtol=1e-4, atol=1e-3)


def test_colour_noise_without_an_end_does_not_end() -> None:
    recipe = Recipe(size=SIZE, crop=SIZE, colour=0.1)
    images, ids, preprocess = pictures(4), np.arange(4), untouched(SIZE, SIZE)
    plain = augment(images, ids, 0, recipe.replace(colour=0), preprocess)
    for epoch in (0, 1, 500):
        assert not torch.equal(augment(images, ids, epoch, recipe, preprocess), plain)
