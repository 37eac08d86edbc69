"""Batches as a pure function of (data, recipe, seed, step), read ahead by threads."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import draws
from alexnet.data.bad_images import most_left_out
from alexnet.data.device import DeviceSplit, copy_to_device
from alexnet.data.read_ahead import PixelsAhead, read_ahead
from alexnet.data.splits import Split, Unread
from alexnet.errors import DataError, Unreadable
from alexnet.recipe import Recipe
from alexnet.support.options import option

LeftOut = Callable[[int], Collection[int]]  # step -> the indices that this update leaves out
Take = Callable[[NDArray[np.intp]], tuple[NDArray[np.uint8], Unread]]  # images by index


@dataclass(frozen=True)
class Share:
    """The images of every batch that this process reads.

    A batch is cut into `accumulate` micro-batches, and each of these into `ranks` slices; this
    process has the one numbered `rank`. Slice sizes differ by one at most.
    """

    rank: int = 0
    ranks: int = 1
    accumulate: int = 1

    def places(self, size: int) -> list[range]:
        """The places of this process in a batch of `size` images: a range for each micro-batch."""
        if size < self.ranks * self.accumulate:
            raise DataError(
                f"a batch of {size} images has none for some of {self.ranks} processes with "
                f"accumulate {self.accumulate}: use "
                f"{option('batch_size', self.ranks * self.accumulate)} or more, or fewer processes"
            )
        micro = [_cut(range(size), self.accumulate, i) for i in range(self.accumulate)]
        return [_cut(one, self.ranks, self.rank) for one in micro]


def _cut(whole: range, count: int, i: int) -> range:
    return whole[len(whole) * i // count : len(whole) * (i + 1) // count]


@dataclass(frozen=True)
class Piece:
    """This process's images of a micro-batch: `rows` of its `Batch`, `places` in the whole batch.

    `before` is 1 where the first row is an extra image that is only mixed into the second.
    """

    rows: slice
    places: range
    before: int = 0


@dataclass(frozen=True)
class Batch:
    """images uint8 (N, size, size, C), labels (N,) int64, ids (N,) indices into the split.

    These are the `pieces` (none: all) of a batch of `size` images (0: only these). `of_all` (size,)
    are the labels of the whole batch, on the CPU, and `whole` (size,) its ids. `leaders` (N,) are
    the ids whose crop each image shares (see `crop_chunk`), where `ids` do not determine them.
    `unread` are images that could not be read, and that others replace.
    """

    step: int
    epoch: int
    ids: NDArray[np.intp]
    images: Tensor
    labels: Tensor
    size: int = 0
    pieces: tuple[Piece, ...] = ()
    leaders: NDArray[np.intp] | None = None
    of_all: Tensor | None = None
    whole: NDArray[np.intp] | None = None
    unread: Unread = field(default_factory=dict)

    def pinned(self) -> "Batch":
        """The batch in page-locked memory, which a GPU copies without the CPU."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in an epoch. The rest of each shuffle is left out, other images each time."""
    if n < batch_size:
        raise DataError(
            f"{n} training images are fewer than one batch of {batch_size}: use "
            f"{option('batch_size', n)}"
        )
    return n // batch_size


_order = lru_cache(maxsize=2)(draws.permutation)


