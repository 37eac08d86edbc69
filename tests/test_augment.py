"""What the network is shown of an image: crops and views under every rule, moved, turned, cut."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data import Preprocess, Statistics, augment, draws
from alexnet.errors import UsageError
from alexnet.recipe import Recipe
from crops import CROP, RULES, SIZE, measured, photos, pictures, place_of, untouched

# Rules


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


# Shifted, turned, zoomed and cut out


@pytest.mark.parametrize(("size", "crop", "shift"), [(9, 9, 0), (9, 6, 0), (9, 9, 2), (9, 7, 3)])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_shift_and_flip_against_a_loop(size: int, crop: int, shift: int, flip: bool) -> None:
    recipe = Recipe(size=size, crop=crop, shift=shift, flip=flip, seed=3)
    n, epoch = 40, 5
    images, ids = photos(n, size), np.arange(100, 100 + n)
    found = augment(images, ids, epoch, recipe, untouched(size, crop))
    span = size + 2 * shift - crop + 1
    places, mirrors = set(), 0
    for i in range(n):
        key = np.array([ids[i]])
        top = int(draws.uniform(3, epoch, key, draws.CROP_Y)[0] * span)
        left = int(draws.uniform(3, epoch, key, draws.CROP_X)[0] * span)
        mirrored = flip and draws.uniform(3, epoch, key, draws.FLIP)[0] < 0.5
        expected = np.zeros((3, crop, crop), np.float32)
        for y, x in itertools.product(range(crop), repeat=2):
            row, column = top + y - shift, left + x - shift
            if 0 <= row < size and 0 <= column < size:
                place = crop - 1 - x if mirrored else x
                expected[:, y, place] = images[i, row, column]
        np.testing.assert_array_equal(found[i].numpy(), expected)
        places.add((top, left))
        mirrors += bool(mirrored)
    assert len(places) > 1 or span == 1
    assert 5 < mirrors < 35 or not flip


def test_cutout_hides_a_square_in_the_mean_colour() -> None:
    recipe, images = Recipe(size=12, crop=12, cutout=4, seed=1), photos(60, 12)
    colours = Statistics((-1.0, -2.0, -3.0), (2.0, 2.0, 2.0), ())
    preprocess = Preprocess(12, 12, 3, colours)
    whole = augment(images, np.arange(60), 0, recipe.replace(cutout=0), preprocess)
    found = augment(images, np.arange(60), 0, recipe, preprocess)
    sizes = set()
    for i in range(60):
        hidden = found[i, 0] == 0  # which no pixel is: they are 1 and more, the mean is below 0
        rows, columns = hidden.any(1), hidden.any(0)
        assert hidden.sum() == rows.sum() * columns.sum() > 0
        assert (found[i][:, hidden] == 0).all()
        assert torch.equal(found[i][:, ~hidden], whole[i][:, ~hidden])
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert max(sizes) == (4, 4)


def test_rotation_and_scale_stay_within_their_bounds() -> None:
    """A dot right of the centre turns by at most the angle, both ways; a zoom moves it outwards."""
    image = torch.zeros(200, 41, 41, 1, dtype=torch.uint8)
    image[:, 19:22, 34:37] = 255
    ids, line = np.arange(200), torch.arange(41) - 20.0

    def centre(**fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = Recipe(size=41, crop=41, channels=1, **fields)
        x = augment(image, ids, 0, recipe, untouched(41, 41, 1))[:, 0]
        return (x.sum(1) * line).sum(1) / x.sum((1, 2)), (x.sum(2) * line).sum(1) / x.sum((1, 2))

    x, y = centre(rotate=20.0)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert 17 < float(angles.max()) < 20.5
    assert -20.5 < float(angles.min()) < -17
    torch.testing.assert_close((x**2 + y**2).sqrt(), torch.full((200,), 15.0), rtol=0.02, atol=0)
    x, y = centre(scale=0.2)
    assert 12 < float(x.min()) < 13
    assert 17.5 < float(x.max()) < 19
    assert float(y.abs().max()) < 0.2


def test_views_are_separate_crops() -> None:
    preprocess = Preprocess(9, 6, 3, Statistics((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), ()))
    images = photos(4, 9)
    x = (images.permute(0, 3, 1, 2).float() - torch.tensor([100.0, 110, 120])[:, None, None]) / (
        torch.tensor([50.0, 60, 70])[:, None, None]
    )
    corners = [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)]
    crops = [x[:, :, top : top + 6, left : left + 6] for top, left in corners]
    ten = preprocess.views(images, 10)
    assert ten.shape == (10, 4, 3, 6, 6)
    for i, crop in enumerate(crops):
        torch.testing.assert_close(ten[i], crop, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ten[5 + i], crop.flip(3), rtol=1e-6, atol=1e-6)
    assert torch.equal(preprocess.views(images, 5), ten[:5])
    assert torch.equal(preprocess.views(images, 1), ten[:1])
    with pytest.raises(UsageError, match="views=1"):
        untouched(6, 6).views(images, 5)
