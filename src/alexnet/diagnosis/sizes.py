"""Numbers that say what a tensor holds."""

import math

import torch
from torch import Tensor


def rms(x: Tensor) -> float:
    wide = x.detach() if x.is_complex() else x.detach().float()
    return float(torch.linalg.vector_norm(wide)) / math.sqrt(max(x.numel(), 1))


def dead_share(out: Tensor) -> float:
    """The share of the units of an output (N, C, ...) or (N, T, C) that are 0 for every image."""
    units = out.detach().movedim(-1 if out.dim() == 3 else 1, 0)
    return float((units == 0).flatten(1).all(1).float().mean())


def image_signal(x: Tensor) -> float:
    """1 - cosine between rows of x (N, ...), the mean over pairs; 0 where they all are zero."""
    rows = x.detach().flatten(1).float()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    spread = (rows - rows.mean(0)).square().sum()
    return float(spread / max(len(rows) - 1, 1))
