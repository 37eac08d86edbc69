"""The order in which images are read: another one every epoch, and kept by those who read ahead."""

import numpy as np
import pytest

from alexnet.data.loader import read_ahead, read_batch, steps_per_epoch
from alexnet.data.slices import Slice
from alexnet.errors import DataError
from alexnet.recipe import Recipe


def numbered(n: int) -> Slice:
    pixels = np.repeat(np.arange(n, dtype=np.uint8), 4).reshape(n, 2, 2, 1)
    return Slice("train", np.arange(n), pixels, 2, 1)


def test_an_epoch_shows_each_image_at_most_once_and_each_epoch_another_order() -> None:
    recipe, split = Recipe(batch_size=6, size=2, crop=2, channels=1), numbered(20)
    assert steps_per_epoch(20, 6) == 3
    epochs = []
    for epoch in range(3):
        batches = [read_batch(split, recipe, step) for step in range(3 * epoch, 3 * epoch + 3)]
        assert {b.epoch for b in batches} == {epoch}
        ids = np.concatenate([b.ids for b in batches])
        assert len(set(ids)) == 18
        for b in batches:
            assert (b.images[:, 0, 0, 0].numpy() == b.ids).all()
            assert (b.labels.numpy() == b.ids).all()
        epochs.append(ids.tolist())
    assert epochs[0] != epochs[1] != epochs[2]
    with pytest.raises(DataError, match="--batch-size 20"):
        steps_per_epoch(20, 21)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_read_ahead_keeps_the_order_and_raises(workers: int) -> None:
    assert list(read_ahead(lambda i: i * i, range(50), workers)) == [i * i for i in range(50)]

    def fail(i: int) -> int:
        if i == 7:
            raise DataError("seven")
        return i

    seen: list[int] = []
    with pytest.raises(DataError, match="seven"):
        seen.extend(read_ahead(fail, range(50), workers))
    assert seen == list(range(7))
