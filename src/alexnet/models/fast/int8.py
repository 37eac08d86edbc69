"""Layers of a network whose signals are integers of 8 bits: rounding, products, pools.

What goes in and out is uint8 with `Steps`, one scale a tensor; weights are int8 with one scale an
output channel. Products are oneDNN's, as torch's own quantised programs call them. With
ALEXNET_PLAIN=1 they are sums of float64, exact and slow, and oneDNN's differ by 1 in
an integer and a relative 1e-5 in a number at most (a test).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models.fast.strided import StridedConv
from alexnet.plain import is_plain
from alexnet.region import over_pieces

CHUNK = 200_000  # numbers rounded at a time


def has_int8() -> bool:
    """Whether this build of torch has products of integers (oneDNN's), and this processor sums them
    without a loss: one without VNNI or AMX cuts pairs of large ones off at 16 bits. With
    ALEXNET_PLAIN=1 everywhere."""
    return is_plain() or _has_exact_products()


@cache
def _has_exact_products() -> bool:
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    layer = nn.Linear(64, 8, bias=False)
    nn.init.ones_(layer.weight)
    full = torch.full((2, 64), 255, dtype=torch.uint8)
    with torch.inference_mode():
        made = Product(layer, full.shape, Steps(1.0, 0), torch.float32, relu=False)(full)
    return bool((made - 64 * 255).abs().max() < 1)


@dataclass(frozen=True)
class Steps:
    """What the integers 0 ... 255 stand for: (integer - zero) * scale."""

    scale: float
    zero: int

    @staticmethod
    def over(low: float, high: float) -> "Steps":
        """From low to high, and exactly 0, which is what convolutions pad with."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return Steps(scale, round(-low / scale))


class ToIntegers(nn.Module):
    """Rounds numbers to steps, as many at a time as a core's cache holds; of maps, which it pads,
    `step` neighbours of a row become channels of one place."""

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
        inside = out[:, top : top + height, left : left + width]  # or less: what no window reaches
        self._round(x.permute(0, 2, 3, 1)[:, :, : inside.shape[2]], inside)
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
    """The maximum of windows of uint8, along one axis after the other: torch's own has indices of
    8 bits there. What is outside is 0, the least there is."""

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
            count -= 1  # torch leaves out a last window that would begin outside
        beyond = max((count - 1) * stride + kernel - side - before, 0)
        if before or beyond:
            maps = F.pad(maps, (0, 0) * (3 - axis) + (before, beyond))
        reach = (count - 1) * stride + 1
        shifted = [
            maps[(slice(None),) * axis + (slice(k, k + reach, stride),)] for k in range(kernel)
        ]
        most = torch.maximum(shifted[0], shifted[1]) if kernel > 1 else shifted[0]
        for one in shifted[2:]:
            torch.maximum(most, one, out=most)
        return most


class Product(nn.Module):
    """A convolution, fully connected layer or batch norm of maps: integers of `given` to integers
    or, without rounding, to numbers of a type. `shape` is what it takes, of one image: weights
    that are packed for another are packed again at every call."""

    def __init__(
        self,
        layer: nn.Module,
        shape: torch.Size,
        given: Steps,
        gives: Steps | torch.dtype,
        relu: bool,
    ) -> None:
        super().__init__()
        self.given, self.around = given, None
        self.kind = torch.uint8 if isinstance(gives, Steps) else gives
        self.out = gives if isinstance(gives, Steps) else Steps(1.0, 0)
        self.then = "relu" if relu else "none"
        self.how: tuple[Any, ...] = ()
        if isinstance(layer, nn.BatchNorm2d):
            layer = _by_channel(layer)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach().float()
        self.bias = None if layer.bias is None else layer.bias.detach().float()
        largest = weight.flatten(1).abs().amax(1)
        self.scales = torch.where(largest > 0, largest, 127.0) / 127
        self.zeros = torch.zeros_like(self.scales, dtype=torch.int)
        by_channel = self.scales.view(-1, *[1] * (weight.dim() - 1))
        integers = (weight / by_channel).round().to(torch.int8)
        if isinstance(layer, nn.Conv2d):
            if isinstance(layer, StridedConv) and not layer.even:
                self.around = layer.around
                shape = F.pad(torch.empty(shape, device="meta"), self.around).shape
            stride, padding, dilation = map(list, (layer.stride, layer.padding, layer.dilation))
            self.how = (stride, padding, dilation, layer.groups)
        self.plain = is_plain()
        self.weight = integers if self.plain else self._pack(integers, list(shape))

    def _pack(self, integers: Tensor, shape: list[int]) -> Any:
        """The weights as oneDNN keeps them."""
        if not self.how:
            return torch.ops.onednn.qlinear_prepack(integers, None)
        return torch.ops.onednn.qconv_prepack(
            integers, self.scales, self.given.scale, self.given.zero, *self.how, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.around is not None:
            x = F.pad(x, self.around, value=self.given.zero)
        x = x if self.how else x.flatten(1)
        if self.plain:
            return self._multiply_plainly(x)
        do = torch.ops.onednn.qconv2d_pointwise if self.how else torch.ops.onednn.qlinear_pointwise
        made: Tensor = do(
            x, self.given.scale, self.given.zero, self.weight, self.scales, self.zeros, self.bias,
            *self.how, self.out.scale, self.out.zero, self.kind, self.then, [], "",
        )  # fmt: skip
        return made

    def _multiply_plainly(self, x: Tensor) -> Tensor:
        """The same product in float64: sums of integers are exact there."""
        numbers, weight = x.double() - self.given.zero, self.weight.double()
        if self.how:
            stride, padding, dilation, groups = self.how
            sums = F.conv2d(numbers, weight, None, stride, padding, dilation, groups)
        else:
            sums = F.linear(numbers, weight)
        by_channel = (1, -1, *[1] * (sums.dim() - 2))
        made = sums * (self.given.scale * self.scales.double()).view(by_channel)
        if self.bias is not None:
            made = made + self.bias.double().view(by_channel)
        if self.then == "relu":
            made = made.relu()
        if self.kind != torch.uint8:
            return made.to(self.kind)
        return (made / self.out.scale).round().add(self.out.zero).clamp(0, 255).to(torch.uint8)


def _by_channel(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A batch norm as a convolution of one weight a channel."""
    channels = norm.num_features
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        layer.weight.copy_(factor.view(-1, 1, 1, 1))
        layer.bias.copy_(norm.bias - norm.running_mean * factor)  # type: ignore[union-attr]
    return layer
