"""The parts of a network's specification, each a frozen dataclass.

Every part knows its output shape and the window of its input that one output sees, and builds its
module. Shapes do not include the batch: (C, H, W) for maps, (F,) after the first fully connected
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
"""Standard deviation of the normally distributed initial weights. "he" is sqrt(2 / fan_in), with
which ReLU keeps the size of signals. "torch" is torch's own rule: weights and biases are uniform in
+-1 / sqrt(fan_in)."""


class TooSmall(UsageError):
    """An input is smaller than a window."""


class Part:
    """One part of a network. `label` is the name of a layer, or the kind of any other part."""

    label: str

    def span(self, in_shape: Shape) -> tuple[int, int]:
        """Return (side of the window on the input, stride), in positions."""
        return 1, 1

    def shape(self, in_shape: Shape) -> Shape:
        """Return the output shape."""
        return in_shape

    def build(self, in_shape: Shape) -> nn.Module:
        """Build the module, with initial weights from torch's global generator."""
        raise NotImplementedError


@dataclass(frozen=True)
class Conv(Part):
    """Convolution with bias. `ceil` rounds the number of outputs up, as cuda-convnet does: the last
    window reaches beyond the edge, into zeros."""

    label: str
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    std: Std = "he"
    bias: float = 0.0
    ceil: bool = False

    def span(self, in_shape: Shape) -> tuple[int, int]:
        return self.kernel, self.stride

    def shape(self, in_shape: Shape) -> Shape:
        return (self.out, *(_slide(self, side) for side in _sides(self, in_shape)))

    def build(self, in_shape: Shape) -> nn.Module:
        channels, sides = in_shape[0], in_shape[1:]
        pad, groups = self.padding, self.groups
        if self.stride == 1:
            layer = nn.Conv2d(channels, self.out, self.kernel, 1, pad, groups=groups)
        else:
            below, right = (  # how far the last window reaches beyond the edge
                max((count - 1) * self.stride + self.kernel - side - 2 * pad, 0)
                for count, side in zip(self.shape(in_shape)[1:], sides, strict=True)
            )
            around = (pad, pad + right, pad, pad + below)
            layer = StridedConv(channels, self.out, self.kernel, self.stride, around, groups)
        return _initialise(layer, self.std, self.bias, fan_in(self, in_shape))


@dataclass(frozen=True)
class Local(Part):
    """A convolution whose weights and biases differ from place to place. Stride 1."""

    label: str
    out: int
    kernel: int
    padding: int = 0
    std: Std = "he"
    bias: float = 0.0
    stride: Literal[1] = 1
    ceil: Literal[False] = False

    def span(self, in_shape: Shape) -> tuple[int, int]:
        return self.kernel, 1

    def shape(self, in_shape: Shape) -> Shape:
        return (self.out, *(_slide(self, side) for side in _sides(self, in_shape)))

    def build(self, in_shape: Shape) -> nn.Module:
        layer = UnsharedConv(in_shape[0], self.shape(in_shape), self.kernel, self.padding)
        return _initialise(layer, self.std, self.bias, fan_in(self, in_shape))


