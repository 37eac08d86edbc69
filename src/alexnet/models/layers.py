"""The parts a network is specified with, each a frozen value that knows its arithmetic.

Every part can say its output shape, its multiply-adds, and build its module. Shapes here leave out
the batch: (C, H, W) for maps, (F,) after the first fully connected layer.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import UsageError

Shape = tuple[int, ...]


class Part(Protocol):
    """One step of a network. `label` is its name, or its kind where the position names it."""

    @property
    def label(self) -> str: ...
    def shape(self, given: Shape) -> Shape: ...
    def build(self, given: Shape) -> nn.Module: ...


@dataclass(frozen=True)
class Conv:
    """Convolution with bias. std None is He's sqrt(2 / fan_in), the scale ReLU keeps."""

    label: str
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    std: float | None = None
    bias: float = 0.0

    def shape(self, given: Shape) -> Shape:
        if len(given) != 3:
            raise UsageError(f"{self.label} is a convolution and comes after a flattened {given}")
        _, *sides = given
        return (self.out, *(_slide(self, side, self.padding) for side in sides))

    def build(self, given: Shape) -> nn.Module:
        channels = given[0]
        layer = nn.Conv2d(
            channels, self.out, self.kernel, self.stride, self.padding, groups=self.groups
        )
        return _initialise(layer, self.std, self.bias, channels // self.groups * self.kernel**2)


@dataclass(frozen=True)
class Linear:
    """Fully connected layer with bias; maps are flattened in (C, H, W) order first."""

    label: str
    out: int
    std: float | None = None
    bias: float = 0.0

    def shape(self, given: Shape) -> Shape:
        return (self.out,)

    def build(self, given: Shape) -> nn.Module:
        fan_in = math.prod(given)
        return _initialise(nn.Linear(fan_in, self.out), self.std, self.bias, fan_in)


@dataclass(frozen=True)
class ReLU:
    label: str = "relu"

    def shape(self, given: Shape) -> Shape:
        return given

    def build(self, given: Shape) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class MaxPool:
    """Max pooling. padding "same" is TensorFlow's: as many outputs as ceil(side / stride)."""

    kernel: int
    stride: int
    padding: int | Literal["same"] = 0
    label: str = "pool"

    def shape(self, given: Shape) -> Shape:
        channels, *sides = given
        if self.padding == "same":
            return (channels, *(math.ceil(side / self.stride) for side in sides))
        return (channels, *(_slide(self, side, self.padding) for side in sides))

    def build(self, given: Shape) -> nn.Module:
        if self.padding != "same":
            return nn.MaxPool2d(self.kernel, self.stride, self.padding)
        (top, bottom), (left, right) = (self._pads(side) for side in given[1:])
        pad = nn.ConstantPad2d((left, right, top, bottom), float("-inf"))
        return nn.Sequential(pad, nn.MaxPool2d(self.kernel, self.stride))

    def _pads(self, side: int) -> tuple[int, int]:
        total = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class BatchNorm:
    momentum: float = 0.1
    label: str = "bn"

    def shape(self, given: Shape) -> Shape:
        return given

    def build(self, given: Shape) -> nn.Module:
        kind = nn.BatchNorm2d if len(given) == 3 else nn.BatchNorm1d
        return kind(given[0], momentum=self.momentum)


@dataclass(frozen=True)
class ResponseNorm:
    """Local response normalisation over channels, b = a / (k + alpha * sum a^2)^beta.

    Source: paper, section 3.3. alpha is the paper's: it multiplies the sum as it stands, where
    torch and the 2012 code divide it by the window n first.
    """

    n: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    label: str = "norm"

    def shape(self, given: Shape) -> Shape:
        return given

    def build(self, given: Shape) -> nn.Module:
        return nn.LocalResponseNorm(self.n, self.alpha * self.n, self.beta, self.k)


@dataclass(frozen=True)
class Dropout:
    rate: float = 0.5
    label: str = "drop"

    def shape(self, given: Shape) -> Shape:
        return given

    def build(self, given: Shape) -> nn.Module:
        return nn.Dropout(self.rate)


def _slide(part: Conv | MaxPool, side: int, padding: int) -> int:
    room = side + 2 * padding - part.kernel
    if room < 0:
        raise UsageError(
            f"{part.label} needs at least {part.kernel - 2 * padding} pixels a side and is given "
            f"{side}: use a larger --crop"
        )
    return room // part.stride + 1


def _initialise(
    layer: nn.Conv2d | nn.Linear, std: float | None, bias: float, fan_in: int
) -> nn.Module:
    nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_in) if std is None else std)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer


def response_norm(
    x: Tensor, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """Local response normalisation over channels as the paper's equation has it (section 3.3).

    Shapes: (N, C, H, W) -> the same. torch divides alpha by n, so it is given n times as much.
    """
    return F.local_response_norm(x, n, alpha * n, beta, k)
