"""Preprocessing and augmentation: batched tensor functions from uint8, on the batch's device.

Shapes: N images, H, W, C stored as uint8 (N, H, W, C); the network sees float32 (N, C, crop, crop).
Every random choice comes from `draws`, keyed by (seed, epoch, image index) or (seed, step).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import draws
from alexnet.data.device import to_device
from alexnet.data.statistics import TORCHVISION_MEAN, TORCHVISION_STD, Statistics
from alexnet.errors import UsageError
from alexnet.recipe import Recipe
from alexnet.support.options import option
from alexnet.support.region import over_pieces

CACHED = 150_000  # numbers normalised at a time on a CPU: few enough to stay in a core's cache
RATIO = (3 / 4, 4 / 3)  # of the sides that `area` cuts out, as everybody has it


# Crops, cut from stored images, resized and turned. Pixels are (N, H, W, C) here.


class Rectangles:
    """Crops of stored images, cut part by part as they are asked for: on a CPU a copy of few
    images stays in the core's cache until it is worked on, and one of a whole batch does not.

    Shapes: images (N, H, W, C); places and mirrors (N,); a part of it (n, side, side, C).
    """

    def __init__(
        self, images: Tensor, tops: Tensor, lefts: Tensor, mirrored: Tensor | None, side: int
    ) -> None:
        self.images, self.side, self.device = images, side, images.device
        self.shape = (len(images), side, side, images.shape[3])
        turned = [False] * len(images) if mirrored is None else mirrored.tolist()
        self.places = list(zip(tops.tolist(), lefts.tolist(), turned, strict=True))

    def __getitem__(self, part: slice) -> Tensor:
        whole = range(*part.indices(len(self.places)))
        if len(whole) == 1:
            return self._crop(whole[0])[None]
        return torch.stack([self._crop(i) for i in whole])

    def _crop(self, i: int) -> Tensor:
        top, left, mirrored = self.places[i]
        found = self.images[i, top : top + self.side, left : left + self.side]
        return found.flip(1) if mirrored else found


def cut_crops(
    images: Tensor, y: Tensor, x: Tensor, mirrored: Tensor | None, recipe: Recipe
) -> Tensor | Rectangles:
    """(N, size, size, C) -> (N, crop, crop, C), places y, x drawn in [0, 1)."""
    if recipe.shift:
        images = F.pad(images, (0, 0, *(recipe.shift,) * 4))
    span, side = recipe.size + 2 * recipe.shift - recipe.crop + 1, recipe.crop
    tops, lefts = (y * span).long(), (x * span).long()
    if images.device.type == "cpu":
        return Rectangles(images, tops, lefts, mirrored, side)
    line = torch.arange(side, device=images.device)
    across = line.expand(len(images), -1)
    if mirrored is not None:
        across = torch.where(mirrored[:, None], side - 1 - across, across)
    rows = torch.arange(len(images), device=images.device)[:, None, None]
    return images[rows, (line + tops[:, None])[:, :, None], (across + lefts[:, None])[:, None]]


def area_boxes(
    area: Tensor, ratio: Tensor, y: Tensor, x: Tensor, recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(height, width, top, left) of each box as fractions of the image; all draws in [0, 1)."""
    share = recipe.area + area * (1 - recipe.area)
    low = share.clamp(min=RATIO[0]).log()  # beyond these a side would leave the image
    high = (1 / share).clamp(max=RATIO[1]).log()
    aspect = torch.exp(low + ratio * (high - low))
    width, height = (share * aspect).sqrt(), (share / aspect).sqrt()
    return height, width, y * (1 - height), x * (1 - width)


