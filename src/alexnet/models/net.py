"""A network built from its specification, with every part under its field name."""

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.dropout import DropoutLayer, MaskSlice
from alexnet.models.fast import order_of_training_step
from alexnet.models.layers import (
    Conv,
    Dropout,
    Linear,
    Local,
    Part,
    Shape,
    TooSmall,
    fan_in,
    initial,
)
from alexnet.options import option

Spec = Sequence[Part]

LARGEST = 1024  # pixels; where the search for an input that fits ends


@dataclass(frozen=True)
class Preset:
    """A named network, with the input and classes it was made for.

    `sources` says where each kind of choice comes from (see `compare`; "biases" is how they are
    trained); `keys` gives parts another name in the state dict: {"conv1": "features.0"}.
    """

    spec: Callable[[int], Spec]
    size: int
    channels: int = 3
    classes: int = 10
    sources: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        return (self.spec.__doc__ or "").splitlines()[0]


def stage_of(name: str) -> str:
    """The number in a part's name: pool5 is of stage 5."""
    return name.lstrip(string.ascii_lowercase)


def named_parts(spec: Spec) -> list[tuple[str, Part]]:
    """Each part with its name: conv1, then relu1, pool1 ... after the layer they follow."""
    named: list[tuple[str, Part]] = []
    number = ""
    for part in spec:
        if isinstance(part, Conv | Local | Linear):
            number = stage_of(part.label)
            named.append((part.label, part))
        else:
            named.append((f"{part.label}{number}", part))
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two parts are called {twice[0]!r}: give one another label")
    return named


def with_dropout(spec: Spec, rate: float | None) -> Spec:
    """The same network with another rate in every dropout, or as it is where the rate is None."""
    if rate is None:
        return spec
    return [replace(p, rate=rate) if isinstance(p, Dropout) else p for p in spec]


