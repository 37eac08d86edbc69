"""Trained networks for inference: layers folded and cast once, or computed in 8-bit integers.

In int8, weights have one scale for each output channel. Signals between layers are uint8, with one
scale a tensor, from the `Ranges` that were measured. Response norm, and all else that is neither a
product nor a maximum nor a ReLU, is computed on floats in between. N images, C channels, K classes.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from alexnet.errors import Unavailable
from alexnet.models.dropout import DropoutLayer, PaperDropout
from alexnet.models.fast import (
    MAX_CHANNELS,
    IntegerPool,
    Product,
    Steps,
    StridedConv,
    ToIntegers,
    has_int8,
)
from alexnet.models.net import Net
from alexnet.runtime import choose_precision
from alexnet.support.options import option

MIN_CHANNELS = 8  # with fewer, the processor's units for products stay mostly empty

Ranges = Mapping[str, tuple[float, float]]
"""The smallest and the largest input of each part of a network."""


class Inference(nn.Module):
    """A network for inference, as fast as torch allows. Shapes: (N, C, H, W) -> logits (N, K).

    Batch norms are folded into the layers before them. With `precision` bf16 the weights are cast
    once, here; autocast casts them at every call, which for one image takes longer than the
    products. The last layer stays float32, as in `Net`. Unchanged layers are those of `net`.
    """

    def __init__(self, net: Net, precision: str) -> None:
        super().__init__()
        self.kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.layers = nn.ModuleDict(fold_batch_norms({name: net.part(name) for name in net.parts}))
        *body, self.last = self.layers
        for name in body:
            self.layers[name] = self._cast(self.layers[name])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.kind)
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Linear) and x.dim() > 2:
                x = x.flatten(1)
            x = layer(x.float() if name == self.last else x)
        return x

    def _cast(self, layer: nn.Module) -> nn.Module:
        if self.kind == torch.float32 or isinstance(layer, _BatchNorm):
            return layer
        return (
            copy.deepcopy(layer).to(self.kind) if any(True for _ in layer.parameters()) else layer
        )


def fold_batch_norms(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Fold each batch norm that directly follows a convolution or linear layer into that layer."""
    folded: dict[str, nn.Module] = {}
    before = ""
    for name, layer in layers.items():
        previous = folded.get(before)
        if type(layer) is nn.BatchNorm2d and isinstance(previous, nn.Conv2d):
            folded[before] = fuse_conv_bn_eval(previous.eval(), layer.eval())
        elif type(layer) is nn.BatchNorm1d and isinstance(previous, nn.Linear):
            folded[before] = fuse_linear_bn_eval(previous.eval(), layer.eval())
        else:
            folded[name] = layer
        before = name
    return folded


def require_int8() -> None:
    """Raise Unavailable if torch or the processor has no exact products of integers."""
    if not has_int8():
        raise Unavailable(
            "int8: this processor, or this build of torch, has no exact products of integers: "
            f"use {option('engine', 'torch')}"
        )


