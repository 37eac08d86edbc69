"""The images of one split by index: kept in memory, decoded from files, or fitted to a recipe."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.data.images import Orient, decode_image
from alexnet.data.raw import Rows, Stored
from alexnet.interrupt import outspoken
from alexnet.recipe import Recipe
from alexnet.terminal import progress

RESIDENT_BYTES = 2 << 30  # a slice smaller than this is decoded once and kept


@dataclass(frozen=True)
class Slice:
    """One split. labels (N,) int64; pixels uint8 (N, size, size, C), or what they are decoded from:
    files, or images stored at this size; `rows` says which of them are this split's, if not all;
    `orient` is what is done about the EXIF orientation of files. `on_read` is told (ids, pixels) of
    what was read."""

    name: str
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8] | tuple[Path, ...] | Stored
    size: int
    channels: int
    rows: NDArray[np.intp] | None = None
    on_read: Callable[[NDArray[np.integer], NDArray[np.uint8]], None] | None = None
    orient: Orient = "ignore"

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Stored images by index. Shapes: (M,) -> uint8 (M, size, size, C)."""
        pixels = self._read(ids if self.rows is None else self.rows[ids])
        if self.on_read is not None:
            self.on_read(ids, pixels)
        return pixels

    def _read(self, ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        if isinstance(self.pixels, np.ndarray):
            out = np.empty((len(ids), *self.pixels.shape[1:]), np.uint8)
            for row, i in zip(out, ids.tolist(), strict=True):  # two threads do not share `take`
                row[:] = self.pixels[i]
            return out
        if not isinstance(self.pixels, tuple):
            return self.pixels.read(ids)
        files = [self.pixels[i] for i in ids]
        size, channels, orient = self.size, self.channels, self.orient
        return np.stack(
            [decode_image(f, channels=channels, size=size, orient=orient) for f in files]
        )

    def take(self, ids: NDArray[np.integer]) -> "Slice":
        """Some images of the split."""
        rows = np.asarray(ids if self.rows is None else self.rows[ids], np.intp)
        return replace(self, labels=self.labels[ids], rows=rows, on_read=None)

    def resident(self, workers: int) -> "Slice":
        """The same slice with its pixels in memory, where they fit."""
        n_bytes = len(self) * self.size * self.size * self.channels
        if isinstance(self.pixels, np.ndarray) or n_bytes > RESIDENT_BYTES:
            return self
        pixels = np.empty((len(self), self.size, self.size, self.channels), np.uint8)
        chunks = [np.arange(i, min(i + 64, len(self))) for i in range(0, len(self), 64)]
        with (
            ThreadPoolExecutor(max(workers, 1)) as pool,
            progress(f"decoding {self.name}", total=len(self), unit="images") as shown,
        ):
            try:
                for ids, read in zip(chunks, pool.map(outspoken(self.read), chunks), strict=True):
                    pixels[ids] = read
                    shown.advance(len(ids))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return Slice(self.name, self.labels, pixels, self.size, self.channels)


class Fitted:
    """Arrays as a recipe stores them, when asked for: its channels, shorter side to size, centre
    square. shape is (N, size, size, C)."""

    def __init__(self, images: NDArray[np.uint8] | Rows, recipe: Recipe) -> None:
        self._images, self._size, self._channels = images, recipe.size, recipe.channels
        size, channels = recipe.size, recipe.channels
        self.shape: tuple[int, ...] = (images.shape[0], size, size, channels)

    def read(self, ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Shapes: (M,) -> uint8 (M, size, size, C)."""
        images = self._images[ids]
        _, height, width, channels = images.shape
        if channels == 1 and self._channels == 3:
            images = images.repeat(3, axis=3)
        elif channels == 3 and self._channels == 1:
            luma = images @ np.array([0.299, 0.587, 0.114])
            images = luma.round().astype(np.uint8)[..., None]
        size, short = self._size, min(height, width)
        if short != size:
            images = _resize(images, (round(height * size / short), round(width * size / short)))
        top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
        return np.ascontiguousarray(images[:, top : top + size, left : left + size])


def _resize(images: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    x = F.interpolate(x, shape, mode="bilinear", antialias=True, align_corners=False)
    return x.permute(0, 2, 3, 1).numpy()
