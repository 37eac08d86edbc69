"""The first convolution of an AlexNet, taken in blocks where it strides over few channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models.fast.tracing import is_traced
from alexnet.plain import is_plain

MOST_CHANNELS = 64  # of a block; with more of them there is nothing to gain


class StridedConv(nn.Conv2d):
    """A convolution with any padding, whose training is quick where it strides over few channels.

    `around` is (left, right, top, bottom). The gradient of a kernel over 3 channels keeps a
    processor's units for matrices mostly empty. So with `stride` s the image is taken as blocks of
    s x s pixels, s^2 times as many channels, and the kernel, with zeros at its end, steps from
    block to block: the same sums, in training more than twice as fast on a CPU. Anywhere else, and
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
        even = len(set(around)) == 1
        super().__init__(channels, out, kernel, stride, around[0] if even else 0, groups=groups)
        self.around, self.even = around, even
        self.in_blocks = stride > 1 and groups == 1 and channels * stride**2 <= MOST_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        in_training = self.in_blocks and x.device.type == "cpu" and self._learns()
        if in_training and not is_traced() and not is_plain():
            return self._over_blocks(x)
        return super().forward(x if self.even else F.pad(x, self.around))

    def _learns(self) -> bool:
        return torch.is_grad_enabled() and self.weight.requires_grad

    def _over_blocks(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # before the copies, not after
            x = x.to(torch.get_autocast_dtype("cpu"))
        (step, _), (kernel, _) = self.stride, self.kernel_size
        left, right, top, bottom = self.around
        reach = -(-kernel // step)  # blocks a window covers, in each direction
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