def read_batch(
    split: Split,
    recipe: Recipe,
    step: int,
    share: Share | None = None,
    kept: DeviceSplit | None = None,
    left_out: LeftOut = lambda step: (),
    take: Take | None = None,
) -> Batch:
    """The batch of update `step` (from 0), or this process's share: a function of its arguments.

    An image that is left out, or that cannot be read where the recipe skips such images, is
    replaced by the next one in the order of its epoch. Raises Unreadable where the recipe stops,
    and where more than its share of the split cannot be read. `take` reads the images of the batch
    (default: `Split.try_read`).
    """
    size, share = recipe.batch_size, share or Share(accumulate=recipe.accumulate)
    plan = _plan(recipe, len(split), step, share, left_out)
    whole, missing = plan.whole, plan.missing
    ids, unread = whole[plan.rows], dict[int, tuple[str, str]]()
    if kept is not None:
        images, labels = kept.take(ids)
    else:
        pixels, failed = (take or split.try_read)(ids)
        while failed:
            unread |= failed
            if recipe.bad_images == "stop" or len(unread) > most_left_out(
                recipe.bad_share, len(split)
            ):
                raise Unreadable(split.name, unread)
            missing |= failed.keys()
            earlier, whole = ids, _replace_missing(plan.order, plan.start, size, missing)
            ids = whole[plan.rows]
            replaced = np.flatnonzero(ids != earlier)
            pixels[replaced], failed = split.try_read(ids[replaced])
        images, labels = torch.from_numpy(pixels), torch.from_numpy(split.labels[ids])
    leaders = whole[np.asarray(plan.rows) % size // recipe.crop_chunk * recipe.crop_chunk]
    of_all = torch.from_numpy(split.labels[whole])
    return Batch(
        step, plan.epoch, ids, images, labels, size, plan.pieces, leaders, of_all, whole, unread
    )


@dataclass(frozen=True)
class _Plan:
    """The images of a batch: `whole` (batch_size,) are the ids for all processes, from place
    `start` of the `order` of its `epoch`, without those `missing`; this process has the `rows` of
    `whole`, in `pieces`."""

    epoch: int
    start: int
    order: NDArray[np.intp]
    missing: set[int]
    whole: NDArray[np.intp]
    rows: list[int]
    pieces: tuple[Piece, ...]


def _plan(recipe: Recipe, n: int, step: int, share: Share, left_out: LeftOut) -> _Plan:
    size = recipe.batch_size
    epoch, place = divmod(step, steps_per_epoch(n, size))
    order, missing = _order(recipe.seed, epoch, n), set(left_out(step))
    whole = _replace_missing(order, place * size, size, missing)
    # Mixing needs the image before, which another process may have.
    before = int(bool(recipe.mixup or recipe.cutmix) and share.ranks * share.accumulate > 1)
    pieces: list[Piece] = []
    rows: list[int] = []
    for places in share.places(size):
        pieces.append(Piece(slice(len(rows), len(rows) + before + len(places)), places, before))
        rows += [*([places.start - 1] * before), *places]
    return _Plan(epoch, place * size, order, missing, whole, rows, tuple(pieces))


def _replace_missing(
    order: NDArray[np.intp], start: int, size: int, missing: Collection[int]
) -> NDArray[np.intp]:
    """`size` ids of an epoch's order, each missing one replaced by the next that is not missing."""
    whole = order[start : start + size]
    if not missing:
        return whole
    out = np.array(sorted(missing), np.intp)
    if len(out) >= len(order):
        raise DataError("no image of train can be read: check the folder of the data")
    whole = whole.copy()
    for row in np.flatnonzero(np.isin(whole, out)):
        place = start + int(row)
        while whole[row] in missing:
            place += 1
            whole[row] = order[place % len(order)]
    return whole


def feed(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches on the device. On CUDA a batch is copied while the previous one is
    computed; this needs page-locked memory, see `Batch.pinned`."""
    if device.type != "cuda":
        yield from batches
        return
    copies, waiting = torch.cuda.Stream(device), None  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copies):
            images = batch.images.to(device, non_blocking=True)
            labels = batch.labels.to(device, non_blocking=True)
            copied = copies.record_event()
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_event(copied)
        for tensor in (images, labels):  # the copying stream must not reuse its memory yet
            tensor.record_stream(torch.cuda.current_stream(device))
        waiting = replace(batch, images=images, labels=labels)
    if waiting is not None:
        yield waiting


def training_batches(
    train: Split,
    recipe: Recipe,
    steps: range,
    workers: int,
    device: torch.device,
    share: Share | None = None,
    keep: bool | None = None,
    left_out: LeftOut = lambda step: (),
    spare: int | None = None,
) -> Iterator[Batch]:
    """The batches of the steps in order, on the device.

    The split is copied to the device where it fits into the `spare` bytes (None: the GPU's free
    memory) and is used at least twice, or where `keep` is true. Otherwise threads read ahead.
    `left_out` may grow meanwhile; a batch then follows it as of some time between its reading and
    its use.
    """
    if keep is None:
        keep = len(steps) >= 2 * steps_per_epoch(len(train), recipe.batch_size)
    skips = recipe.bad_images == "skip"
    if keep and (kept := copy_to_device(train, device, workers, skips, spare)) is not None:

        def take(step: int) -> Batch:
            batch = read_batch(train, recipe, step, share, kept, left_out)
            return replace(batch, unread=kept.unread) if step == steps.start else batch

        return map(take, steps)

    if device.type == "cuda":

        def read(step: int) -> Batch:
            return read_batch(train, recipe, step, share, left_out=left_out).pinned()

        return feed(read_ahead(read, steps, workers), device)
    return _batches_on_cpu(train, recipe, steps, workers, share, left_out)


def _batches_on_cpu(
    train: Split,
    recipe: Recipe,
    steps: range,
    workers: int,
    share: Share | None,
    left_out: LeftOut,
) -> Iterator[Batch]:
    """The batches of the steps on the CPU, which also computes."""
    own = share or Share(accumulate=recipe.accumulate)

    def expected_ids(step: int) -> NDArray[np.intp]:
        plan = _plan(recipe, len(train), step, own, left_out)
        return plan.whole[plan.rows]

    with PixelsAhead(train, map(expected_ids, steps), workers) as ahead:
        for step in steps:
            yield read_batch(train, recipe, step, share, left_out=left_out, take=ahead.take)


def batches_in_order(
    split: Split,
    starts: range,
    size: int,
    workers: int,
    device: torch.device,
    unread: Unread | None = None,
) -> Iterator[Batch]:
    """`read_in_order` from each of the starts, read ahead by threads; in page-locked memory for a
    GPU."""
    if device.type == "cuda":
        yield from read_ahead(
            lambda start: read_in_order(split, start, size, unread).pinned(), starts, workers
        )
        return
    blocks = (_in_order(split, start, size, unread) for start in starts)
    with PixelsAhead(split, blocks, workers) as ahead:
        for start in starts:
            yield read_in_order(split, start, size, unread, ahead.take)


def read_in_order(
    split: Split,
    start: int,
    size: int,
    unread: Unread | None = None,
    take: Take | None = None,
) -> Batch:
    """Images start .. start + size of a split, in order, for evaluation.

    With `unread`, the images in it are left out, and those that cannot be read are added to it;
    without it they raise Unreadable. `take` reads the images (default: `Split.try_read`).
    """
    ids = _in_order(split, start, size, unread)
    pixels, missing = (take or split.try_read)(ids)
    if missing:
        if unread is None:
            raise Unreadable(split.name, missing)
        unread.update(missing)
        readable = ~np.isin(ids, list(missing))
        ids, pixels = ids[readable], pixels[readable]
    images = torch.from_numpy(pixels)
    return Batch(start // size, 0, ids, images, torch.from_numpy(split.labels[ids]))


def _in_order(split: Split, start: int, size: int, unread: Unread | None) -> NDArray[np.intp]:
    ids = np.arange(start, min(start + size, len(split)))
    return ids if unread is None else ids[~np.isin(ids, list(unread))]
