"""Dropout whose random mask does not depend on how many processes draw it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where a process's numbers (n, F, ...) are in those of all: images `rows` of `images`, and of
    the units the tower-th of `towers` parts."""

    rows: range
    images: int
    tower: int = 0
    towers: int = 1


class DropoutLayer(nn.Dropout):
    """Dropout whose mask is drawn for all processes and used in part: see `Place`."""

    place: Place | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.place is None or not self.training:
            return super().forward(input)
        p, units = self.place, input.shape[1]
        whole = input.new_ones(p.images, units * p.towers, *input.shape[2:])
        if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
            whole = whole.contiguous(memory_format=torch.channels_last)  # drawn in memory's order
        mask = super().forward(whole)
        mine = mask[p.rows.start : p.rows.stop, p.tower * units : (p.tower + 1) * units]
        return input * mine


class PaperDropout(DropoutLayer):
    """Nothing is rescaled in training; testing multiplies by 1 - p. Source: paper, section 4.2."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 - self.p)