class UnsharedConv(nn.Module):
    """A convolution whose weights differ from place to place: cuda-convnet's local layer.

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
        # Without the number of images, which an export would treat as a constant.
        maps: Tensor = torch.unflatten(places.permute(1, 2, 0), 2, self.out[1:])
        return maps + self.bias


@dataclass(frozen=True)
class Linear(Part):
    """Fully connected layer with bias; maps are flattened in (C, H, W) order first."""

    label: str
    out: int
    std: Std = "he"
    bias: float = 0.0

    def shape(self, in_shape: Shape) -> Shape:
        return (self.out,)

    def build(self, in_shape: Shape) -> nn.Module:
        layer = nn.Linear(math.prod(in_shape), self.out)
        return _initialise(layer, self.std, self.bias, fan_in(self, in_shape))


@dataclass(frozen=True)
class ReLU(Part):
    label: str = "relu"

    def build(self, in_shape: Shape) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class Tanh(Part):
    label: str = "tanh"

    def build(self, in_shape: Shape) -> nn.Module:
        return nn.Tanh()


@dataclass(frozen=True)
class Pool(Part):
    """Max or mean of a window. padding "same" is TensorFlow's: ceil(side / stride) outputs.

    `ceil` rounds the number of outputs up, as Caffe and cuda-convnet do. A mean counts only the
    part of a window within the map.
    """

    kernel: int
    stride: int
    padding: int | Literal["same"] = 0
    kind: Literal["max", "mean"] = "max"
    ceil: bool = False
    label: str = "pool"

    def span(self, in_shape: Shape) -> tuple[int, int]:
        return self.kernel, self.stride

    def shape(self, in_shape: Shape) -> Shape:
        sides = _sides(self, in_shape)
        if self.padding == "same":
            return (in_shape[0], *(math.ceil(side / self.stride) for side in sides))
        return (in_shape[0], *(_slide(self, side) for side in sides))

    def build(self, in_shape: Shape) -> nn.Module:
        if self.kind == "mean":
            if self.padding == "same":
                raise UsageError(f"{self.label}: padding 'same' is for max pools only")
            return nn.AvgPool2d(self.kernel, self.stride, self.padding, self.ceil, False)
        if self.padding != "same":
            return nn.MaxPool2d(self.kernel, self.stride, self.padding, ceil_mode=self.ceil)
        (top, bottom), (left, right) = (self._pads(side) for side in in_shape[1:])
        pad = nn.ConstantPad2d((left, right, top, bottom), float("-inf"))
        return nn.Sequential(pad, nn.MaxPool2d(self.kernel, self.stride))

    def _pads(self, side: int) -> tuple[int, int]:
        total = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class MeanTo(Part):
    """Adaptive average pooling to `side` x `side`; a map of that size does not change."""

    side: int
    label: str = "avgpool"

    def span(self, in_shape: Shape) -> tuple[int, int]:
        side = max(in_shape[1:])
        starts = [i * side // self.side for i in range(self.side)]
        ends = [math.ceil((i + 1) * side / self.side) for i in range(self.side)]
        window = max(end - start for start, end in zip(starts, ends, strict=True))
        return window, max(side // self.side, 1)

    def shape(self, in_shape: Shape) -> Shape:
        _sides(self, in_shape)
        return (in_shape[0], self.side, self.side)

    def build(self, in_shape: Shape) -> nn.Module:
        return nn.AdaptiveAvgPool2d(self.side)


@dataclass(frozen=True)
class BatchNorm(Part):
    momentum: float = 0.1
    label: str = "bn"

    def build(self, in_shape: Shape) -> nn.Module:
        kind = nn.BatchNorm2d if len(in_shape) == 3 else nn.BatchNorm1d
        return kind(in_shape[0], momentum=self.momentum)


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

    def span(self, in_shape: Shape) -> tuple[int, int]:
        return (self.n if self.window == "map" else 1), 1

    def build(self, in_shape: Shape) -> nn.Module:
        names = ("n", "alpha", "beta", "k", "divide", "groups", "window")
        return ResponseNormLayer(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Dropout(Part):
    """Dropout. With `rescale`, training divides kept activations by 1 - rate. Without, inference
    multiplies all activations by 1 - rate (paper, section 4.2)."""

    rate: float = 0.5
    rescale: bool = True
    label: str = "drop"

    def build(self, in_shape: Shape) -> nn.Module:
        return DropoutLayer(self.rate) if self.rescale else PaperDropout(self.rate)


def fan_in(part: Conv | Local | Linear, in_shape: Shape) -> int:
    """Return the number of inputs that one output depends on."""
    if isinstance(part, Linear):
        return math.prod(in_shape)
    return in_shape[0] // (part.groups if isinstance(part, Conv) else 1) * part.kernel**2


def initial_std(part: Conv | Local | Linear, in_shape: Shape) -> float:
    """Return the standard deviation of the initial weights."""
    if part.std == "he":
        return math.sqrt(2 / fan_in(part, in_shape))
    return math.sqrt(1 / 3 / fan_in(part, in_shape)) if part.std == "torch" else part.std


def _sides(part: Part, in_shape: Shape) -> Shape:
    if len(in_shape) != 3:
        raise UsageError(f"{part.label} works on maps, and its input is flattened: {in_shape}")
    return in_shape[1:]


def _slide(part: Conv | Local | Pool, side: int) -> int:
    assert part.padding != "same"
    free = side + 2 * part.padding - part.kernel
    if free < 0:
        least = part.kernel - 2 * part.padding
        raise TooSmall(f"{part.label} needs {least} pixels a side, and its input has {side}")
    if not part.ceil:
        return free // part.stride + 1
    count = math.ceil(free / part.stride) + 1
    # A pool has no window that begins beyond the edge.
    is_outside = (count - 1) * part.stride >= side + part.padding
    return count - (isinstance(part, Pool) and is_outside)


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
