"""Which images a run was trained and validated on: a 64-bit digest of each one's pixels.

Digests are of images as a recipe stores them (its size, channels and orientation), so a copy is
known by its picture, whatever its file, name, folder or format: a class folder, a packed set of raw
pixels and a lossless copy of an image have the same digest. A copy that was compressed anew has
another one; see `near_copies` for those.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alexnet.data.slices import Slice

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


def digest_slice(part: Slice, ids: NDArray[np.integer], workers: int) -> Digests:
    """The digests of some images of a slice, read by threads. Shapes: (M,) -> (M,)."""
    chunks = [ids[i : i + AT_ONCE] for i in range(0, len(ids), AT_ONCE)]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        try:
            digests = list(pool.map(lambda chunk: digest_images(part.read(chunk)), chunks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.concatenate(digests) if digests else np.empty(0, np.int64)


class ImageDigests:
    """The digests of the images that a run trains and validates on, by their place in each split.

    `splits` has (N,) int64 for train and for val; `UNREAD` where an image was not read yet.
    """

    def __init__(self, splits: Mapping[str, Digests]) -> None:
        self.splits = dict(splits)

    @classmethod
    def unread(cls, **lengths: int) -> "ImageDigests":
        """Of splits with so many images, none of which was read."""
        return cls({name: np.full(n, UNREAD, np.int64) for name, n in lengths.items()})

    @property
    def missing(self) -> int:
        """How many images were not read yet."""
        return sum(int((digests == UNREAD).sum()) for digests in self.splits.values())

    def watch(self, part: Slice) -> Slice:
        """The same slice, which notes the digest of each image that is read for the first time."""
        digests = self.splits[part.name]

        def note(ids: NDArray[np.integer], pixels: NDArray[np.uint8]) -> None:
            new = digests[ids] == UNREAD
            if new.any():
                digests[ids[new]] = digest_images(pixels[new])

        return replace(part, on_read=note)

    def read_all(self, part: Slice, workers: int) -> None:
        """Reads and notes what of a slice was not read yet."""
        digests = self.splits[part.name]
        ids = np.flatnonzero(digests == UNREAD)
        digests[ids] = digest_slice(part, ids, workers)

    @cached_property
    def _known(self) -> Digests:
        every: Digests = np.unique(np.concatenate([*self.splits.values()]))
        return np.asarray(every[every != UNREAD])

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of some images are among those that were read before the first such question.
        Shapes: (M,) -> bool (M,)."""
        if not len(self._known):
            return np.zeros(len(digests), bool)
        places = np.searchsorted(self._known, digests).clip(max=len(self._known) - 1)
        return np.asarray(self._known[places] == digests)
