"""A trained network in integers of 8 bits, of which a processor multiplies four times as many.

Weights have a scale an output channel. What goes from layer to layer is uint8, with one scale a
tensor, from the `Ranges` that were seen. What is no product, maximum or ReLU, as response norm,
works on floats in between. N images, C channels.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import Unavailable
from alexnet.models.dropout import DropoutLayer, PaperDropout
from alexnet.models.fast import (
    MOST_CHANNELS,
    IntegerPool,
    Product,
    Steps,
    StridedConv,
    ToIntegers,
    has_int8,
)
from alexnet.models.net import Net
from alexnet.options import option
from alexnet.runtime import choose_precision
from alexnet.training.infer import folded

FEW = 8  # channels, below which a processor's units for products stay mostly empty

Ranges = Mapping[str, tuple[float, float]]
"""The least and the largest number that each part of a network is given."""


def require_int8() -> None:
    """Raises Unavailable where torch or the processor has no exact products of integers."""
    if not has_int8():
        raise Unavailable(
            "int8: this processor, or build of torch, has no exact products of integers: "
            f"use {option('engine', 'torch')}"
        )


@torch.inference_mode()
def measure_ranges(net: Net, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """What each part is given over batches of preprocessed images (N, C, H, W).

    Raises Unavailable where that is not finite.
    """
    names = list(net.parts)
    found = dict.fromkeys(names, (math.inf, -math.inf))
    for images in batches:
        _, outputs = net.activations(images, names)
        for name, x in zip(names, [images, *outputs.values()], strict=False):
            low, high = (float(end) for end in x.aminmax())
            if not math.isfinite(low + high):
                raise Unavailable(
                    f"int8: what {name} is given goes from {low:g} to {high:g}: weights before it "
                    "are no numbers, or too large; use another checkpoint or "
                    f"{option('engine', 'torch')}"
                )
            found[name] = min(low, found[name][0]), max(high, found[name][1])
    return found


class Int8(nn.Module):
    """What a network answers, in int8. Shapes: (N, C, H, W) float32 -> logits (N, K) float32.

    On the CPU. Batch norms go into the layer before them, or after a pool are a product a channel.
    A first convolution is rearranged where that gives it `few` channels or more.
    Raises Unavailable where torch or the processor has no exact products of integers.
    """

    def __init__(self, net: Net, ranges: Ranges, few: int = FEW) -> None:
        super().__init__()
        require_int8()
        quick = choose_precision("auto", torch.device("cpu"))
        between = torch.bfloat16 if quick == "bf16" else torch.float32
        stretches, given = _stretches(net), None
        around, step = _take_by_rows(stretches, few)
        ends = [Steps.over(*ranges[stretch.name]) for stretch in stretches[1:]]
        self.steps = nn.Sequential()
        for stretch, end in zip(stretches, [*ends, None], strict=True):
            self.steps.extend(_steps_of(stretch, given, end, between))
            given = end
        first = next(m for m in self.steps if isinstance(m, ToIntegers))
        first.around, first.step = around, step
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


def _take_by_rows(stretches: list[_Stretch], few: int) -> tuple[tuple[int, ...], int]:
    """Lets a first convolution that strides over few channels take as many neighbours of a row as
    it strides for one place of more channels: the same sums, and no channels that are none. Returns
    how far images are to be padded for it (left, right, top, bottom), and its stride, or 1.

    The images lie in memory just so; `StridedConv` for training goes on to blocks, which need a
    copy and make its gradient faster.
    """
    stretch = stretches[1]
    layer, (_, channels, height, width) = stretch.product, stretch.shape
    if not isinstance(layer, StridedConv) or stretches[0].after or layer.groups > 1:
        return (0, 0, 0, 0), 1
    (stride, _), (kernel, _), (left, right, top, bottom) = (
        layer.stride, layer.kernel_size, layer.around,
    )  # fmt: skip
    if not few <= channels * stride <= MOST_CHANNELS:
        return (0, 0, 0, 0), 1
    reach = -(-kernel // stride)
    columns = (left + width + right - kernel) // stride + reach
    right = columns * stride - left - width
    rows = nn.Conv2d(channels * stride, layer.out_channels, (kernel, reach), (stride, 1))
    weight = F.pad(layer.weight.detach(), (0, reach * stride - kernel))
    weight = weight.reshape(*weight.shape[:3], reach, stride)
    with torch.no_grad():
        rows.weight.copy_(weight.permute(0, 4, 1, 2, 3).flatten(1, 2))
        rows.bias.copy_(layer.bias)  # type: ignore[union-attr, arg-type]
    stretch.product = rows
    stretch.shape = torch.Size((1, channels * stride, top + height + bottom, columns))
    return (left, right, top, bottom), stride


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
    inside = stretch.product is not None and end is not None  # images and logits stay float32
    for layer in floats:
        own = inside and any(True for _ in layer.parameters())
        yield copy.deepcopy(layer).to(between) if own else layer
    if end is not None and (split or stretch.product is None):
        yield ToIntegers(end)
    for layer in integers:
        if not isinstance(layer, nn.ReLU | PaperDropout):
            yield IntegerPool(layer)


def _of_order(layer: nn.Module) -> bool:
    """Whether it keeps the order of numbers, so that they may be rounded before it."""
    if isinstance(layer, nn.Sequential):  # a pool with TensorFlow's padding
        return isinstance(layer[-1], nn.MaxPool2d)
    return isinstance(layer, nn.ReLU | nn.MaxPool2d | PaperDropout)
