"""Dropout whose random mask does not depend on how many processes draw it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MaskSlice:
    """The part of a whole batch's mask that a process uses, for its activations (n, F, ...): images
    `rows` of `images`, and of the units the `part`-th of `parts` equal parts."""

    rows: range
    images: int
    part: int = 0
    parts: int = 1


class DropoutLayer(nn.Dropout):
    """Dropout whose mask is drawn for all processes and used in part: see `MaskSlice`."""

    mask_slice: MaskSlice | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.mask_slice is None or not self.training:
            return super().forward(input)
        own, units = self.mask_slice, input.shape[1]
        whole = input.new_ones(own.images, units * own.parts, *input.shape[2:])
        if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
            whole = whole.contiguous(memory_format=torch.channels_last)  # drawn in memory's order
        mask = super().forward(whole)
        first = own.part * units
        return input * mask[own.rows.start : own.rows.stop, first : first + units]


class PaperDropout(DropoutLayer):
    """Nothing is rescaled in training; testing multiplies by 1 - p. Source: paper, section 4.2."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 - self.p)
