"""Maps cut to chunks that stay in a core's cache, laid flat for quick sums over neighbours.

Tensors are (N, C, H, W) and dense: contiguous or channels-last.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkLayout:
    """How a chunk lies in a flat buffer: its `shape`, ends of the window's axes padded with zeros.

    Neighbours along a window's axis are `units[axis]` numbers apart. Since what comes before a
    row is the padding of the row before it, each step is one operation over a flat run of memory,
    and a window that leaves its map or group adds nothing. `padded` are the window's axes in
    `shape`; `cut` gives a tensor's chunks as views with the axes of `shape`.
    """

    shape: tuple[int, ...]
    units: tuple[int, ...]
    padded: tuple[int, ...]
    cut: Callable[[Tensor], Iterator[Tensor]]


def channels_layout(x: Tensor, n: int, groups: int, most: int) -> ChunkLayout:
    """For windows of n channels within groups; about `most` numbers a chunk."""
    images, channels, height, width = x.shape
    channels //= groups
    wide, places = channels + n // 2, height * width
    if _channels_last(x):
        step = min(max(most // wide, 1), images * groups * places)

        def cut_places(t: Tensor) -> Iterator[Tensor]:
            yield from torch.split(t.permute(0, 2, 3, 1).reshape(-1, channels), step)

        return ChunkLayout((step, wide), (1,), (1,), cut_places)
    columns = math.ceil(places / math.ceil(places * wide / most))
    rows = min(max(most // (wide * columns), 1), images * groups)

    def cut_columns(t: Tensor) -> Iterator[Tensor]:
        for some in torch.split(t.reshape(-1, channels, places).transpose(0, 1), rows, 1):
            yield from torch.split(some, columns, 2)

    return ChunkLayout((wide, rows, columns), (rows * columns,), (0,), cut_columns)


def maps_layout(x: Tensor, n: int, most: int) -> ChunkLayout:
    """For windows of n x n places of a map; about `most` numbers a chunk."""
    images, channels, height, width = x.shape
    high, wide = height + n // 2, width + n // 2
    if _channels_last(x):
        deep = min(max(most // (high * wide), 1), channels)
        rows = min(max(most // (high * wide * deep), 1), images)

        def cut_depths(t: Tensor) -> Iterator[Tensor]:
            for some in torch.split(t.permute(0, 2, 3, 1), rows):
                yield from torch.split(some, deep, 3)

        return ChunkLayout((rows, high, wide, deep), (deep, wide * deep), (2, 1), cut_depths)
    rows = min(max(most // (high * wide), 1), images * channels)

    def cut_maps(t: Tensor) -> Iterator[Tensor]:
        yield from torch.split(t.flatten(0, 1), rows)

    return ChunkLayout((rows, high, wide), (1, wide), (2, 1), cut_maps)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous()  # of the two layouts that a tensor may come in
