"""Which images excite a channel, and which of their pixels it saw."""

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

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Excited:
    """The images (M, T) that excite each of M channels most, how much, and where in its map:
    (M, T) places, rows * width + column; 0 of a part without maps."""

    images: NDArray[np.intp]
    values: NDArray[np.float32]
    places: NDArray[np.intp]
    shape: Shape


def strongest(maps: Tensor) -> list[int]:
    """Channels of one image's outputs (C, ...), the one with the highest peak first."""
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
    """For every channel of a part the `top` images of a split with the highest peak."""
    top = min(top, len(split))
    best: Tensor = torch.empty(0)
    images = places = torch.empty(0, dtype=torch.int64)
    shape: Shape = ()
    for start, found in iter_features(
        model, split, preprocess, [part], precision=precision, workers=workers
    ):
        x = found[part]
        shape = tuple(x.shape[1:])
        peaks, where = x.flatten(2).max(2) if x.dim() == 4 else (x, torch.zeros_like(x).long())
        peaks, where = peaks.T, where.T
        rows = torch.arange(start, start + len(x)).expand(len(peaks), -1)
        if start:
            peaks, where = torch.cat([best, peaks], 1), torch.cat([places, where], 1)
            rows = torch.cat([images, rows], 1)
        order = peaks.argsort(stable=True, dim=1, descending=True)[:, :top]
        best, images, places = (t.gather(1, order) for t in (peaks, rows, where))
    return Excited(images.numpy(), best.numpy(), places.numpy(), shape)


def receptive_field(spec: Spec, given: Shape, name: str, row: int, column: int) -> Box:
    """The pixels that one output of a part sees: (top, left, bottom, right), ends left out.

    All of the image from the first fully connected layer on; what lies in the padding is cut off.
    """
    sides, walked = given[1:], list[tuple[Part, Shape]]()
    for part_name, part in named_parts(spec):
        walked.append((part, given))
        given = part.shape(given)
        if part_name == name:
            break
    if any(isinstance(part, Linear) for part, _ in walked):
        return 0, 0, sides[0], sides[1]
    spans = []
    for place, side in ((row, sides[0]), (column, sides[1])):
        low, high = place, place
        for part, before in reversed(walked):
            window, stride = part.span(before)
            low = low * stride - _padding(part, before)
            high = high * stride - _padding(part, before) + window - 1
        spans.append((max(low, 0), min(high + 1, side)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _padding(part: Part, given: Shape) -> int:
    """Positions that the first window begins before the first input."""
    if isinstance(part, Pool) and part.padding == "same":
        total = (math.ceil(given[1] / part.stride) - 1) * part.stride + part.kernel - given[1]
        return max(total, 0) // 2
    if isinstance(part, Conv | Local | Pool):
        return int(part.padding)
    window, stride = part.span(given)
    return window // 2 if stride == 1 else 0  # response norm within a map
