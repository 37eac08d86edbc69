"""Preprocessing and augmentation: batched tensor functions from uint8, on the batch's device.

Shapes: N images, H, W, C stored as uint8 (N, H, W, C); the network sees float32 (N, C, crop, crop).
Every random choice comes from `draws`, keyed by (seed, epoch, image index).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import draws
from alexnet.errors import UsageError
from alexnet.recipe import Recipe


@dataclass(frozen=True)
class Preprocess:
    """What test images go through; it travels with the weights. mean, std on the 0-255 scale."""

    size: int
    crop: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, C) or float (N, C, H, W) -> normalised float32 (N, C, H, W)."""
        if images.dtype == torch.uint8:
            images = images.permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std

    def views(self, images: Tensor, count: int) -> Tensor:
        """The test views of a batch: 1 (centre), 5 (corners and centre) or 10 (and mirrors).

        Shapes: uint8 (N, size, size, C) -> float32 (V, N, C, crop, crop).
        Source: paper, section 4.1; the caller averages the softmax outputs over V.
        """
        if count not in (1, 5, 10):
            raise UsageError(f"views is {count}; it takes 1, 5 or 10")
        edge = self.size - self.crop
        if count > 1 and edge == 0:
            raise UsageError(
                f"views {count} needs stored images larger than the {self.crop}-pixel crop, "
                f"and size is {self.size}: use --views 1"
            )
        x = self.normalize(images)
        half = edge // 2
        corners = [(half, half)]
        if count > 1:
            corners += [(0, 0), (0, edge), (edge, 0), (edge, edge)]
        crops = [x[:, :, top : top + self.crop, left : left + self.crop] for top, left in corners]
        if count == 10:
            crops += [crop.flip(3) for crop in crops]
        return torch.stack(crops)


def augment(
    images: Tensor, ids: NDArray[np.integer], epoch: int, recipe: Recipe, fill: tuple[float, ...]
) -> Tensor:
    """One training view of each image; `fill` is the colour of what cutout hides.

    Shapes: uint8 (N, size, size, C) -> float32 (N, C, crop, crop), still on the 0-255 scale.
    `ids` are the images' indices in the training slice.
    """
    n, device = len(ids), images.device

    def draw(purpose: int) -> Tensor:
        return torch.from_numpy(draws.uniform(recipe.seed, epoch, ids, purpose)).to(device)

    x = images.permute(0, 3, 1, 2)
    if recipe.shift:
        x = F.pad(x, (recipe.shift,) * 4)
    span = recipe.size + 2 * recipe.shift - recipe.crop + 1
    ys = torch.arange(recipe.crop, device=device) + (draw(draws.CROP_Y) * span).long()[:, None]
    xs = torch.arange(recipe.crop, device=device) + (draw(draws.CROP_X) * span).long()[:, None]
    if recipe.flip:
        mirrored = draw(draws.FLIP) < 0.5
        xs = torch.where(mirrored[:, None], xs.flip(1), xs)
    rows = torch.arange(n, device=device)[:, None, None]
    x = x.permute(0, 2, 3, 1)[rows, ys[:, :, None], xs[:, None, :]]
    x = x.permute(0, 3, 1, 2).float()

    if recipe.rotate or recipe.scale:
        angle = (2 * draw(draws.ANGLE) - 1) * (recipe.rotate * torch.pi / 180)
        zoom_y = 1 + (2 * draw(draws.ZOOM_Y) - 1) * recipe.scale
        zoom_x = 1 + (2 * draw(draws.ZOOM_X) - 1) * recipe.scale
        zero = torch.zeros_like(angle)
        theta = torch.stack(
            [
                torch.stack([angle.cos() * zoom_x, -angle.sin() * zoom_y, zero], 1),
                torch.stack([angle.sin() * zoom_x, angle.cos() * zoom_y, zero], 1),
            ],
            1,
        ).float()
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    if recipe.cutout:
        top = (draw(draws.CUT_Y) * recipe.crop).long()[:, None] - recipe.cutout // 2
        left = (draw(draws.CUT_X) * recipe.crop).long()[:, None] - recipe.cutout // 2
        line = torch.arange(recipe.crop, device=device)
        in_y = (line >= top) & (line < top + recipe.cutout)
        in_x = (line >= left) & (line < left + recipe.cutout)
        hole = (in_y[:, None, :, None] & in_x[:, None, None, :]).expand_as(x)
        x = torch.where(hole, torch.tensor(fill, device=device).view(1, -1, 1, 1), x)
    return x
