"""A convolution whose weights are not shared between places: cuda-convnet's local layers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnsharedConv(nn.Module):
    """weight (H'W', C k k, out), bias (out, H', W'). Shapes: (N, C, H, W) -> (N, out, H', W').

    `out` is (out, H', W').
    """

    def __init__(self, channels: int, out: tuple[int, ...], kernel: int, padding: int) -> None:
        super().__init__()
        self.out, self.kernel, self.padding = out, kernel, padding
        places = out[1] * out[2]
        self.weight = nn.Parameter(torch.empty(places, channels * kernel**2, out[0]))
        self.bias = nn.Parameter(torch.empty(out))

    def forward(self, x: Tensor) -> Tensor:
        windows = F.unfold(x, self.kernel, padding=self.padding)  # (N, C k k, H'W')
        places = torch.bmm(windows.permute(2, 0, 1), self.weight)  # (H'W', N, out)
        # Not by the number of images, which an export would take for a constant.
        maps: Tensor = torch.unflatten(places.permute(1, 2, 0), 2, self.out[1:])
        return maps + self.bias
