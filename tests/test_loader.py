"""The order in which images are read: another one every epoch, and kept by those who read ahead."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.data import (
    Split,
    batches_in_order,
    read_batch,
    steps_per_epoch,
    training_batches,
)
from alexnet.errors import DataError
from alexnet.recipe import Recipe


def numbered(n: int) -> Split:
    pixels = np.repeat(np.arange(n, dtype=np.uint8), 4).reshape(n, 2, 2, 1)
    return Split("train", np.arange(n), pixels, 2, 1)


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
    with pytest.raises(DataError, match="batch_size=20"):
        steps_per_epoch(20, 21)


class Stuck:
    """Images whose readers do not get done before they are released: those of busy machines."""

    def __init__(self, images: Any, release: threading.Event) -> None:
        self.images, self.release, self.shape = images, release, images.shape

    def read(self, ids: Any, out: Any = None) -> Any:
        if threading.current_thread().name.startswith("reader"):
            self.release.wait(60)
        if out is None:
            return self.images[ids]
        out[:] = self.images[ids]
        return out


def stuck(n: int, release: threading.Event) -> Split:
    split = numbered(n)
    return replace(split, pixels=Stuck(split.pixels, release))


def test_who_waits_for_a_batch_does_what_readers_do_not_get_done() -> None:
    release = threading.Event()
    recipe, split = Recipe(batch_size=6, size=2, crop=2, channels=1), stuck(20, release)
    batches = training_batches(split, recipe, range(7), 2, torch.device("cpu"))
    seen = [next(batches) for _ in range(7)]
    release.set()
    assert next(batches, None) is None
    for step, batch in enumerate(seen):
        alone = read_batch(numbered(20), recipe, step)
        assert batch.ids.tolist() == alone.ids.tolist()
        assert torch.equal(batch.images, alone.images)


def test_blocks_in_order_without_their_readers() -> None:
    release = threading.Event()
    blocks = batches_in_order(stuck(20, release), range(0, 20, 7), 7, 2, torch.device("cpu"))
    found = [next(blocks) for _ in range(3)]
    release.set()
    assert [b.ids.tolist() for b in found] == [
        list(range(7)),
        list(range(7, 14)),
        list(range(14, 20)),
    ]
    assert [b.step for b in found] == [0, 1, 2]
    assert all((b.images[:, 0, 0, 0].numpy() == b.ids).all() for b in found)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reader_raises_comes_with_its_batch(workers: int) -> None:
    def read(ids: Any, pixels: Any) -> None:
        if 13 in ids:
            raise DataError("thirteen")

    split = replace(numbered(20), on_read=read)
    blocks = batches_in_order(split, range(0, 20, 5), 5, workers, torch.device("cpu"))
    assert [next(blocks).ids.tolist() for _ in range(2)] == [list(range(5)), list(range(5, 10))]
    with pytest.raises(DataError, match="thirteen"):
        next(blocks)


def test_images_that_are_left_out_after_they_were_read_ahead_are_not_given() -> None:
    recipe, split = Recipe(batch_size=6, size=2, crop=2, channels=1), numbered(20)
    out: list[int] = []
    batches = training_batches(
        split, recipe, range(3), 2, torch.device("cpu"), left_out=lambda step: out
    )
    first = next(batches)
    plain = [read_batch(split, recipe, step) for step in range(3)]
    out.append(int(plain[2].ids[0]))
    rest = list(batches)
    assert torch.equal(first.images, plain[0].images)
    assert out[0] not in rest[1].ids
    assert (
        rest[1].ids.tolist() == read_batch(split, recipe, 2, left_out=lambda step: out).ids.tolist()
    )
    assert (rest[1].images[:, 0, 0, 0].numpy() == rest[1].ids).all()
