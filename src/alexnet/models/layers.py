"""The parts a network is specified with, each a frozen value that knows its arithmetic.

Every part can say its output shape, the span of its input that one output sees, and build its
module. Shapes here leave out the batch: (C, H, W) for maps, (F,) after the first fully connected
layer.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.dropout import DropoutLayer, PaperDropout
from alexnet.models.fast import StridedConv, Window
from alexnet.models.norm import ResponseNormLayer

Shape = tuple[int, ...]
Std = float | Literal["he", "torch"]
"""Deviation of the first weights, drawn from a normal distribution; "he" is sqrt(2 / fan_in), the
scale that ReLU keeps; "torch" is torch's own rule, uniform in +-1 / sqrt(fan_in), biases too."""


class TooSmall(UsageError):
    """An input on which a window does not fit."""


class Part:
    """One step of a network. `label` is its name, or its kind where the position names it."""

    label: str

    def span(self, given: Shape) -> tuple[int, int]:
        """(side of the window on its input, stride), in positions."""
        return 1, 1

    def shape(self, given: Shape) -> Shape:
        return given

    def build(self, given: Shape) -> nn.Module:
        raise NotImplementedError


@dataclass(frozen=True)
class Conv(Part):
    """Convolution with bias. `ceil` rounds the number of outputs up, as cuda-convnet does: the
    last window reaches over the edge, into zeros."""

    label: str
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    std: Std = "he"
    bias: float = 0.0
    ceil: bool = False

    def span(self, given: Shape) -> tuple[int, int]:
        return self.kernel, self.stride

    def shape(self, given: Shape) -> Shape:
        return (self.out, *(_slide(self, side) for side in _sides(self, given)))

    def build(self, given: Shape) -> nn.Module:
        channels, sides = given[0], given[1:]
        pad, groups = self.padding, self.groups
        if self.stride == 1:
            layer = nn.Conv2d(channels, self.out, self.kernel, 1, pad, groups=groups)
        else:
            below, right = (  # how far the last window reaches over the edge
                max((count - 1) * self.stride + self.kernel - side - 2 * pad, 0)
                for count, side in zip(self.shape(given)[1:], sides, strict=True)
            )
            around = (pad, pad + right, pad, pad + below)
            layer = StridedConv(channels, self.out, self.kernel, self.stride, around, groups)
        return _initialise(layer, self.std, self.bias, fan_in(self, given))


@dataclass(frozen=True)
class Local(Part):
    """A convolution whose weights and biases are not shared between places. Stride 1."""

    label: str
    out: int
    kernel: int
    padding: int = 0
    std: Std = "he"
    bias: float = 0.0
    stride: Literal[1] = 1
    ceil: Literal[False] = False

    def span(self, given: Shape) -> tuple[int, int]:
        return self.kernel, 1

    def shape(self, given: Shape) -> Shape:
        return (self.out, *(_slide(self, side) for side in _sides(self, given)))

    def build(self, given: Shape) -> nn.Module:
        layer = UnsharedConv(given[0], self.shape(given), self.kernel, self.padding)
        return _initialise(layer, self.std, self.bias, fan_in(self, given))


