"""A network from stored images to probabilities: preprocessing, the network itself, softmax."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from alexnet.data.augment import Preprocess
from alexnet.models.net import Net

Function = Callable[[Tensor], Tensor]


class EndToEnd(nn.Module):
    """Stored images to probabilities: uint8 (N, size, size, C) -> float32 (N, K)."""

    def __init__(self, model: Net, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.crop, self.edge = preprocess.crop, (preprocess.size - preprocess.crop) // 2
        # Every rule of preprocessing is linear in each pixel: a black image shows its offset, and a
        # white one its factor.
        black = torch.zeros(1, preprocess.size, preprocess.size, preprocess.channels)
        term = preprocess.views(black, 1)[0].contiguous()
        self.term: Tensor
        self.factor: Tensor
        self.register_buffer("term", term)
        white = preprocess.views(black + 255, 1)[0].contiguous()
        self.register_buffer("factor", (white - term) / 255)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """Stored images to logits (N, K)."""
        centre = slice(self.edge, self.edge + self.crop)
        crops = images[:, centre, centre].permute(0, 3, 1, 2).float()
        logits: Tensor = self.model(crops * self.factor + self.term)
        return logits
