"""Images in a GPU's memory: small tensors copied without waiting, and whole splits kept there."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.read_ahead import read_ahead
from alexnet.data.splits import Split, Unread
from alexnet.support.terminal import progress

MOST_OF_FREE = 0.5  # fraction of a GPU's free memory that a split may take
IMAGES_PER_COPY = 1024


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to the device without waiting for the work that runs there.

    A copy from ordinary memory waits for all work that was queued before it; one from page-locked
    memory is queued itself.
    """
    if values.device == device:
        return values
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@dataclass(frozen=True)
class DeviceSplit:
    """A split in a device's memory: images uint8 (N, size, size, C), labels (N,) int64. The images
    in `unread` could not be read, and are black."""

    images: Tensor
    labels: Tensor
    unread: Unread = field(default_factory=dict)

    def take(self, ids: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Images and labels by index, on the device."""
        rows = to_device(torch.from_numpy(np.asarray(ids, np.int64)), self.images.device)
        return self.images[rows], self.labels[rows]


def spare_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 for a CPU, whose memory holds a small split already."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()  # memory that torch caches is free too
    return torch.cuda.mem_get_info(device)[0]


def copy_to_device(
    split: Split,
    device: torch.device,
    workers: int,
    skip_unreadable: bool = False,
    spare: int | None = None,
) -> DeviceSplit | None:
    """Copy a split into the device's memory, read by `workers` threads.

    Images that cannot be read raise Unreadable, or stay black with `skip_unreadable`. None where
    the split takes more than half of the `spare` bytes (None: the GPU's free memory).
    """
    shape = (len(split), split.size, split.size, split.channels)
    if math.prod(shape) > (spare_bytes(device) if spare is None else spare) * MOST_OF_FREE:
        return None
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    unread: Unread = {}

    def read(start: int) -> NDArray[np.uint8]:
        ids = np.arange(start, min(start + IMAGES_PER_COPY, len(split)))
        if not skip_unreadable:
            return split.read(ids)
        block, missing = split.try_read(ids)
        unread.update(missing)
        return block

    with progress(f"keeping {split.name} on the {device.type}", len(split), "images") as bar:
        starts = range(0, len(split), IMAGES_PER_COPY)
        for start, block in zip(starts, read_ahead(read, starts, workers), strict=True):
            images[start : start + len(block)] = torch.from_numpy(block)
            bar.advance(len(block))
    return DeviceSplit(
        images, torch.from_numpy(split.labels).to(device), dict(sorted(unread.items()))
    )
