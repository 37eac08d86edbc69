"""Three measures of a tensor: its rms, its dead units, and how far its rows differ."""

import math

import torch
from torch import Tensor


def rms(x: Tensor) -> float:
    """Root mean square of all elements; 0 for an empty tensor."""
    values = x.detach() if x.is_complex() else x.detach().float()
    return float(torch.linalg.vector_norm(values)) / math.sqrt(max(x.numel(), 1))


def dead_share(output: Tensor) -> float:
    """Share of the units of an output (N, C, ...) or (N, T, C) that are 0 for every image."""
    by_unit = output.detach().movedim(-1 if output.dim() == 3 else 1, 0)
    return float((by_unit == 0).flatten(1).all(1).float().mean())


def image_signal(x: Tensor) -> float:
    """1 - cosine between rows of x (N, ...), averaged over all pairs; 0 where all rows are zero.

    It says how much a tensor depends on the image: 0 where every image gives the same direction.
    """
    rows = x.detach().flatten(1).float()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    spread = (rows - rows.mean(0)).square().sum()
    return float(spread / max(len(rows) - 1, 1))
