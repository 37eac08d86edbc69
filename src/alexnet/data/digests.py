"""Which images a run was trained and validated on: two 64-bit digests of each one's pixels.

Digests are of images as a recipe stores them (its size, channels and orientation), so a copy is
known by its picture, whatever its file, name, folder or format.

    exact    the same pixels: a class folder, a packed set of raw pixels and a lossless copy of an
             image have one digest
    perceptual  the same picture, nearly: a copy that was compressed anew, resized or mirrored has a
             digest that differs in a few bits (see `copies`); in files it is called `look`
"""

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alexnet.data.copies import near_any, perceptual_digest
from alexnet.data.splits import Split

BEFORE = "before"  # beside a run's splits: what the weights that it began with had learnt from
UNREAD = 0  # the digest of an image that was not read yet
AT_ONCE = 64  # images a thread reads and digests at a time

Digests = NDArray[np.int64]


def digest_images(pixels: NDArray[np.uint8]) -> Digests:
    """The digest of each image, never `UNREAD`. Shapes: uint8 (N, H, W, C) -> int64 (N,).

    BLAKE2b of 8 bytes: among a million images and a million others, two different ones share a
    digest with a chance of 1 in 18 million.
    """
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    words = [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]
    digests = np.frombuffer(b"".join(words), np.int64).copy()
    digests[digests == UNREAD] = 1
    return digests


def perceptual_digests(pixels: NDArray[np.uint8]) -> Digests:
    """The perceptual digest of each image, 0 of one with too little in it. Shapes: uint8
    (N, H, W, C) -> int64 (N,)."""
    return np.array([perceptual_digest(image) for image in pixels], np.uint64).view(np.int64)


@dataclass(frozen=True)
class SplitDigests:
    """Of N images, `exact` and `perceptual` (N,) int64; `UNREAD` where one was not read yet."""

    exact: Digests
    perceptual: Digests

    @classmethod
    def unread(cls, n: int) -> "SplitDigests":
        return cls(np.full(n, UNREAD, np.int64), np.full(n, UNREAD, np.int64))

    def note(self, ids: NDArray[np.integer], pixels: NDArray[np.uint8]) -> None:
        """Digests those of some images that were not read before. Shapes: (M,), (M, H, W, C)."""
        new = self.exact[ids] == UNREAD
        if new.any():
            self.perceptual[ids[new]] = perceptual_digests(pixels[new])
            self.exact[ids[new]] = digest_images(pixels[new])

    def read(self, part: Split, ids: NDArray[np.integer], workers: int) -> None:
        """Reads some images of a split, by threads, and notes those that can be read. Shapes:
        (M,)."""

        def read_some(chunk: NDArray[np.integer]) -> None:
            pixels, unread = part.try_read(chunk)
            readable = ~np.isin(chunk, list(unread))
            self.note(chunk[readable], pixels[readable])

        chunks = [ids[i : i + AT_ONCE] for i in range(0, len(ids), AT_ONCE)]
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            try:
                list(pool.map(read_some, chunks))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class ImageDigests:
    """The digests of the images that a run trains and validates on, by split and place in it."""

    def __init__(self, splits: Mapping[str, SplitDigests]) -> None:
        self.splits = dict(splits)

    @classmethod
    def unread(cls, **lengths: int) -> "ImageDigests":
        """Of splits with so many images, none of which was read."""
        return cls({name: SplitDigests.unread(n) for name, n in lengths.items()})

    @property
    def missing(self) -> int:
        """How many images were not read yet."""
        own = (split for name, split in self.splits.items() if name != BEFORE)
        return sum(int((split.exact == UNREAD).sum()) for split in own)

    def watch(self, part: Split) -> Split:
        """The same split, which notes each image that is read for the first time."""
        return replace(part, on_read=self.splits[part.name].note)

    def read_all(self, part: Split, workers: int, gone: Collection[int] = ()) -> None:
        """Reads and notes the images of a split that were not read yet, but for the `gone`."""
        digests = self.splits[part.name]
        ids = np.setdiff1d(np.flatnonzero(digests.exact == UNREAD), list(gone))
        digests.read(part, ids, workers)

    def merged(self) -> SplitDigests:
        """All that were read, as one."""
        exact, perceptual = (
            np.concatenate([getattr(split, kind) for split in self.splits.values()])
            for kind in ("exact", "perceptual")
        )
        return SplitDigests(exact[exact != UNREAD], perceptual[exact != UNREAD])

    def to_arrays(self) -> dict[str, Digests]:
        """For a file: `train` and `val`, and `train.look` and `val.look`."""
        exact = {name: split.exact for name, split in self.splits.items()}
        return exact | {f"{name}.look": split.perceptual for name, split in self.splits.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Digests]) -> "ImageDigests":
        """The inverse of `to_arrays`. ValueError for what is none."""
        names = [name for name in arrays if "." not in name]
        splits = {}
        for name in names:
            exact, perceptual = arrays[name], arrays.get(f"{name}.look")
            if perceptual is None or perceptual.shape != exact.shape:
                raise ValueError(f"no look of each image of {name}")
            splits[name] = SplitDigests(exact, perceptual)
        if not splits:
            raise ValueError("no splits")
        return cls(splits)

    @cached_property
    def _known(self) -> Digests:
        every: Digests = np.unique(np.concatenate([s.exact for s in self.splits.values()]))
        return np.asarray(every[every != UNREAD])

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Which exact digests are among those that were read before the first such question.
        Shapes: (M,) -> bool (M,)."""
        if not len(self._known):
            return np.zeros(len(digests), bool)
        places = np.searchsorted(self._known, digests).clip(max=len(self._known) - 1)
        return np.asarray(self._known[places] == digests)

    def has_near(self, perceptual: Digests) -> NDArray[np.bool_]:
        """Which perceptual digests are nearly one of these images'. Shapes: (M,) -> bool (M,)."""
        known = np.concatenate([split.perceptual for split in self.splits.values()])
        return near_any(perceptual.view(np.uint64), known[known != UNREAD].view(np.uint64))