class Net(nn.Module):
    """The network of a specification. Shapes: (N, C, H, W) -> logits (N, K), always float32.

    Parts are attributes by name, so the keys of the state dict are `conv1.weight` ... `fc8.bias`,
    unless `keys` gives them other names. The last layer is computed in float32 even under
    autocast: bfloat16 logits tie, and ties make top-5 figures meaningless.
    """

    def __init__(
        self,
        spec: Spec,
        given: Shape,
        dropout: float | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = given
        spec = with_dropout(spec, dropout)
        self.parts: dict[str, str] = {}
        self.layers: list[str] = []  # the parts with weights: conv1 ... fc8
        self._frozen: list[str] = []
        for name, part in named_parts(spec):
            path = (keys or {}).get(name, name)
            home, _, leaf = path.rpartition(".")
            if home and home not in self._modules:
                self.add_module(home, nn.Module())
            self.get_submodule(home).add_module(leaf, part.build(given))
            given = part.shape(given)
            self.parts[name] = path
            if isinstance(part, Conv | Local | Linear):
                self.layers.append(name)

    def part(self, name: str) -> nn.Module:
        """The module of a named part. A part that is not there is a UsageError."""
        if name not in self.parts:
            raise UsageError(f"no part {name!r}: there are {', '.join(self.parts)}")
        return self.get_submodule(self.parts[name])

    def stretch(self, entry: str) -> list[str]:
        """The parts that "conv2" or "conv1..conv5" names: each layer with what follows it."""
        first, _, last = entry.partition("..")
        for name in (first, last or first):
            if name not in self.layers:
                raise UsageError(f"no layer {name!r}: there are {', '.join(self.layers)}")
        begin, end = self.layers.index(first), self.layers.index(last or first) + 1
        if begin >= end:
            raise UsageError(f"{entry} runs backwards: write {last}..{first}")
        names = list(self.parts)
        stop = names.index(self.layers[end]) if end < len(self.layers) else len(names)
        return names[names.index(first) : stop]

    def freeze(self, entry: str) -> None:
        """Keeps the parts of a stretch as they are: weights, and the averages of batch norms."""
        for name in self.stretch(entry):
            self.part(name).requires_grad_(False)
            self._frozen.append(name)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Net":
        super().train(mode)
        for name in self._frozen:
            if isinstance(self.part(name), nn.modules.batchnorm._BatchNorm):
                self.part(name).eval()
        return self

    def set_mask_slice(self, mask_slice: MaskSlice | None) -> None:
        """Draw dropout masks for a whole batch, and use this part of them."""
        for module in self.modules():
            if isinstance(module, DropoutLayer):
                module.mask_slice = mask_slice

    def forward(self, images: Tensor) -> Tensor:
        return self.activations(images, ())[0]

    def activations(self, images: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and the output of each named part. A part that is not there is a UsageError."""
        kept_names = set(names)
        for name in kept_names:  # torch.compile of 2.11 cannot take keys from a set
            if name not in self.parts:
                self.part(name)
        kept: dict[str, Tensor] = {}
        last, x = next(reversed(self.parts)), images
        order: Iterable[str] = self.parts
        if self.training and not kept_names and not torch.compiler.is_compiling():
            order = order_of_training_step({name: self.part(name) for name in self.parts})
        for name in order:
            layer = self.get_submodule(self.parts[name])
            if isinstance(layer, nn.Linear) and x.dim() > 2:
                x = x.flatten(1)
            if name == last and not x.is_meta and torch.is_autocast_enabled(x.device.type):
                with torch.autocast(x.device.type, enabled=False):
                    x = layer(x.float())
            else:
                x = layer(x)
            if name in kept_names:
                kept[name] = x
        return x, kept


@dataclass(frozen=True)
class LayerRow:
    """One line of a network's table.

    shape is without the batch; macs, multiply-adds, are per image; receptive_field is the side in
    input pixels of what one output sees. std and bias are what the weights start from: std of the
    `distribution` they are drawn from, biases at one value (None where they are drawn too).
    """

    name: str
    shape: Shape
    parameters: int
    macs: int
    receptive_field: int
    distribution: Literal["normal", "uniform"] | None = None
    std: float | None = None
    bias: float | None = None


def summarize(spec: Spec, given: Shape) -> list[LayerRow]:
    """A row for every part, from the specification alone."""
    rows = []
    side, seen, jump = max(given[1:]), 1, 1
    for name, part in named_parts(spec):
        out = part.shape(given)
        with torch.device("meta"):
            parameters = sum(p.numel() for p in part.build(given).parameters())
        window, stride = part.span(given)
        seen, jump = min(seen + (window - 1) * jump, side), jump * stride
        if isinstance(part, Linear):
            seen = side
        row = LayerRow(name, out, parameters, 0, seen)
        if isinstance(part, Conv | Local | Linear):
            drawn = part.std == "torch"
            row = replace(
                row,
                macs=math.prod(out) * fan_in(part, given),
                distribution="uniform" if drawn else "normal",
                std=initial(part, given),
                bias=None if drawn else part.bias,
            )
        rows.append(row)
        given = out
    return rows


def training_operations(spec: Spec, given: Shape, *, image_gradient: bool = False) -> int:
    """Additions and multiplications of one training step, for each image, in layers with weights.

    A multiply-add is two of them, and a layer does its multiply-adds three times: for its outputs,
    for the gradient of its weights, and for the gradient of its inputs. Of the first part the last
    is the gradient of the images, which nothing needs and no step computes; `image_gradient` counts
    it nevertheless: 6 for every multiply-add.
    """
    rows = summarize(spec, given)
    return 6 * sum(row.macs for row in rows) - (0 if image_gradient else 2 * rows[0].macs)


def check_fits(name: str, spec: Spec, given: Shape) -> None:
    """Refuses an input that a network cannot take, naming the sizes that it can."""

    def walk(shape: Shape) -> None:
        for part in spec:
            shape = part.shape(shape)

    try:
        walk(given)
    except TooSmall as error:
        for size in range(max(given[1:]), LARGEST + 1):
            try:
                walk((given[0], size, size))
            except TooSmall:
                continue
            raise UsageError(
                f"{name} takes images of {size} pixels a side and more, and {given[1]} were "
                f"asked for ({error}): use {option('crop', size)} or another model"
            ) from None
        raise
