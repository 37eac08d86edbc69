"""Where training crops are cut out of stored images, and how they are resized and turned.

Shapes: N images, H, W, C; pixels are (N, H, W, C) here and stay on their device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.recipe import Recipe

RATIO = (3 / 4, 4 / 3)  # of the sides that `area` cuts out, as everybody has it


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
