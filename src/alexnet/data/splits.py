"""The images of one split by index, and how many of each class go to a split."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.data.drive import SHORT_OF, Drive, DriveAway
from alexnet.data.image_set import ImageFiles, PixelFile, Stored
from alexnet.data.images import Orient, decode_image
from alexnet.errors import DataError, Unreadable
from alexnet.recipe import Recipe
from alexnet.support.signals import report_thread_exit
from alexnet.support.terminal import progress

RESIDENT_BYTES = 2 << 30  # a split smaller than this is decoded once and kept

Unread = dict[int, tuple[str, str]]
"""Images that cannot be read: path and reason, by index in a split."""


@dataclass(frozen=True)
class Split:
    """One split. labels (N,) int64; pixels uint8 (N, size, size, C), or what they are decoded from:
    files, or images stored at this size; `rows` says which of them are this split's, if not all.
    `orient` is what is done about the EXIF orientation of files, `cut_floats` whether float pixels
    are cut to 0..255, and `drive` is where the files lie. `on_read` is called with (ids, pixels) of
    what was read."""

    name: str
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8] | ImageFiles | Stored
    size: int
    channels: int
    rows: NDArray[np.intp] | None = None
    on_read: Callable[[NDArray[np.integer], NDArray[np.uint8]], None] | None = None
    orient: Orient = "ignore"
    drive: Drive | None = None
    cut_floats: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Stored images by index. Shapes: (M,) -> uint8 (M, size, size, C). Raises Unreadable."""
        pixels, unread = self.try_read(ids)
        if unread:
            raise Unreadable(self.name, unread)
        return pixels

    def try_read(
        self, ids: NDArray[np.integer], out: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.uint8], Unread]:
        """The same around what cannot be read: black images, and which they are. DataError for
        what is no image's own fault. The images are written to `out` (M, size, size, C), where it
        is given."""
        if out is None:
            out = np.empty((len(ids), self.size, self.size, self.channels), np.uint8)
        pixels, unread = out, self._try_read(ids, out)
        if self.on_read is not None:
            readable = ~np.isin(ids, list(unread))
            self.on_read(ids[readable], pixels[readable])
        return pixels, unread

    def _try_read(self, ids: NDArray[np.integer], out: NDArray[np.uint8]) -> Unread:
        if not isinstance(self.pixels, ImageFiles):
            try:
                self._stored(ids, out)
                return {}
            except DataError as error:
                if isinstance(error.__cause__, OSError):  # of a file that holds many
                    raise
        unread: Unread = {}
        for row, i in zip(out, ids.tolist(), strict=True):
            try:
                row[:] = self._one(i)
            except DataError as error:
                row[:] = 0
                cause = error.__cause__
                short = isinstance(cause, OSError) and cause.errno in SHORT_OF
                if short or isinstance(cause, MemoryError) or isinstance(error, DriveAway):
                    raise
                unread[i] = self._called(i, error)
        return unread

    def _one(self, i: int) -> NDArray[np.uint8]:
        if not isinstance(self.pixels, ImageFiles):
            stored = np.empty((1, self.size, self.size, self.channels), np.uint8)
            self._stored(np.array([i]), stored)
            first: NDArray[np.uint8] = stored[0]
            return first
        files, row = self.pixels, i if self.rows is None else int(self.rows[i])

        def decode() -> NDArray[np.uint8]:
            return decode_image(
                files.source(row), channels=self.channels, size=self.size, orient=self.orient,
                name=files.path(row), cut_floats=self.cut_floats,
            )  # fmt: skip

        return decode() if self.drive is None else self.drive.read(files.on_disk(row), decode)

    def _called(self, i: int, error: DataError) -> tuple[str, str]:
        """What an image is called, and what is wrong with it."""
        reason = str(error)
        if not isinstance(self.pixels, ImageFiles):
            return f"image {i} of {self.name}", reason
        path = self.pixels.path(i if self.rows is None else int(self.rows[i]))
        return path, reason.removeprefix(f"{path}: ").split("; ")[0]

    def _stored(self, ids: NDArray[np.integer], out: NDArray[np.uint8]) -> None:
        ids = ids if self.rows is None else self.rows[ids]
        assert not isinstance(self.pixels, ImageFiles)
        if isinstance(self.pixels, np.ndarray):
            for row, i in zip(out, ids.tolist(), strict=True):  # two threads do not share `take`
                row[:] = self.pixels[i]
        else:
            self.pixels.read(ids, out)

    def take(self, ids: NDArray[np.integer]) -> "Split":
        """Some images of the split."""
        rows = np.asarray(ids if self.rows is None else self.rows[ids], np.intp)
        return replace(self, labels=self.labels[ids], rows=rows, on_read=None)

    def resident(
        self,
        workers: int,
        most: float = RESIDENT_BYTES,
        unread: Callable[[Unread], None] | None = None,
        left_out: Collection[int] = (),
    ) -> "Split":
        """The same split with its pixels in memory, where they are `most` bytes or fewer.

        Those `left_out` are not read, and stay black; so do those that cannot be read, where
        somebody wants to be told of them by `unread`: else Unreadable is raised.
        """
        n_bytes = len(self) * self.size * self.size * self.channels
        if isinstance(self.pixels, np.ndarray) or n_bytes > most:
            return self
        missing: Unread = {}

        def read(ids: NDArray[np.intp]) -> NDArray[np.uint8]:
            to_read = ~np.isin(ids, list(left_out))
            block, failed = self.try_read(ids[to_read])
            if failed and unread is None:
                raise Unreadable(self.name, failed)
            missing.update(failed)
            if to_read.all():
                return block
            whole = np.zeros((len(ids), *block.shape[1:]), np.uint8)
            whole[to_read] = block
            return whole

        pixels = np.empty((len(self), self.size, self.size, self.channels), np.uint8)
        chunks = [np.arange(i, min(i + 64, len(self))) for i in range(0, len(self), 64)]
        with (
            ThreadPoolExecutor(max(workers, 1)) as pool,
            progress(f"decoding {self.name}", total=len(self), unit="images") as shown,
        ):
            try:
                for ids, block in zip(
                    chunks, pool.map(report_thread_exit(read), chunks), strict=True
                ):
                    pixels[ids] = block
                    shown.advance(len(ids))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if missing and unread is not None:
            unread(dict(sorted(missing.items())))
        return Split(self.name, self.labels, pixels, self.size, self.channels)


class Fitted:
    """Arrays as a recipe stores them, when asked for: its channels, shorter side to size, centre
    square. shape is (N, size, size, C)."""

    def __init__(self, images: NDArray[np.uint8] | PixelFile, recipe: Recipe) -> None:
        self._images, self._size, self._channels = images, recipe.size, recipe.channels
        size, channels = recipe.size, recipe.channels
        self.shape: tuple[int, ...] = (images.shape[0], size, size, channels)

    def read(
        self, ids: NDArray[np.integer], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Images by index, into `out`, or a new array. Shapes: (M,) -> uint8
        (M, size, size, C)."""
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
        square = images[:, top : top + size, left : left + size]
        if out is None:
            return np.ascontiguousarray(square)
        out[:] = square
        return out


def _resize(images: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    x = F.interpolate(x, shape, mode="bilinear", antialias=True, align_corners=False)
    return x.permute(0, 2, 3, 1).numpy()
