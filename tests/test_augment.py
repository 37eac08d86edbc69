"""Preprocessing, statistics and augmentation, each against loops, numpy and formulas."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment, colour_noise, mix
from alexnet.data.dataset import open_dataset
from alexnet.data.loader import Batch
from alexnet.data.statistics import Statistics, measure
from alexnet.engine.optim import build_optimizer
from alexnet.engine.train import train_step
from alexnet.errors import UsageError
from alexnet.models.layers import Linear
from alexnet.models.net import Net
from alexnet.recipe import Recipe

RULES = ("std", "mean", "image", "centre", "torchvision")
SIZE, CROP = 11, 6
COVARIANCE = ((2500.0, 1800.0, 900.0), (1800.0, 2100.0, 1200.0), (900.0, 1200.0, 1700.0))


def pictures(n: int, size: int = SIZE, channels: int = 3, seed: int = 1) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (n, size, size, channels), np.uint8))


def measured(channels: int = 3) -> Statistics:
    """Statistics that no two channels or places share."""
    mean_image = np.random.default_rng(7).uniform(90, 160, (SIZE, SIZE, channels))
    return Statistics(
        (101.0, 112.0, 123.0)[:channels],
        (51.0, 62.0, 73.0)[:channels],
        COVARIANCE,
        torch.from_numpy(mean_image.astype(np.float32)),
    )


def untouched(size: int, crop: int, channels: int = 3) -> Preprocess:
    """Preprocessing that leaves the numbers as they are."""
    nothing = Statistics((0.0,) * channels, (1.0,) * channels, COVARIANCE)
    return Preprocess(size, crop, channels, nothing)


def seen(
    image: NDArray[np.float64], rule: str, top: int, left: int, mirrored: bool
) -> NDArray[np.float64]:
    """What the network is shown of one image (size, size, C), pixel by pixel."""
    statistics, edge = measured(image.shape[-1]), (SIZE - CROP) // 2
    assert statistics.image is not None
    mean_image = statistics.image.double().numpy()
    found = np.empty((image.shape[-1], CROP, CROP))
    for y, x in itertools.product(range(CROP), repeat=2):
        row, column = top + y, left + (CROP - 1 - x if mirrored else x)
        pixel = image[row, column]
        if rule == "image":
            value = pixel - mean_image[row, column]
        elif rule == "centre":
            value = pixel - mean_image[edge + y, edge + x]
        elif rule == "mean":
            value = pixel - np.array(statistics.mean)
        elif rule == "std":
            value = (pixel - np.array(statistics.mean)) / np.array(statistics.std)
        else:
            value = (pixel / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
        found[:, y, x] = value
    return found


def place_of(recipe: Recipe, epoch: int, index: int, span: int) -> tuple[int, int, bool]:
    """Top, left and mirrored of one training crop."""
    u = [
        draws.uniform(recipe.seed, epoch, np.array([index]), purpose)[0]
        for purpose in (draws.CROP_Y, draws.CROP_X, draws.FLIP)
    ]
    return int(u[0] * span), int(u[1] * span), recipe.flip and u[2] < 0.5


# Rules


@pytest.mark.parametrize("rule", RULES)
def test_training_crops_under_every_rule_against_a_loop(rule: Any) -> None:
    """The mean image is cut and mirrored with the crop; its centre is neither."""
    recipe = Recipe(size=SIZE, crop=CROP, flip=True, normalize=rule, seed=4)
    images, ids = pictures(30), np.arange(50, 80)
    found = augment(images, ids, 2, recipe, Preprocess(SIZE, CROP, 3, measured(), rule))
    places = [place_of(recipe, 2, int(i), SIZE - CROP + 1) for i in ids]
    assert len({(top, left) for top, left, _ in places}) > 10
    assert 5 < sum(mirrored for *_, mirrored in places) < 25
    for image, crop, place in zip(images, found, places, strict=True):
        expected = seen(image.double().numpy(), rule, *place)
        np.testing.assert_allclose(crop.numpy(), expected, rtol=1e-5, atol=1e-4)


def test_every_place_of_a_crop_is_as_likely_and_half_are_mirrored() -> None:
    """All 6 x 6 of them, the last row and column too; a pixel's value says where it comes from."""
    n, recipe = 7200, Recipe(size=SIZE, crop=CROP, flip=True, seed=9)
    line = torch.arange(SIZE, dtype=torch.uint8)
    red, green = line[:, None].expand(SIZE, SIZE), line.expand(SIZE, SIZE)
    images = torch.stack([red, green, red], 2).expand(n, -1, -1, -1)
    crops = augment(images, np.arange(n), 0, recipe, untouched(SIZE, CROP))
    tops, ends = crops[:, 0, 0, 0], crops[:, 1, 0, [0, -1]]
    mirrored = ends[:, 0] > ends[:, 1]
    places = torch.stack([tops, ends.amin(1), mirrored.float()], 1)
    found, counts = places.unique(dim=0, return_counts=True)
    every = list(itertools.product(range(SIZE - CROP + 1), range(SIZE - CROP + 1), (0, 1)))
    assert [tuple(map(int, place)) for place in found] == every
    expected = n / len(every)
    spread = float(((counts - expected) ** 2).sum() / expected)  # chi squared of 71
    assert spread < 71 + 5 * math.sqrt(2 * 71)