class UnsharedConv(nn.Module):
    """A convolution whose weights are not shared between places: cuda-convnet's local layers.

    weight (H'W', C k k, out), bias (out, H', W'). Shapes: (N, C, H, W) -> (N, out, H', W').

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


@dataclass(frozen=True)
class Linear(Part):
    """Fully connected layer with bias; maps are flattened in (C, H, W) order first."""

    label: str
    out: int
    std: Std = "he"
    bias: float = 0.0

    def shape(self, given: Shape) -> Shape:
        return (self.out,)

    def build(self, given: Shape) -> nn.Module:
        layer = nn.Linear(math.prod(given), self.out)
        return _initialise(layer, self.std, self.bias, fan_in(self, given))


@dataclass(frozen=True)
class ReLU(Part):
    label: str = "relu"

    def build(self, given: Shape) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class Tanh(Part):
    label: str = "tanh"

    def build(self, given: Shape) -> nn.Module:
        return nn.Tanh()


@dataclass(frozen=True)
class Pool(Part):
    """Max or mean of a window. padding "same" is TensorFlow's: ceil(side / stride) outputs.

    `ceil` rounds the number of outputs up, as Caffe and cuda-convnet do; a mean is over the part
    of the window that is inside.
    """

    kernel: int
    stride: int
    padding: int | Literal["same"] = 0
    kind: Literal["max", "mean"] = "max"
    ceil: bool = False
    label: str = "pool"

    def span(self, given: Shape) -> tuple[int, int]:
        return self.kernel, self.stride

    def shape(self, given: Shape) -> Shape:
        sides = _sides(self, given)
        if self.padding == "same":
            return (given[0], *(math.ceil(side / self.stride) for side in sides))
        return (given[0], *(_slide(self, side) for side in sides))

    def build(self, given: Shape) -> nn.Module:
        if self.kind == "mean":
            if self.padding == "same":
                raise UsageError(f"{self.label}: padding 'same' is for max pools only")
            return nn.AvgPool2d(self.kernel, self.stride, self.padding, self.ceil, False)
        if self.padding != "same":
            return nn.MaxPool2d(self.kernel, self.stride, self.padding, ceil_mode=self.ceil)
        (top, bottom), (left, right) = (self._pads(side) for side in given[1:])
        pad = nn.ConstantPad2d((left, right, top, bottom), float("-inf"))
        return nn.Sequential(pad, nn.MaxPool2d(self.kernel, self.stride))

    def _pads(self, side: int) -> tuple[int, int]:
        total = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class MeanTo(Part):
    """Means over as many windows as make a map of `side` x `side`; one of that side passes."""

    side: int
    label: str = "avgpool"

    def span(self, given: Shape) -> tuple[int, int]:
        side = max(given[1:])
        starts = [i * side // self.side for i in range(self.side)]
        ends = [math.ceil((i + 1) * side / self.side) for i in range(self.side)]
        window = max(end - start for start, end in zip(starts, ends, strict=True))
        return window, max(side // self.side, 1)

    def shape(self, given: Shape) -> Shape:
        _sides(self, given)
        return (given[0], self.side, self.side)

    def build(self, given: Shape) -> nn.Module:
        return nn.AdaptiveAvgPool2d(self.side)


@dataclass(frozen=True)
class BatchNorm(Part):
    momentum: float = 0.1
    label: str = "bn"

    def build(self, given: Shape) -> nn.Module:
        kind = nn.BatchNorm2d if len(given) == 3 else nn.BatchNorm1d
        return kind(given[0], momentum=self.momentum)


@dataclass(frozen=True)
class ResponseNorm(Part):
    """Local response normalisation, see `response_norm`. Source: paper, section 3.3."""

    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    divide: bool = False
    groups: int = 1
    window: Window = "channels"
    label: str = "norm"

    def span(self, given: Shape) -> tuple[int, int]:
        return (self.n if self.window == "map" else 1), 1

    def build(self, given: Shape) -> nn.Module:
        names = ("n", "alpha", "beta", "k", "divide", "groups", "window")
        return ResponseNormLayer(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Dropout(Part):
    """With `rescale`, what is kept is divided by 1 - rate in training, and testing changes nothing;
    without, it is kept as it is and testing multiplies by 1 - rate (paper, section 4.2)."""

    rate: float = 0.5
    rescale: bool = True
    label: str = "drop"

    def build(self, given: Shape) -> nn.Module:
        return DropoutLayer(self.rate) if self.rescale else PaperDropout(self.rate)


def fan_in(part: Conv | Local | Linear, given: Shape) -> int:
    """Numbers that one output is a sum of."""
    if isinstance(part, Linear):
        return math.prod(given)
    return given[0] // (part.groups if isinstance(part, Conv) else 1) * part.kernel**2


def initial(part: Conv | Local | Linear, given: Shape) -> float:
    """The deviation its first weights are drawn with."""
    if part.std == "he":
        return math.sqrt(2 / fan_in(part, given))
    return math.sqrt(1 / 3 / fan_in(part, given)) if part.std == "torch" else part.std


def _sides(part: Part, given: Shape) -> Shape:
    if len(given) != 3:
        raise UsageError(f"{part.label} works on maps and comes after a flattened {given}")
    return given[1:]


def _slide(part: Conv | Local | Pool, side: int) -> int:
    assert part.padding != "same"
    room = side + 2 * part.padding - part.kernel
    if room < 0:
        least = part.kernel - 2 * part.padding
        raise TooSmall(f"{part.label} needs {least} pixels a side and is given {side}")
    if not part.ceil:
        return room // part.stride + 1
    count = math.ceil(room / part.stride) + 1
    # A pool leaves out a last window that would begin outside.
    outside = (count - 1) * part.stride >= side + part.padding
    return count - (isinstance(part, Pool) and outside)


def _initialise(layer: Any, std: Std, bias: float, inputs: int) -> nn.Module:
    if std == "torch":
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.uniform_(layer.bias, -bound, bound)
    else:
        nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / inputs) if std == "he" else std)
        nn.init.constant_(layer.bias, bias)
    assert isinstance(layer, nn.Module)
    return layer
