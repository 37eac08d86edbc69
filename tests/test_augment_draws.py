"""On what an image's crop depends: its number, the epoch and its chunk, and not its batch."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data import Preprocess, augment
from alexnet.errors import UsageError
from alexnet.recipe import Recipe
from crops import CROP, SIZE, measured, photos, pictures, untouched


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
    with pytest.raises(UsageError, match=r"crop_chunk 4 .* flip_rule='random'"):
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


def test_augmentation_depends_on_the_image_and_the_epoch_and_not_on_the_batch() -> None:
    recipe = Recipe(size=12, crop=10, shift=2, flip=True, rotate=10.0, scale=0.1, cutout=3)
    images, ids = photos(8, 12), np.arange(8)
    whole = augment(images, ids, 4, recipe, untouched(12, 10))
    part = augment(images[[5, 2]], ids[[5, 2]], 4, recipe, untouched(12, 10))
    torch.testing.assert_close(part, whole[[5, 2]], rtol=1e-6, atol=1e-4)
    assert not torch.equal(augment(images, ids, 5, recipe, untouched(12, 10)), whole)
    other = recipe.replace(seed=1)
    assert not torch.equal(augment(images, ids, 4, other, untouched(12, 10)), whole)
