"""Images and preprocessing that crops are tried on."""

import numpy as np
import torch

from alexnet.data import Preprocess, Statistics, draws
from alexnet.recipe import Recipe

RULES = ("std", "mean", "image", "centre", "torchvision")
SIZE, CROP = 11, 6
COVARIANCE = ((2500.0, 1800.0, 900.0), (1800.0, 2100.0, 1200.0), (900.0, 1200.0, 1700.0))


def pictures(n: int, size: int = SIZE, channels: int = 3, seed: int = 1) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (n, size, size, channels), np.uint8))


def measured(channels: int = 3) -> Statistics:
    """Statistics that no two channels or places share."""
    mean_image = np.random.default_rng(7).uniform(90, 160, (SIZE, SIZE, channels))
    return Statistics(
        (101.0, 112.0, 123.0)[:channels],
        (51.0, 62.0, 73.0)[:channels],
        COVARIANCE,
        torch.from_numpy(mean_image.astype(np.float32)),
    )


def untouched(size: int, crop: int, channels: int = 3) -> Preprocess:
    """Preprocessing that leaves the numbers as they are."""
    nothing = Statistics((0.0,) * channels, (1.0,) * channels, COVARIANCE)
    return Preprocess(size, crop, channels, nothing)


def place_of(recipe: Recipe, epoch: int, index: int, span: int) -> tuple[int, int, bool]:
    """Top, left and mirrored of one training crop."""
    u = [
        draws.uniform(recipe.seed, epoch, np.array([index]), purpose)[0]
        for purpose in (draws.CROP_Y, draws.CROP_X, draws.FLIP)
    ]
    return int(u[0] * span), int(u[1] * span), recipe.flip and u[2] < 0.5


def photos(n: int, size: int, channels: int = 3) -> torch.Tensor:
    """Pixels of 1 and more: a 0 among them was put there."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (n, size, size, channels), generator=generator, dtype=torch.uint8)
