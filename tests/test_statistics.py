"""Statistics of a data set: numpy's, and no more than was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data import Statistics, measure_statistics, open_dataset
from alexnet.recipe import Recipe
from crops import COVARIANCE, RULES


def blocks_of(images: NDArray[np.uint8], seen: list[int]) -> Any:
    def read(ids: NDArray[np.intp]) -> NDArray[np.uint8]:
        seen.append(len(ids))
        return images[ids]

    return read


def correlated(n: int, channels: int = 3) -> NDArray[np.uint8]:
    """Photos have a light that all channels share."""
    random = np.random.default_rng(3)
    light = random.normal(140, 40, (n, 7, 7, 1))
    own = random.normal(0, [5.0, 15.0, 25.0][:channels], (n, 7, 7, channels))
    return (light + own).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_numpys(channels: int) -> None:
    images, seen = correlated(150, channels), list[int]()
    ids = np.random.default_rng(0).permutation(150)[:141]
    found = measure_statistics(blocks_of(images, seen), ids, colours=True, mean_image=True)
    assert sum(seen) == 141
    assert len(seen) > 1, "more than one block"
    pixels = images[ids].reshape(-1, channels).astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-10)
    covariance = np.cov(pixels.T, ddof=0).reshape(channels, channels)
    np.testing.assert_allclose(np.array(found.covariance), covariance, rtol=1e-5)
    assert found.image is not None
    assert found.image.dtype == torch.float32
    expected = images[ids].astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_array_equal(found.image.numpy(), expected)


def test_nothing_is_measured_that_nobody_asked_for() -> None:
    images = correlated(10)
    plain = measure_statistics(
        blocks_of(images, []), np.arange(10), colours=False, mean_image=False
    )
    assert plain.covariance == ()
    assert plain.image is None
    assert plain.image_digest is None
    full = measure_statistics(blocks_of(images, []), np.arange(10), colours=True, mean_image=True)
    assert (plain.mean, plain.std) == (full.mean, full.std)


@pytest.mark.parametrize("rule", RULES)
def test_a_data_set_measures_what_its_recipe_needs(rule: Any, tree: Path) -> None:
    recipe = Recipe(size=32, crop=28, normalize=rule, colour=0.1 * (rule == "mean"), workers=0)
    data = open_dataset(recipe, tree)
    found, pixels = data.statistics, data.train.read(np.arange(len(data.train)))
    assert bool(found.covariance) == (rule == "mean")
    assert (found.image is not None) == (rule in ("image", "centre"))
    np.testing.assert_allclose(found.mean, pixels.astype(np.float64).mean((0, 1, 2)), rtol=1e-12)
    if found.image is not None:
        np.testing.assert_allclose(found.image.numpy(), pixels.mean(0), rtol=1e-6)
        described = data.describe(found)
        assert described.mean_image == found.image_digest


def test_principal_components_are_those_of_the_pixels() -> None:
    """Against the singular values and vectors of the pixels themselves."""
    images = correlated(40)
    found = measure_statistics(blocks_of(images, []), np.arange(40), colours=True, mean_image=False)
    values, vectors = found.components()
    pixels = images.reshape(-1, 3).astype(np.float64)
    _, singular, rows = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    np.testing.assert_allclose(sorted(values), sorted(singular**2 / len(pixels)), rtol=1e-4)
    for value, vector in zip(values, vectors.T, strict=True):
        row = rows[np.argmin(abs(singular**2 / len(pixels) - value))]
        assert abs(row @ vector) == pytest.approx(1, abs=1e-6)
        assert vector[np.argmax(abs(vector))] > 0


def test_components_are_eigh_up_to_sign_and_never_below_zero() -> None:
    values, vectors = Statistics((), (), COVARIANCE).components()
    expected, columns = np.linalg.eigh(np.array(COVARIANCE))
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(abs(vectors), abs(columns))
    np.testing.assert_allclose(vectors * values @ vectors.T, COVARIANCE, rtol=1e-12)
    grey = ((900.0,) * 3,) * 3  # rank one: rounding leaves two eigenvalues about zero
    values, _ = Statistics((), (), grey).components()
    assert (values >= 0).all()
    assert values.max() == pytest.approx(2700)


def test_the_digest_is_of_the_mean_image() -> None:
    image = torch.rand(4, 4, 3)
    first = Statistics((), (), (), image).image_digest
    assert Statistics((), (), (), image.clone()).image_digest == first
    changed = image.clone()
    changed[3, 1, 2] += 1e-3
    assert Statistics((), (), (), changed).image_digest != first