@pytest.mark.parametrize("rule", RULES)
def test_ten_views_are_ten_crops_under_every_rule(rule: str) -> None:
    images, edge = pictures(3), SIZE - CROP
    places = [(edge // 2, edge // 2), (0, 0), (0, edge), (edge, 0), (edge, edge)]
    views = Preprocess(SIZE, CROP, 3, measured(), rule).views(images, 10)
    assert views.shape == (10, 3, 3, CROP, CROP)
    for v, i in itertools.product(range(10), range(3)):
        expected = seen(images[i].double().numpy(), rule, *places[v % 5], v >= 5)
        np.testing.assert_allclose(views[v, i].numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_the_single_view_is_the_first_of_ten(rule: str) -> None:
    preprocess = Preprocess(SIZE, CROP, 3, measured(), rule)
    one, ten = (preprocess.views(pictures(4), count) for count in (1, 10))
    assert torch.equal(one[0], ten[0])


def test_grey_images_get_the_mean_of_the_torchvision_constants() -> None:
    images = pictures(4, channels=1)
    view = Preprocess(SIZE, SIZE, 1, measured(1), "torchvision").views(images, 1)[0]
    middle = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    expected = (images.permute(0, 3, 1, 2).double() / 255 - middle[0]) / middle[1]
    torch.testing.assert_close(view.double(), expected, rtol=1e-5, atol=1e-5)


# Statistics


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
    found = measure(blocks_of(images, seen), ids, colours=True, mean_image=True)
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
    plain = measure(blocks_of(images, []), np.arange(10), colours=False, mean_image=False)
    assert plain.covariance == ()
    assert plain.image is None
    assert plain.image_digest is None
    full = measure(blocks_of(images, []), np.arange(10), colours=True, mean_image=True)
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
        assert described["mean_image"] == found.image_digest


def test_principal_components_are_those_of_the_pixels() -> None:
    """Against the singular values and vectors of the pixels themselves."""
    images = correlated(40)
    found = measure(blocks_of(images, []), np.arange(40), colours=True, mean_image=False)
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


# Normal draws


def test_normal_is_normal() -> None:
    n = 100_000
    z = draws.normal(3, 1, np.arange(n), draws.RED)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n), power
    for bound in (1.0, 2.0, 3.0, 4.0):
        for tail in ((z > bound).mean(), (z < -bound).mean()):
            p = math.erfc(bound / math.sqrt(2)) / 2
            assert abs(tail - p) < 5 * math.sqrt(p / n), bound
    cdf = (1 + np.array([math.erf(v / math.sqrt(2)) for v in np.sort(z)])) / 2
    rank = np.arange(n) / n
    distance = max((cdf - rank).max(), (rank + 1 / n - cdf).max())
    assert distance < 1.95 / math.sqrt(n)  # exceeded once in a thousand


def test_normal_draws_of_other_keys_have_nothing_in_common() -> None:
    ids = np.arange(20_000)
    keys = list(itertools.product((0, 1), (0, 1), (draws.RED, draws.GREEN, draws.BLUE)))
    streams = [draws.normal(seed, epoch, ids, purpose) for seed, epoch, purpose in keys]
    for a, b in itertools.combinations(streams, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(ids))
    assert (draws.normal(0, 0, ids, draws.RED) == streams[0]).all()


# Colour noise


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


# Zoomed crops


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


# Chunks


def test_alternate_flips_show_each_side_as_often() -> None:
    """Every image is as it is in one epoch and mirrored in the next; half of them begin mirrored,
    others with another seed."""
    n, recipe = 400, Recipe(size=8, crop=8, flip=True, flip_rule="alternate", seed=3)
    images = torch.arange(8, dtype=torch.uint8).expand(n, 8, 8)[..., None].repeat(1, 1, 1, 3)
    preprocess = untouched(8, 8)

    def mirrored(epoch: int, recipe: Recipe = recipe) -> NDArray[np.bool_]:
        views = augment(images, np.arange(n), epoch, recipe, preprocess)
        left, right = views[:, 0, 0, 0], views[:, 0, 0, -1]
        assert torch.equal((left - right).abs(), (left - right).abs()[:1].expand(n))
        found: NDArray[np.bool_] = (left > right).numpy()
        return found

    first = mirrored(0)
    assert abs(first.mean() - 0.5) < 0.1
    for epoch in range(1, 5):
        np.testing.assert_array_equal(mirrored(epoch), first ^ (epoch % 2 == 1))
    assert 0.3 < (mirrored(0, recipe.replace(seed=4)) ^ first).mean() < 0.7
    assert not mirrored(1, recipe.replace(flip=False)).any()
    with pytest.raises(UsageError, match=r"crop_chunk 4 .* --flip-rule random"):
        recipe.replace(crop_chunk=4)


def test_images_of_a_chunk_share_crop_and_flip() -> None:
    """One picture many times, so that crops are equal where the draws are."""
    images, ids = pictures(1, 150).expand(18, -1, -1, -1), np.arange(300, 318)
    recipe, preprocess = Recipe(size=150, crop=8, flip=True), untouched(150, 8)
    alone = augment(images, ids, 2, recipe, preprocess)
    assert len({crop.numpy().tobytes() for crop in alone}) == 18
    chunks = augment(images, ids, 2, recipe.replace(crop_chunk=4), preprocess)
    for i in range(18):
        assert torch.equal(chunks[i], alone[i // 4 * 4]), "as the first of its chunk would be"
    assert len({crop.numpy().tobytes() for crop in chunks}) == 5
    other = augment(images, ids, 3, recipe.replace(crop_chunk=4), preprocess)
    assert not torch.equal(other[0], chunks[0])


def test_a_chunk_shares_its_mean_image_and_its_zoom_but_not_its_colour() -> None:
    images, ids = pictures(1).expand(8, -1, -1, -1), np.arange(8)
    fields: dict[str, Any] = {"size": SIZE, "crop": CROP, "flip": True, "crop_chunk": 4}
    for recipe in (Recipe(**fields, normalize="image"), Recipe(**fields, area=0.4)):
        preprocess = Preprocess(SIZE, CROP, 3, measured(), recipe.normalize)
        crops = augment(images, ids, 0, recipe, preprocess)
        assert all(torch.equal(crops[i], crops[i // 4 * 4]) for i in range(8))
        assert not torch.equal(crops[0], crops[4])
        coloured = augment(images, ids, 0, recipe.replace(colour=0.1), preprocess) - crops
        assert len({round(float(offset.mean()), 4) for offset in coloured}) == 8


@pytest.mark.parametrize(
    "fields",
    [
        {"normalize": "image"},
        {"normalize": "centre", "colour": 0.1, "colour_rule": "code"},
        {"area": 0.3, "colour": 0.1, "cutout": 2},
        {"normalize": "torchvision", "shift": 2, "rotate": 9.0, "colour": 0.1},
    ],
)
def test_a_batch_may_be_split_in_any_way(fields: dict[str, Any]) -> None:
    recipe = Recipe(size=SIZE, crop=CROP, flip=True, **fields)
    preprocess = Preprocess(SIZE, CROP, 3, measured(), recipe.normalize)
    images, ids = pictures(9), np.arange(20, 29)
    whole = augment(images, ids, 4, recipe, preprocess)
    for part in ([3], [8, 1], [0, 1, 2, 3, 4, 5], [7, 6, 5]):
        found = augment(images[part], ids[part], 4, recipe, preprocess)
        torch.testing.assert_close(found, whole[part], rtol=1e-5, atol=1e-3)
    assert not torch.allclose(augment(images, ids, 5, recipe, preprocess), whole, atol=1e-2)


# Mixup and cutmix


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


# Refusals


@pytest.mark.parametrize("field", ["shift", "rotate", "scale", "area"])
def test_the_mean_image_goes_with_nothing_that_moves_pixels(field: str) -> None:
    moved: dict[str, Any] = {"shift": 2, "rotate": 5.0, "scale": 0.1, "area": 0.5}
    with pytest.raises(UsageError, match=rf"normalize image .*{field}.*--normalize mean"):
        Recipe(normalize="image", **{field: moved[field]})
    Recipe(normalize="centre", **{field: moved[field]})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mixup": 0.7, "cutmix": 0.6}, ("mixup 0.7", "cutmix 0.6", "more than 1")),
        ({"colour": 0.25, "channels": 1}, ("colour 0.25", "grey")),
        ({"area": 0}, ("area is 0", "above 0")),
        ({"area": 1.5}, ("area is 1.5", "at most 1")),
        ({"area": -0.5}, ("area is -0.5",)),
        ({"mixup": 1.25}, ("mixup is 1.25", "at most 1")),
        ({"cutmix": -0.25}, ("cutmix is -0.25", "0 or more")),
        ({"crop_chunk": 0}, ("crop_chunk is 0", "at least 1")),
        ({"colour": math.nan}, ("colour is nan", "finite")),
        ({"colour_rule": "both"}, ("'both'", "paper, code")),
        ({"normalize": "imagenet"}, ("'imagenet'", "image", "torchvision")),
        ({"bias_lr": -2.0}, ("bias_lr is -2", "0 or more")),
    ],
)
def test_contradictions_are_refused_by_value(
    fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**fields)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["fc8", "fc8=", "=3", "fc8=ten", "fc8=-1", "fc8=1@", "fc8=1@x", "fc=2", "8=2", ""]
)
def test_a_part_rate_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match=r"like fc8=10 or conv1=0@72") as caught:
        Recipe(part_lr=("conv1=0.5", entry))
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize("entry", ["conv", "conv1..", "..conv2", "conv1-conv3", "1", "", "conv1.2"])
def test_a_frozen_part_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match=r"like conv1 or conv1\.\.conv5") as caught:
        Recipe(freeze=(entry,))
    assert repr(entry) in str(caught.value)


def test_an_infinite_part_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="fc8=1e999"):
        Recipe(part_lr=("fc8=1e999",))


def test_part_rates_are_read() -> None:
    recipe = Recipe(part_lr=("fc8=10", "conv1=0.1@67", "conv1=0@72", "conv2=1e-3@2.5"))
    expected = [("fc8", 10, 0), ("conv1", 0.1, 67), ("conv1", 0, 72), ("conv2", 1e-3, 2.5)]
    assert recipe.part_rates == expected
