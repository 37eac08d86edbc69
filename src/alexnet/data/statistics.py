"""What is measured of the training images, and travels with the weights."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.terminal import progress

BLOCK = 64  # images measured at a time
MIDDLE = 128  # of the pixels' scale; subtracted, products lose no digits to a large mean

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


def measure(
    read: Callable[[NDArray[np.intp]], NDArray[np.uint8]],
    ids: NDArray[np.intp],
    *,
    colours: bool,
    mean_image: bool,
) -> Statistics:
    """Statistics of the images `ids`, read in blocks. Mean, std and the mean image come from sums
    of whole numbers, so exactly; the covariance, in float32, only where `colours` asks for it."""
    counts, image = np.zeros((0, 256), np.int64), np.zeros(0)
    products = torch.zeros(0)
    with progress("measuring the images", len(ids), "images") as bar:
        for start in range(0, len(ids), BLOCK):
            block = read(ids[start : start + BLOCK])
            channels = block.shape[-1]
            if not start:
                counts, image = np.zeros((channels, 256), np.int64), np.zeros(block.shape[1:], int)
                products = torch.zeros(channels, channels, dtype=torch.float64)
            for c in range(channels):
                counts[c] += np.bincount(block[..., c].ravel(), minlength=256)
            if colours:
                flat = torch.from_numpy(block).view(-1, channels).float() - MIDDLE
                products += (flat.T @ flat).double()
            if mean_image:
                image += torch.from_numpy(block).sum(0, dtype=torch.int32).numpy()
            bar.advance(len(block))
    values = np.arange(256)
    n = counts.sum(1)
    mean = counts @ values / n
    std = np.sqrt(counts @ values**2 / n - mean**2)
    covariance: tuple[tuple[float, ...], ...] = ()
    if colours:
        spread = products.numpy() / n - np.outer(mean - MIDDLE, mean - MIDDLE)
        covariance = tuple(map(tuple, spread.tolist()))
    average = torch.from_numpy((image / len(ids)).astype(np.float32)) if mean_image else None
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), covariance, average)