def resize_boxes(
    images: Tensor,
    height: Tensor,
    width: Tensor,
    top: Tensor,
    left: Tensor,
    mirrored: Tensor | None,
    crop: int,
) -> Tensor:
    """Boxes of images (N, size, size, C), as `area_boxes` gives them, brought to float32 (N, crop,
    crop, C); the `mirrored` ones (N,) are flipped."""
    pixels = images.permute(0, 3, 1, 2).float()
    across = width if mirrored is None else torch.where(mirrored, -width, width)
    zero = torch.zeros_like(width)
    theta = torch.stack(
        [
            torch.stack([across, zero, 2 * left + width - 1], 1),
            torch.stack([zero, height, 2 * top + height - 1], 1),
        ],
        1,
    ).float()
    grid = F.affine_grid(theta, [*pixels.shape[:2], crop, crop], align_corners=False)
    crops = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return crops.permute(0, 2, 3, 1)


def turn_crops(x: Tensor, angle: Tensor, zoom_y: Tensor, zoom_x: Tensor) -> Tensor:
    """Crops (N, H, W, C) turned about their middles by `angle` (N,) in radians, the sides they
    show times the zooms (N,), with zeros beyond their edges. float32 of the same shape."""
    x = x.permute(0, 3, 1, 2).float().contiguous()
    zero = torch.zeros_like(angle)
    theta = torch.stack(
        [
            torch.stack([angle.cos() * zoom_x, -angle.sin() * zoom_y, zero], 1),
            torch.stack([angle.sin() * zoom_x, angle.cos() * zoom_y, zero], 1),
        ],
        1,
    ).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    turned = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned.permute(0, 2, 3, 1)


# Preprocessing


