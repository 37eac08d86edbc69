"""Colour scores of first-layer kernels, by kernel and by tower."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.net import Net


@dataclass(frozen=True)
class Tower:
    """A tower's kernels, as a range of the layer's, and their colour score.

    Kernels are weighted by their energy: those that have learnt nothing are small, and their noise
    would score 2/3.
    """

    kernels: range
    colour: float


def colour_scores(weight: Tensor) -> Tensor:
    """Share of each kernel's energy that is colour and not grey.

    Grey is the mean of the three channels, colour the difference from it. The score is 0 for a grey
    kernel, 1 where the channels cancel out, 2/3 for noise, and 0 for a kernel of zeros.
    Shapes: (M, 3, k, k) -> (M,).
    """
    if weight.dim() != 4 or weight.shape[1] != 3:
        raise UsageError(
            f"kernels have the shape {tuple(weight.shape)}, but a colour score needs (kernels, 3, "
            "height, width)"
        )
    colour, total = _kernel_energies(weight)
    return colour / total.clamp(min=torch.finfo(total.dtype).tiny)


def tower_scores(weight: Tensor, towers: int) -> list[Tower]:
    """Colour score of each tower: the share of its kernels' energy that is colour.

    Shape: (M, 3, k, k). The paper reports that the kernels on one GPU are largely colour-agnostic,
    and those on the other colour-specific (section 6.1 and figure 3): a score near 0 beside one
    near 1.
    """
    if len(weight) % towers:
        raise UsageError(f"{len(weight)} kernels do not divide into {towers} towers")
    scores, (_, energies) = colour_scores(weight), _kernel_energies(weight)
    size = len(weight) // towers
    scored_towers = []
    for start in range(0, len(weight), size):
        own = slice(start, start + size)
        share = float((scores[own] * energies[own]).sum() / energies[own].sum().clamp(min=1e-30))
        scored_towers.append(Tower(range(start, start + size), share))
    return scored_towers


def towers_of(model: Net) -> int:
    """Number of towers of the first convolution: the groups of the second."""
    layers = [model.part(name) for name in model.layers]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return convolutions[1].groups if len(convolutions) > 1 else 1


def _kernel_energies(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Energy of colour, and of everything, in each kernel: (M,), (M,), float64."""
    weight = weight.detach().double()
    grey = weight.mean(1, keepdim=True)
    return (weight - grey).square().sum((1, 2, 3)), weight.square().sum((1, 2, 3))
