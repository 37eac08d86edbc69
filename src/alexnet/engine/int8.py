"""A trained network in integers of 8 bits, of which a processor multiplies four times as many.

Weights have a scale an output channel. What goes from layer to layer is uint8, with one scale a
tensor, from the `Ranges` that were seen. What is no product, maximum or ReLU, as response norm,
works on floats in between. N images, C channels.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.engine.infer import folded
from alexnet.errors import Unavailable
from alexnet.models.dropout import DropoutLayer, PaperDropout
from alexnet.models.net import Net
from alexnet.models.strided import StridedConv
from alexnet.runtime import choose_precision

CHUNK = 200_000  # numbers rounded at a time

Ranges = Mapping[str, tuple[float, float]]
"""The least and the largest number that each part of a network is given."""


def has_int8() -> bool:
    """Whether this build of torch has products of integers (oneDNN's), on a processor."""
    return hasattr(torch.ops.onednn, "qconv2d_pointwise")


@torch.inference_mode()
def measure_ranges(net: Net, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """What each part is given over batches of preprocessed images (N, C, H, W)."""
    names = list(net.parts)
    found = dict.fromkeys(names, (math.inf, -math.inf))
    for images in batches:
        _, outputs = net.activations(images, names)
        for name, x in zip(names, [images, *outputs.values()], strict=False):
            low, high = (float(end) for end in x.aminmax())
            found[name] = min(low, found[name][0]), max(high, found[name][1])
    return found


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


class Int8(nn.Module):
    """What a network answers, in int8. Shapes: (N, C, H, W) float32 -> logits (N, K) float32.

    On the CPU. Batch norms go into the layer before them, or after a pool are a product a channel.
    Raises Unavailable where this build of torch has no such products.
    """

    def __init__(self, net: Net, ranges: Ranges) -> None:
        super().__init__()
        if not has_int8():
            raise Unavailable("int8: this build of torch has no such products: use --engine torch")
        quick = choose_precision("auto", torch.device("cpu"))
        between = torch.bfloat16 if quick == "bf16" else torch.float32
        stretches, given = _stretches(net), None
        ends = [Steps.over(*ranges[stretch.name]) for stretch in stretches[1:]]
        self.steps = nn.Sequential()
        for stretch, end in zip(stretches, [*ends, None], strict=True):
            self.steps.extend(_steps_of(stretch, given, end, between))
            given = end
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.steps(images)
        return logits


@dataclass
class _Stretch:
    """A product with what follows it up to the next one. `shape` is what it is given, of one
    image; the first stretch, before all products, has none."""

    name: str
    product: nn.Module | None
    shape: torch.Size
    after: list[nn.Module] = field(default_factory=list)


def _stretches(net: Net) -> list[_Stretch]:
    with torch.inference_mode():
        _, made = net.activations(images := torch.zeros(1, *net.input_shape), net.parts)
    given = dict(zip(net.parts, [images, *made.values()], strict=False))
    found = [_Stretch("", None, images.shape)]
    for name, layer in folded({name: net.part(name) for name in net.parts}).items():
        shape = given[name].shape
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            found.append(_Stretch(name, layer, shape))
        elif not _passes(layer, shape[-1]):
            found[-1].after.append(layer)
    return found


def _passes(layer: nn.Module, side: int) -> bool:
    """Whether it changes nothing in answers of maps of `side` x `side`."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size == side
    return isinstance(layer, DropoutLayer) and not isinstance(layer, PaperDropout)


def _steps_of(
    stretch: _Stretch, given: Steps | None, end: Steps | None, between: torch.dtype
) -> Iterator[nn.Module]:
    """From integers `given` to integers `end`, or to logits.

    What integers cannot do comes first; where they can do all, the product's sums are rounded once.
    A ReLU needs no step: what comes after it is not below 0, so 0 is its least integer.
    """
    after = stretch.after
    split = max((i + 1 for i, m in enumerate(after) if end is None or not _of_order(m)), default=0)
    floats, integers = after[:split], after[split:]
    if end is not None:
        kept = math.prod(1 - m.p for m in integers if isinstance(m, PaperDropout))
        end = Steps(end.scale / kept, end.zero)
    if stretch.product is not None:
        assert given is not None
        gives = torch.float32 if end is None else between if floats else end
        relu = bool(floats) and isinstance(floats[0], nn.ReLU)
        yield Product(stretch.product, stretch.shape, given, gives, relu)
        floats = floats[relu:]
    for layer in floats:
        yield copy.deepcopy(layer).to(between) if any(True for _ in layer.parameters()) else layer
    if end is not None and (split or stretch.product is None):
        yield _ToIntegers(end)
    for layer in integers:
        if not isinstance(layer, nn.ReLU | PaperDropout):
            yield _IntegerPool(layer)


def _of_order(layer: nn.Module) -> bool:
    """Whether it keeps the order of numbers, so that they may be rounded before it."""
    if isinstance(layer, nn.Sequential):  # a pool with TensorFlow's padding
        return isinstance(layer[-1], nn.MaxPool2d)
    return isinstance(layer, nn.ReLU | nn.MaxPool2d | PaperDropout)


class _ToIntegers(nn.Module):
    """Rounds numbers to steps, as many at a time as a core's cache holds."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.rounds = steps

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x, dtype=torch.uint8)
        at_once = max(CHUNK * len(x) // max(x.numel(), 1), 1)
        for start in range(0, len(x), at_once):
            rows = x[start : start + at_once].float() * (1 / self.rounds.scale)
            rows.add_(self.rounds.zero + 0.5).clamp_(0, 255)
            out[start : start + at_once].copy_(rows)
        return out


class _IntegerPool(nn.Module):
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
        integers = (weight / self.scales.view(-1, *[1] * (weight.dim() - 1))).round()
        self.zeros, integers = (
            torch.zeros_like(self.scales, dtype=torch.int),
            integers.to(torch.int8),
        )
        if isinstance(layer, nn.Conv2d):
            if isinstance(layer, StridedConv) and not layer.even:
                self.around = layer.around
                shape = F.pad(torch.empty(shape, device="meta"), self.around).shape
            stride, padding, dilation = map(list, (layer.stride, layer.padding, layer.dilation))
            self.how = (stride, padding, dilation, layer.groups)
            self.weight = torch.ops.onednn.qconv_prepack(
                integers, self.scales, given.scale, given.zero, *self.how, list(shape)
            )
        else:
            self.weight = torch.ops.onednn.qlinear_prepack(integers, None)

    def forward(self, x: Tensor) -> Tensor:
        do = torch.ops.onednn.qconv2d_pointwise if self.how else torch.ops.onednn.qlinear_pointwise
        if self.around is not None:
            x = F.pad(x, self.around, value=self.given.zero)
        x = x if self.how else x.flatten(1)
        made: Tensor = do(
            x, self.given.scale, self.given.zero, self.weight, self.scales, self.zeros, self.bias,
            *self.how, self.out.scale, self.out.zero, self.kind, self.then, [], "",
        )  # fmt: skip
        return made


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