@dataclass(frozen=True)
class Preprocess:
    """What every image goes through; it travels with the weights. `rule` is the recipe's
    `normalize`; statistics are of stored images on the 0-255 scale."""

    size: int
    crop: int
    channels: int
    statistics: Statistics
    rule: str = "std"

    def normalize(
        self,
        crops: Tensor | Rectangles,
        means: Tensor | Rectangles | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Crops on the 0-255 scale -> what the network sees.

        Shapes: uint8 or float (N, crop, crop, C) -> float32 (N, C, crop, crop), channels last in
        memory. Rule "image" needs `means`, the mean image cut where the crops were (N or 1 of
        them); `offsets` (N, C) are added to the images' colours.
        """
        (n, side, _, channels), device = crops.shape, crops.device
        if self.rule == "centre":
            edge = (self.size - self.crop) // 2
            means = self._mean_image(device)[:, edge:, edge:][:, : self.crop, : self.crop]
        level = torch.zeros(1, channels, device=device)
        scale = None
        if self.rule in ("std", "mean"):
            level = self._channels(self.statistics.mean, device)
        if self.rule == "torchvision":
            level, scale = (self._channels(v, device) for v in (TORCHVISION_MEAN, TORCHVISION_STD))
        if self.rule == "std":
            scale = self._channels(self.statistics.std, device)
        if offsets is not None:
            level = level - offsets
        factor = torch.ones_like(level[:1]) if scale is None else 1 / scale
        # A row at a time is one run of memory, which a channel at a time is not.
        added = (-level * factor).repeat(1, side)[:, None]
        factor = factor.repeat(1, side)[:, None]
        out = torch.empty(crops.shape, dtype=torch.float32, device=device)
        step = max(CACHED // (side * side * channels) if device.type == "cpu" else n, 1)
        parts = [slice(start, start + step) for start in range(0, n, step)]

        def normalize_part(part: slice) -> None:
            x = out[part].copy_(crops[part])
            if means is not None:
                x.sub_(means[:] if means.shape[0] == 1 else means[part])
            rows = x.view(len(x), side, -1)
            torch.addcmul(added if len(added) == 1 else added[part], rows, factor, out=rows)

        over_pieces(parts, lambda: normalize_part, out)
        return out.permute(0, 3, 1, 2)

    def check_views(self, count: int) -> None:
        """Raises UsageError where `views` has none of this number."""
        if count not in (1, 2, 5, 10):
            raise UsageError(f"views is {count}; it takes 1, 2, 5 or 10")
        if count > 2 and self.size == self.crop:
            raise UsageError(
                f"views {count} needs stored images larger than the {self.crop}-pixel crop, "
                f"and size is {self.size}: use {option('views', 1)} or 2"
            )

    def views(self, images: Tensor, count: int, kind: torch.dtype = torch.float32) -> Tensor:
        """The test views of a batch: 1 (centre), 2 (and its mirror), 5 (corners and centre) or 10
        (and mirrors).

        Shapes: uint8 (N, size, size, C) -> (V, N, C, crop, crop) of `kind`, channels last in
        memory. Source: paper, section 4.1; the caller averages the softmax outputs over V.
        """
        self.check_views(count)
        edge = self.size - self.crop
        half = edge // 2
        corners = [(half, half)]
        if count > 2:
            corners += [(0, 0), (0, edge), (edge, 0), (edge, edge)]

        def cut(of: Tensor) -> list[Tensor]:
            crops = [of[:, top:, left:][:, : self.crop, : self.crop] for top, left in corners]
            return crops if count % 2 else crops + [crop.flip(2) for crop in crops]

        whole = self._mean_image(images.device) if self.rule == "image" else None
        if count == 1:
            (crop,) = cut(images)
            crops = [self._rows(crop, cut(whole)[0] if whole is not None else None)]
        elif self.rule == "centre":  # the same means under every crop
            crops = [self._rows(crop).to(kind) for crop in cut(images)]
        else:  # each pixel once, also rounded
            crops = cut(self._rows(images, whole).to(kind))
        stacked = crops[0][None].to(kind) if count == 1 else torch.stack(crops)
        return stacked.permute(0, 1, 4, 2, 3)

    def _rows(self, images: Tensor, means: Tensor | None = None) -> Tensor:
        """`normalize` with the channels where they lie in memory: (N, H, W, C)."""
        return self.normalize(images, means).permute(0, 2, 3, 1)

    def _mean_image(self, device: torch.device) -> Tensor:
        assert self.statistics.image is not None
        return to_device(self.statistics.image, device)[None]

    def _channels(self, values: tuple[float, ...], device: torch.device) -> Tensor:
        """(1, C), of grey images the mean of the three."""
        found = values[: self.channels] if self.channels > 1 else (sum(values) / len(values),)
        return to_device(torch.tensor([found]), device)


# Augmentation


def augment(
    images: Tensor,
    ids: NDArray[np.integer],
    epoch: int,
    recipe: Recipe,
    preprocess: Preprocess,
    leaders: NDArray[np.integer] | None = None,
) -> Tensor:
    """One training view of each image, as the network sees it.

    Shapes: uint8 (N, size, size, C) -> float32 (N, C, crop, crop). `ids` are the images' indices
    in the training split; `leaders` (N,) those whose crop each shares, where a chunk of
    `crop_chunk` images does not begin here.
    """
    device = images.device
    if leaders is None:  # the first image of a chunk draws for all of it
        leaders = ids[np.arange(len(ids)) // recipe.crop_chunk * recipe.crop_chunk]

    def draw(purpose: int, keys: NDArray[np.integer] = ids, at: int = epoch) -> Tensor:
        return to_device(torch.from_numpy(draws.uniform(recipe.seed, at, keys, purpose)), device)

    y, x = draw(draws.CROP_Y, leaders), draw(draws.CROP_X, leaders)
    mirrored = None
    if recipe.flip and recipe.flip_rule == "random":
        mirrored = draw(draws.FLIP, leaders) < 0.5
    elif recipe.flip:  # as it is, then mirrored, or the other way round: Jordan 2024
        mirrored = (draw(draws.FLIP, at=0) < 0.5) ^ bool(epoch % 2)
    crops: Tensor | Rectangles
    means = None
    if recipe.area < 1:
        boxes = area_boxes(draw(draws.AREA, leaders), draw(draws.RATIO, leaders), y, x, recipe)
        crops = resize_boxes(images, *boxes, mirrored, recipe.crop)
    else:
        crops = cut_crops(images, y, x, mirrored, recipe)
        if preprocess.rule == "image":
            stored = preprocess.statistics.image
            assert stored is not None
            means = cut_crops(
                to_device(stored, device).expand(len(ids), -1, -1, -1), y, x, mirrored, recipe
            )
    if recipe.rotate or recipe.scale:
        angle = (2 * draw(draws.ANGLE) - 1) * (recipe.rotate * torch.pi / 180)
        zoom_y = 1 + (2 * draw(draws.ZOOM_Y) - 1) * recipe.scale
        zoom_x = 1 + (2 * draw(draws.ZOOM_X) - 1) * recipe.scale
        crops = turn_crops(crops[:], angle, zoom_y, zoom_x)
    offsets = None
    if recipe.colour and (not recipe.colour_until or epoch < recipe.colour_until):
        offsets = to_device(colour_noise(preprocess.statistics, ids, epoch, recipe), device)
    views = preprocess.normalize(crops, means, offsets)
    if offsets is not None and recipe.colour_rule == "code":
        views = views / 1.1
    if recipe.cutout:
        views = _with_hole(views, draw(draws.CUT_Y), draw(draws.CUT_X), recipe.cutout)
    return views


def colour_noise(
    statistics: Statistics, ids: NDArray[np.integer], epoch: int, recipe: Recipe
) -> Tensor:
    """One RGB offset an image, along the principal components of the training pixels.

    Shapes: ids (N,) -> float32 (N, C) on the 0-255 scale. Source: paper, section 4.1: the sum of
    a_i lambda_i p_i, a_i from N(0, 0.1), where pixels are 0 to 1 (with 0 to 255 the eigenvalues of
    photos are in the thousands). The 2012 code takes the root of the eigenvalue instead.
    """
    values, vectors = statistics.components()
    amounts = [
        draws.normal(recipe.seed, epoch, ids, p) for p in (draws.RED, draws.GREEN, draws.BLUE)
    ]
    lengths = np.sqrt(values) if recipe.colour_rule == "code" else values / 255
    offsets = (np.stack(amounts, 1)[:, : len(values)] * recipe.colour * lengths) @ vectors.T
    return torch.from_numpy(offsets).float()


def mix(x: Tensor, labels: Tensor, step: int, recipe: Recipe) -> tuple[Tensor, Tensor, float]:
    """Mixup or cutmix of a whole batch, as the recipe's shares have it.

    Returns the images, the labels of what was mixed in (each image's neighbour in the batch), and
    the share of the images that is their own: the weight of their own labels in the loss.
    """

    def draw(purpose: int) -> float:
        return float(draws.uniform(recipe.seed, step, np.zeros(1, np.int64), purpose)[0])

    kind = draw(draws.MIX)
    if kind >= recipe.mixup + recipe.cutmix:
        return x, labels, 1.0
    share = draw(draws.MIX_SHARE)
    others, other_labels = x.roll(1, 0), labels.roll(1, 0)
    if kind < recipe.mixup:
        return torch.lerp(others, x, share), other_labels, share
    side = x.shape[-1]
    half = math.sqrt(1 - share) * side / 2
    middles = (draw(draws.MIX_Y) * side, draw(draws.MIX_X) * side)
    (top, bottom), (left, right) = (
        (round(max(m - half, 0)), round(min(m + half, side))) for m in middles
    )
    x = x.clone()
    x[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return x, other_labels, 1 - (bottom - top) * (right - left) / side**2


def _with_hole(x: Tensor, y: Tensor, left: Tensor, side: int) -> Tensor:
    """A square of zeros, which is the mean colour, at a place drawn in [0, 1)."""
    crop = x.shape[-1]
    line = torch.arange(crop, device=x.device)
    top, first = ((place * crop).long()[:, None] - side // 2 for place in (y, left))
    in_y = (line >= top) & (line < top + side)
    in_x = (line >= first) & (line < first + side)
    return x.masked_fill(in_y[:, None, :, None] & in_x[:, None, None, :], 0.0)