@torch.inference_mode()
def measure_ranges(net: Net, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Measure the range of each part's inputs over batches of preprocessed images (N, C, H, W).

    Raises Unavailable if an input is not finite.
    """
    names = list(net.parts)
    ranges = dict.fromkeys(names, (math.inf, -math.inf))
    for images in batches:
        _, outputs = net.activations(images, names)
        for name, x in zip(names, [images, *outputs.values()], strict=False):
            low, high = (float(end) for end in x.aminmax())
            if not math.isfinite(low + high):
                raise Unavailable(
                    f"int8: the inputs of {name} range from {low:g} to {high:g}: weights before it "
                    "are not finite or too large; use another checkpoint or "
                    f"{option('engine', 'torch')}"
                )
            ranges[name] = min(low, ranges[name][0]), max(high, ranges[name][1])
    return ranges


class Int8(nn.Module):
    """A network for inference in int8, on the CPU. Shapes: float32 (N, C, H, W) -> logits (N, K).

    Batch norms are folded into the layers before them; one after a pool becomes a product for each
    channel. A first convolution is rearranged if that gives it at least `min_channels` channels.
    Raises Unavailable if torch or the processor has no exact products of integers.
    """

    def __init__(self, net: Net, ranges: Ranges, min_channels: int = MIN_CHANNELS) -> None:
        super().__init__()
        require_int8()
        precision = choose_precision("auto", torch.device("cpu"))
        between = torch.bfloat16 if precision == "bf16" else torch.float32
        stretches, start = _stretches(net), None
        around, step = _rearrange_first(stretches, min_channels)
        ends = [Steps.over(*ranges[stretch.name]) for stretch in stretches[1:]]
        self.steps = nn.Sequential()
        for stretch, end in zip(stretches, [*ends, None], strict=True):
            self.steps.extend(_steps_of(stretch, start, end, between))
            start = end
        first = next(m for m in self.steps if isinstance(m, ToIntegers))
        first.around, first.step = around, step
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.steps(images)
        return logits


@dataclass
class _Stretch:
    """A product and the layers after it, up to the next product.

    `shape` is that of its input for one image. The first stretch, before all products, has no
    product.
    """

    name: str
    product: nn.Module | None
    shape: torch.Size
    after: list[nn.Module] = field(default_factory=list)


def _stretches(net: Net) -> list[_Stretch]:
    with torch.inference_mode():
        _, outputs = net.activations(images := torch.zeros(1, *net.input_shape), net.parts)
    inputs = dict(zip(net.parts, [images, *outputs.values()], strict=False))
    stretches = [_Stretch("", None, images.shape)]
    for name, layer in fold_batch_norms({name: net.part(name) for name in net.parts}).items():
        shape = inputs[name].shape
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            stretches.append(_Stretch(name, layer, shape))
        elif not _is_identity(layer, shape[-1]):
            stretches[-1].after.append(layer)
    return stretches


def _rearrange_first(stretches: list[_Stretch], min_channels: int) -> tuple[tuple[int, ...], int]:
    """Rearrange a first convolution that strides over few channels, for the same sums.

    It reads `stride` neighbours of a row as one place of more channels, so that no channel of a
    product is empty. Returns the padding of the images (left, right, top, bottom), and the stride;
    1 where nothing is rearranged.

    Images need no copy for it. `StridedConv`, for training, makes blocks, which need a copy and
    make the gradient faster.
    """
    stretch = stretches[1]
    layer, (_, channels, height, width) = stretch.product, stretch.shape
    if not isinstance(layer, StridedConv) or stretches[0].after or layer.groups > 1:
        return (0, 0, 0, 0), 1
    (stride, _), (kernel, _), (left, right, top, bottom) = (
        layer.stride, layer.kernel_size, layer.around,
    )  # fmt: skip
    if not min_channels <= channels * stride <= MAX_CHANNELS:
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


def _is_identity(layer: nn.Module, side: int) -> bool:
    """Whether a layer changes nothing in inference, on maps of `side` x `side`."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size == side
    return isinstance(layer, DropoutLayer) and not isinstance(layer, PaperDropout)


def _steps_of(
    stretch: _Stretch, start: Steps | None, end: Steps | None, between: torch.dtype
) -> Iterator[nn.Module]:
    """Yield the modules of a stretch, from integers `start` to integers `end`, or to logits.

    Layers that need floats come first. Without any, the product's sums are rounded once. A ReLU
    needs no module: its outputs are not below 0, so that the smallest integer stands for 0.
    """
    after = stretch.after
    split = max(
        (i + 1 for i, m in enumerate(after) if end is None or not _keeps_order(m)), default=0
    )
    floats, integers = after[:split], after[split:]
    if end is not None:
        kept = math.prod(1 - m.p for m in integers if isinstance(m, PaperDropout))
        end = Steps(end.scale / kept, end.zero)
    if stretch.product is not None:
        assert start is not None
        gives = torch.float32 if end is None else between if floats else end
        relu = bool(floats) and isinstance(floats[0], nn.ReLU)
        yield Product(stretch.product, stretch.shape, start, gives, relu)
        floats = floats[relu:]
    is_hidden = stretch.product is not None and end is not None  # images, logits stay float32
    for layer in floats:
        own = is_hidden and any(True for _ in layer.parameters())
        yield copy.deepcopy(layer).to(between) if own else layer
    if end is not None and (split or stretch.product is None):
        yield ToIntegers(end)
    for layer in integers:
        if not isinstance(layer, nn.ReLU | PaperDropout):
            yield IntegerPool(layer)


def _keeps_order(layer: nn.Module) -> bool:
    """Whether a layer keeps the order of numbers, so that rounding may come before it."""
    if isinstance(layer, nn.Sequential):  # a pool with TensorFlow's padding
        return isinstance(layer[-1], nn.MaxPool2d)
    return isinstance(layer, nn.ReLU | nn.MaxPool2d | PaperDropout)
