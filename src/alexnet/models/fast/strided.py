"""A convolution with a stride over few channels, as AlexNet's first, computed on blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models.fast.tracing import is_traced
from alexnet.support.plain import is_plain

MAX_CHANNELS = 64  # of a block; with more there is nothing to gain


class StridedConv(nn.Conv2d):
    """A convolution with any padding that trains fast if it strides over few channels.

    `around` is the padding (left, right, top, bottom). The gradient of a kernel over 3 channels
    leaves a CPU's matrix units mostly empty. So with `stride` s the image becomes blocks of s x s
    pixels with s^2 times as many channels, and the kernel, padded with zeros, moves from block to
    block: the same sums, and training more than twice as fast on a CPU. In all other cases, and
    with ALEXNET_PLAIN=1, it is torch's own convolution.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int,
        around: tuple[int, int, int, int],
        groups: int,
    ) -> None:
        is_even = len(set(around)) == 1
        padding = around[0] if is_even else 0
        super().__init__(channels, out, kernel, stride, padding, groups=groups)
        self.around, self.is_even = around, is_even
        self.in_blocks = stride > 1 and groups == 1 and channels * stride**2 <= MAX_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        is_training = self.in_blocks and x.device.type == "cpu" and self._is_trained()
        if is_training and not is_traced() and not is_plain():
            return self._over_blocks(x)
        return super().forward(x if self.is_even else F.pad(x, self.around))

    def _is_trained(self) -> bool:
        return torch.is_grad_enabled() and self.weight.requires_grad

    def _over_blocks(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # casting first makes the copies smaller
            x = x.to(torch.get_autocast_dtype("cpu"))
        (step, _), (kernel, _) = self.stride, self.kernel_size
        left, right, top, bottom = self.around
        reach = -(-kernel // step)  # blocks that a window covers in each direction
        rows, columns = (
            (side + before + after - kernel) // step + reach
            for side, before, after in ((x.shape[2], top, bottom), (x.shape[3], left, right))
        )
        right, bottom = columns * step - x.shape[3] - left, rows * step - x.shape[2] - top
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
        blocks = x.reshape(len(x), rows, step, columns, step, -1).transpose(2, 3)
        blocks = blocks.reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2)
        rest = reach * step - kernel
        weight = F.pad(self.weight, (0, rest, 0, rest))
        weight = weight.reshape(*weight.shape[:2], reach, step, reach, step)
        weight = weight.permute(0, 2, 4, 3, 5, 1).flatten(3).permute(0, 3, 1, 2)
        return F.conv2d(blocks, weight, self.bias)
