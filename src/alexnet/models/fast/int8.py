"""Layers on 8-bit integers: rounding, products, pools.

Inputs and outputs are uint8 with `Steps`, one scale a tensor; weights are int8 with one scale for
each output channel. Products are oneDNN's, as torch's own quantised models call them. With
ALEXNET_PLAIN=1 they are exact, slow sums in float64. oneDNN's differ from these by at most 1 in an
integer and a relative 1e-5 in a float (a test).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models.fast.strided import StridedConv
from alexnet.support.plain import is_plain
from alexnet.support.region import over_pieces

CHUNK = 200_000  # numbers rounded at a time, which fit into a core's cache


def has_int8() -> bool:
    """Whether this build of torch has integer products (oneDNN's) and this processor sums them
    exactly: without VNNI or AMX, sums of two large products overflow 16 bits. Always True with
    ALEXNET_PLAIN=1."""
    return is_plain() or _has_exact_products()


@cache
def _has_exact_products() -> bool:
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    layer = nn.Linear(64, 8, bias=False)
    nn.init.ones_(layer.weight)
    full = torch.full((2, 64), 255, dtype=torch.uint8)
    with torch.inference_mode():
        sums = Product(layer, full.shape, Steps(1.0, 0), torch.float32, relu=False)(full)
    return bool((sums - 64 * 255).abs().max() < 1)


@dataclass(frozen=True)
class Steps:
    """The numbers that the integers 0 ... 255 stand for: (integer - zero) * scale."""

    scale: float
    zero: int

    @staticmethod
    def over(low: float, high: float) -> "Steps":
        """Steps from low to high that have 0 exactly, since convolutions pad with it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return Steps(scale, round(-low / scale))


class ToIntegers(nn.Module):
    """Rounds numbers to steps, and pads maps.

    With `step` above 1, so many neighbours of a row become the channels of one place.
    """

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.rounds, self.step = steps, 1
        self.around: tuple[int, ...] = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            return self._round(x, torch.empty_like(x, dtype=torch.uint8))
        n, channels, height, width = x.shape
        left, right, top, bottom = self.around
        sides = (top + height + bottom, left + width + right)
        out = x.new_empty((n, *sides, channels), dtype=torch.uint8)
        if any(self.around):
            out.fill_(self.rounds.zero)
        # The last columns, which no window reaches, may not fit into `out`.
        unpadded = out[:, top : top + height, left : left + width]
        self._round(x.permute(0, 2, 3, 1)[:, :, : unpadded.shape[2]], unpadded)
        return out.view(n, sides[0], -1, self.step * channels).permute(0, 3, 1, 2)

    def _round(self, x: Tensor, out: Tensor) -> Tensor:
        at_once = max(CHUNK * len(x) // max(x.numel(), 1), 1)
        half = torch.tensor(self.rounds.zero + 0.5)

        def round_rows(start: int) -> None:
            rows = x[start : start + at_once].float()
            rows = torch.add(half, rows, alpha=1 / self.rounds.scale).clamp_(0, 255)
            out[start : start + at_once].copy_(rows)

        over_pieces(range(0, len(x), at_once), lambda: round_rows, out)
        return out


class IntegerPool(nn.Module):
    """Max pool of uint8, along one axis after the other: torch's own uses indices of 8 bits here.

    The padding is 0, the smallest integer.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        pool: Any = layer
        left, right, top, bottom = 0, 0, 0, 0
        if isinstance(layer, nn.Sequential):
            around: Any = layer[0]
            (left, right, top, bottom), pool = around.padding, layer[1]
        self.kernel: int = pool.kernel_size
        self.stride: int = pool.stride
        self.ceil: bool = pool.ceil_mode
        self.before: list[int] = [top + pool.padding, left + pool.padding]
        self.after: list[int] = [bottom + pool.padding, right + pool.padding]

    def forward(self, x: Tensor) -> Tensor:
        maps = x.permute(0, 2, 3, 1)
        for axis in (1, 2):
            maps = self._along(maps, axis, self.before[axis - 1], self.after[axis - 1])
        return maps.permute(0, 3, 1, 2)

    def _along(self, maps: Tensor, axis: int, before: int, after: int) -> Tensor:
        side, kernel, stride = maps.shape[axis], self.kernel, self.stride
        room = side + before + after - kernel
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        if self.ceil and (count - 1) * stride >= side + before:
            count -= 1  # torch has no window that begins beyond the edge
        beyond = max((count - 1) * stride + kernel - side - before, 0)
        if before or beyond:
            maps = F.pad(maps, (0, 0) * (3 - axis) + (before, beyond))
        reach = (count - 1) * stride + 1
        shifted = [
            maps[(slice(None),) * axis + (slice(k, k + reach, stride),)] for k in range(kernel)
        ]
        largest = torch.maximum(shifted[0], shifted[1]) if kernel > 1 else shifted[0]
        for other in shifted[2:]:
            torch.maximum(largest, other, out=largest)
        return largest


class Product(nn.Module):
    """A convolution, fully connected layer or batch norm of maps, on integers.

    Inputs are integers with the steps `in_steps`. Outputs are integers with the steps `gives`, or
    floats of the type `gives`, not rounded. `shape` is the input shape of one image: for another
    shape oneDNN packs the weights again at every call.
    """

    def __init__(
        self,
        layer: nn.Module,
        shape: torch.Size,
        in_steps: Steps,
        gives: Steps | torch.dtype,
        relu: bool,
    ) -> None:
        super().__init__()
        self.in_steps, self.around = in_steps, None
        self.dtype = torch.uint8 if isinstance(gives, Steps) else gives
        self.out_steps = gives if isinstance(gives, Steps) else Steps(1.0, 0)
        self.activation = "relu" if relu else "none"
        self.conv_arguments: tuple[Any, ...] = ()
        if isinstance(layer, nn.BatchNorm2d):
            layer = _as_convolution(layer)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach().float()
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        largest = weight.flatten(1).abs().amax(1)
        self.scales = torch.where(largest > 0, largest, 127.0) / 127
        self.zeros = torch.zeros_like(self.scales, dtype=torch.int)
        by_channel = self.scales.view(-1, *[1] * (weight.dim() - 1))
        integers = (weight / by_channel).round().to(torch.int8)
        if isinstance(layer, nn.Conv2d):
            if isinstance(layer, StridedConv) and not layer.is_even:
                self.around = layer.around
                shape = F.pad(torch.empty(shape, device="meta"), self.around).shape
            stride, padding, dilation = map(list, (layer.stride, layer.padding, layer.dilation))
            self.conv_arguments = (stride, padding, dilation, layer.groups)
        self.plain = is_plain()
        self.weight = integers if self.plain else self._pack(integers, list(shape))

    def _pack(self, integers: Tensor, shape: list[int]) -> Any:
        """Pack the weights as oneDNN keeps them."""
        if not self.conv_arguments:
            return torch.ops.onednn.qlinear_prepack(integers, None)
        return torch.ops.onednn.qconv_prepack(
            integers,
            self.scales,
            self.in_steps.scale,
            self.in_steps.zero,
            *self.conv_arguments,
            shape,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.around is not None:
            x = F.pad(x, self.around, value=self.in_steps.zero)
        x = x if self.conv_arguments else x.flatten(1)
        if self.plain:
            return self._plain_product(x)
        product: Any = torch.ops.onednn.qlinear_pointwise
        if self.conv_arguments:
            product = torch.ops.onednn.qconv2d_pointwise
        output: Tensor = product(
            x, self.in_steps.scale, self.in_steps.zero, self.weight, self.scales, self.zeros,
            self.bias, *self.conv_arguments, self.out_steps.scale, self.out_steps.zero,
            self.dtype, self.activation, [], "",
        )  # fmt: skip
        return output

    def _plain_product(self, x: Tensor) -> Tensor:
        """The same product in float64, where sums of integers are exact."""
        numbers, weight = x.double() - self.in_steps.zero, self.weight.double()
        if self.conv_arguments:
            stride, padding, dilation, groups = self.conv_arguments
            sums = F.conv2d(numbers, weight, None, stride, padding, dilation, groups)
        else:
            sums = F.linear(numbers, weight)
        by_channel = (1, -1, *[1] * (sums.dim() - 2))
        output = sums * (self.in_steps.scale * self.scales.double()).view(by_channel)
        if self.bias is not None:
            output = output + self.bias.double().view(by_channel)
        if self.activation == "relu":
            output = output.relu()
        if self.dtype != torch.uint8:
            return output.to(self.dtype)
        return (
            (output / self.out_steps.scale)
            .round()
            .add(self.out_steps.zero)
            .clamp(0, 255)
            .to(torch.uint8)
        )


def _as_convolution(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Convert a batch norm to a convolution with one weight for each channel."""
    channels = norm.num_features
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        layer.weight.copy_(factor.view(-1, 1, 1, 1))
        layer.bias.copy_(norm.bias - norm.running_mean * factor)  # type: ignore[union-attr]
    return layer
