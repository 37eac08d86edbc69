"""How much of a first layer looks at colour, tower by tower."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.net import Net


@dataclass(frozen=True)
class Tower:
    """`kernels` are a range of the layer's; `colour` is their score, each with its energy's weight:
    kernels that have learnt nothing are small, and noise scores 2/3."""

    kernels: range
    colour: float


def colour_scores(weight: Tensor) -> Tensor:
    """The share of each kernel's energy that is colour and not grey: 0 of a grey kernel, 1 of one
    whose channels cancel, 2/3 of noise; of a kernel of zeros 0.

    Shapes: (M, 3, k, k) -> (M,). Grey is the mean of the channels, colour what each differs by.
    """
    if weight.dim() != 4 or weight.shape[1] != 3:
        raise UsageError(
            f"kernels of {tuple(weight.shape)}: a colour score needs (kernels, 3, height, width)"
        )
    colour, total = _energies(weight)
    return colour / total.clamp(min=torch.finfo(total.dtype).tiny)


def tower_scores(weight: Tensor, towers: int) -> list[Tower]:
    """The colour of each tower: its share of the energy that is colour. Shapes: (M, 3, k, k).

    Source of the question: paper, section 6.1 and figure 3: the kernels of one GPU are largely
    colour-agnostic, those of the other colour-specific. A score near 0 and one near 1 would be it.
    """
    if len(weight) % towers:
        raise UsageError(f"{len(weight)} kernels do not divide into {towers} towers")
    scores, (_, total) = colour_scores(weight), _energies(weight)
    size = len(weight) // towers
    found = []
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        share = float((scores[part] * total[part]).sum() / total[part].sum().clamp(min=1e-30))
        found.append(Tower(range(start, start + size), share))
    return found


def towers_of(model: Net) -> int:
    """Into how many towers the first convolution's kernels go: the groups of the second."""
    layers = [model.part(name) for name in model.layers]
    found = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return found[1].groups if len(found) > 1 else 1


def _energies(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(of colour, of all) of each kernel, in float64."""
    weight = weight.detach().double()
    grey = weight.mean(1, keepdim=True)
    return (weight - grey).square().sum((1, 2, 3)), weight.square().sum((1, 2, 3))
