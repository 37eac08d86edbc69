"""What is measured of the training images, and travels with the weights."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.support.terminal import progress

BLOCK = 64  # images measured at a time
AT_ONCE = 1 << 16  # pixels summed at a time: few enough to stay in a core's cache

# ImageNet's, as torchvision's weights expect them.
TORCHVISION_MEAN = tuple(255 * x for x in (0.485, 0.456, 0.406))
TORCHVISION_STD = tuple(255 * x for x in (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Statistics:
    """Of stored images on the 0-255 scale: per channel mean and std (C,), covariance of the
    channels over all pixels (C, C) and the mean image float32 (size, size, C) where wanted."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    image: Tensor | None = None

    @property
    def image_digest(self) -> str | None:
        """sha256 of the mean image (16 hex digits)."""
        if self.image is None:
            return None
        return hashlib.sha256(self.image.contiguous().numpy().tobytes()).hexdigest()[:16]

    def components(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Principal components of the channels: eigenvalues (C,), eigenvectors (C, C) in columns.

        The sign of a vector is arbitrary; here its largest number is positive.
        """
        values, vectors = np.linalg.eigh(np.array(self.covariance))
        signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])
        return values.clip(min=0), vectors * signs

    def pca(self) -> dict[str, list[Any]]:
        """`components` for a file: eigenvalues, and the eigenvector of each, to 12 digits, so that
        processors that round otherwise write the same."""
        values, vectors = self.components()
        rows = ([float(f"{x:.12g}") for x in row] for row in [values, *vectors.T])
        first, *others = rows
        return {"eigenvalues": first, "eigenvectors": others}


class Sums:
    """Sums of whole numbers that statistics are made of, so exact in whatever order they come.

    The products of different channels (`colours`) and the mean image are given only where they are
    wanted.
    """

    def __init__(self, shape: tuple[int, ...], *, colours: bool = True, image: bool = True) -> None:
        self.images, self.colours = 0, colours
        self.pixels = 0
        self.totals = np.zeros(shape[-1], np.int64)
        self.products = np.zeros((shape[-1],) * 2, np.int64)
        self.image = np.zeros(shape, np.int64) if image else None

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Takes in uint8 (N, H, W, C)."""
        self.images += len(pixels)
        flat = pixels.reshape(-1, pixels.shape[-1])
        self.pixels += len(flat)
        for start in range(0, len(flat), AT_ONCE):  # far below 2^53 each, so exact
            wide = flat[start : start + AT_ONCE].astype(np.float64)
            self.totals += (np.ones(len(wide)) @ wide).astype(np.int64)
            self.products += (wide.T @ wide).astype(np.int64)
        if self.image is not None:
            for one in pixels:
                self.image += one

    def merge(self, other: "Sums") -> None:
        self.images += other.images
        self.pixels += other.pixels
        self.totals += other.totals
        self.products += other.products
        if self.image is not None and other.image is not None:
            self.image += other.image

    def statistics(self) -> Statistics:
        n = self.pixels
        mean = self.totals / n
        std = np.sqrt(self.products.diagonal() / n - mean**2)
        covariance: tuple[tuple[float, ...], ...] = ()
        if self.colours:
            spread = self.products / n - np.outer(mean, mean)
            covariance = tuple(map(tuple, spread.tolist()))
        image = None
        if self.image is not None:
            image = torch.from_numpy((self.image / self.images).astype(np.float32))
        return Statistics(tuple(mean.tolist()), tuple(std.tolist()), covariance, image)

    def to_bytes(self) -> bytes:
        """All of it as an .npz, for a checkpoint."""
        assert self.image is not None
        out = io.BytesIO()
        tables = {"totals": self.totals, "products": self.products, "image": self.image}
        counts = {"images": self.images, "pixels": self.pixels}
        np.savez(out, allow_pickle=False, **counts, **tables)
        return out.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "Sums":
        with np.load(io.BytesIO(data), allow_pickle=False) as table:
            sums = Sums(table["image"].shape)
            sums.images, sums.pixels = int(table["images"]), int(table["pixels"])
            sums.totals = table["totals"]
            sums.products, sums.image = table["products"], table["image"]
        return sums


def measure_statistics(
    read: Callable[[NDArray[np.intp]], NDArray[np.uint8]],
    ids: NDArray[np.intp],
    *,
    colours: bool,
    mean_image: bool,
) -> Statistics:
    """Statistics of the images `ids`, read in blocks; covariance and mean image where wanted."""
    sums: Sums | None = None
    with progress("measuring the images", len(ids), "images") as bar:
        for start in range(0, len(ids), BLOCK):
            block = read(ids[start : start + BLOCK])
            if sums is None:
                sums = Sums(block.shape[1:], colours=colours, image=mean_image)
            sums.add(block)
            bar.advance(len(block))
    assert sums is not None
    return sums.statistics()
