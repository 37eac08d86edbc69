"""Feature maps: the strongest channels, the images that excite them, and receptive fields."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.analysis.features import iter_features
from alexnet.data.augment import Preprocess
from alexnet.data.splits import Split
from alexnet.models.layers import Conv, Linear, Local, Part, Pool, Shape
from alexnet.models.net import Net, Spec, named_parts

Box = tuple[int, int, int, int]  # pixels: top, left, bottom, right; the last two are excluded


@dataclass(frozen=True)
class Excited:
    """For each of M channels the T images that excite it most, the highest peak first.

    `images` are their indices, `values` the peaks and `places` their positions in the channel's
    map, row * width + column (0 for a part without maps): all (M, T). `shape` is the part's output
    for an image.
    """

    images: NDArray[np.intp]
    values: NDArray[np.float32]
    places: NDArray[np.intp]
    shape: Shape


def strongest(maps: Tensor) -> list[int]:
    """Channels of one image's output (C, ...), the highest peak first."""
    return [int(i) for i in maps.flatten(1).max(1).values.argsort(descending=True, stable=True)]


def most_excited(
    model: Net,
    split: Split,
    preprocess: Preprocess,
    part: str,
    top: int,
    *,
    precision: str = "fp32",
    workers: int = 2,
) -> Excited:
    """For every channel of a part, the `top` images of a split with the highest peaks."""
    top = min(top, len(split))
    top_peaks: Tensor = torch.empty(0)
    top_images = top_places = torch.empty(0, dtype=torch.int64)
    shape: Shape = ()
    for start, outputs in iter_features(
        model, split, preprocess, [part], precision=precision, workers=workers
    ):
        x = outputs[part]
        shape = tuple(x.shape[1:])
        has_maps = x.dim() == 4
        peaks, places = x.flatten(2).max(2) if has_maps else (x, torch.zeros_like(x).long())
        peaks, places = peaks.T, places.T
        images = torch.arange(start, start + len(x)).expand(len(peaks), -1)
        if start:
            peaks, places = torch.cat([top_peaks, peaks], 1), torch.cat([top_places, places], 1)
            images = torch.cat([top_images, images], 1)
        order = peaks.argsort(stable=True, dim=1, descending=True)[:, :top]
        top_peaks, top_images, top_places = (t.gather(1, order) for t in (peaks, images, places))
    return Excited(top_images.numpy(), top_peaks.numpy(), top_places.numpy(), shape)


def receptive_field(spec: Spec, input_shape: Shape, name: str, row: int, column: int) -> Box:
    """The pixels that the output of a part at (row, column) depends on, without the padding.

    From the first fully connected layer on this is the whole image.
    """
    height, width = input_shape[1:]
    parts_before: list[
        tuple[Part, Shape]
    ] = []  # up to the part itself, each with its input's shape
    shape = input_shape
    for part_name, part in named_parts(spec):
        parts_before.append((part, shape))
        shape = part.shape(shape)
        if part_name == name:
            break
    if any(isinstance(part, Linear) for part, _ in parts_before):
        return 0, 0, height, width
    ranges = []
    for position, side in ((row, height), (column, width)):
        low, high = position, position
        for part, part_input in reversed(parts_before):
            window, stride = part.span(part_input)
            padding = _padding(part, part_input)
            low = low * stride - padding
            high = high * stride - padding + window - 1
        ranges.append((max(low, 0), min(high + 1, side)))
    (top, bottom), (left, right) = ranges
    return top, left, bottom, right


def _padding(part: Part, shape: Shape) -> int:
    """Positions by which the first window starts before an input of this shape (C, H, W)."""
    if isinstance(part, Pool) and part.padding == "same":
        side = shape[1]
        total = (math.ceil(side / part.stride) - 1) * part.stride + part.kernel - side
        return max(total, 0) // 2
    if isinstance(part, Conv | Local | Pool):
        return int(part.padding)
    window, stride = part.span(shape)
    return window // 2 if stride == 1 else 0  # response norm within a map
