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
    initial_std,
)
from alexnet.support.options import option

Spec = Sequence[Part]

MAX_SIZE = 1024  # pixels a side; largest input that `check_fits` tries


@dataclass(frozen=True)
class Preset:
    """A named network, with the input and the classes that it was designed for.

    `sources` names the source of each kind of choice (see `compare`; "biases" is how they are
    trained). `keys` maps parts to other names in the state dict: {"conv1": "features.0"}.
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
    """Return the number in a part's name: "5" for pool5."""
    return name.lstrip(string.ascii_lowercase)


def named_parts(spec: Spec) -> list[tuple[str, Part]]:
    """Return (name, part) pairs: conv1, then relu1, pool1, ... with the number of their layer."""
    named: list[tuple[str, Part]] = []
    number = ""
    for part in spec:
        if isinstance(part, Conv | Local | Linear):
            number = stage_of(part.label)
            named.append((part.label, part))
        else:
            named.append((f"{part.label}{number}", part))
    names = [name for name, _ in named]
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two parts have the name {duplicates[0]!r}: give one another label")
    return named


def with_dropout(spec: Spec, rate: float | None) -> Spec:
    """Set the rate of every dropout; None changes nothing."""
    if rate is None:
        return spec
    return [replace(p, rate=rate) if isinstance(p, Dropout) else p for p in spec]


class Net(nn.Module):
    """The network of a specification. Shapes: (N, C, H, W) -> logits (N, K), always float32.

    Parts are attributes by name. So the keys of the state dict are `conv1.weight` ... `fc8.bias`,
    unless `keys` maps them to other names. The last layer is computed in float32 even under
    autocast: bfloat16 logits tie, and ties make top-5 figures meaningless.
    """

    def __init__(
        self,
        spec: Spec,
        input_shape: Shape,
        dropout: float | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = shape = input_shape
        spec = with_dropout(spec, dropout)
        self.parts: dict[str, str] = {}
        self.layers: list[str] = []  # the parts with weights: conv1 ... fc8
        self._frozen: list[str] = []
        for name, part in named_parts(spec):
            path = (keys or {}).get(name, name)
            home, _, leaf = path.rpartition(".")
            if home and home not in self._modules:
                self.add_module(home, nn.Module())
            self.get_submodule(home).add_module(leaf, part.build(shape))
            shape = part.shape(shape)
            self.parts[name] = path
            if isinstance(part, Conv | Local | Linear):
                self.layers.append(name)

    def part(self, name: str) -> nn.Module:
        """Return the module of a named part. Raises UsageError for an unknown name."""
        if name not in self.parts:
            raise UsageError(f"no part {name!r}: there are {', '.join(self.parts)}")
        return self.get_submodule(self.parts[name])

    def stretch(self, entry: str) -> list[str]:
        """Return the parts of "conv2" or "conv1..conv5", with those after each layer, by name."""
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
        """Freeze the parts of a stretch: their weights, and the running averages of batch norms."""
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
        """Draw dropout masks for a whole batch and use this slice of them."""
        for module in self.modules():
            if isinstance(module, DropoutLayer):
                module.mask_slice = mask_slice

    def forward(self, images: Tensor) -> Tensor:
        return self.activations(images, ())[0]

    def activations(self, images: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits and outputs of the named parts. Raises UsageError for an unknown name."""
        output_names = set(names)
        for name in output_names:  # torch.compile of 2.11 cannot take keys from a set
            if name not in self.parts:
                self.part(name)
        outputs: dict[str, Tensor] = {}
        last, x = next(reversed(self.parts)), images
        order: Iterable[str] = self.parts
        if self.training and not output_names and not torch.compiler.is_compiling():
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
            if name in output_names:
                outputs[name] = x
        return x, outputs


@dataclass(frozen=True)
class LayerRow:
    """One line of a network's table.

    `shape` is that of the output, without the batch. `macs` are multiply-adds per image.
    `receptive_field` is the side, in input pixels, of the region that one output sees. Initial
    weights have the `distribution` and `std`, initial biases the value `bias` (None if they are
    random too).
    """

    name: str
    shape: Shape
    parameters: int
    macs: int
    receptive_field: int
    distribution: Literal["normal", "uniform"] | None = None
    std: float | None = None
    bias: float | None = None


def summarize(spec: Spec, in_shape: Shape) -> list[LayerRow]:
    """Describe every part in a row, from the specification alone."""
    rows = []
    side, field_side, jump = max(in_shape[1:]), 1, 1
    for name, part in named_parts(spec):
        out = part.shape(in_shape)
        with torch.device("meta"):
            parameters = sum(p.numel() for p in part.build(in_shape).parameters())
        window, stride = part.span(in_shape)
        field_side, jump = min(field_side + (window - 1) * jump, side), jump * stride
        if isinstance(part, Linear):
            field_side = side
        row = LayerRow(name, out, parameters, 0, field_side)
        if isinstance(part, Conv | Local | Linear):
            is_uniform = part.std == "torch"
            row = replace(
                row,
                macs=math.prod(out) * fan_in(part, in_shape),
                distribution="uniform" if is_uniform else "normal",
                std=initial_std(part, in_shape),
                bias=None if is_uniform else part.bias,
            )
        rows.append(row)
        in_shape = out
    return rows


def training_operations(spec: Spec, in_shape: Shape, *, image_gradient: bool = False) -> int:
    """Count the operations of one training step per image, in layers with weights.

    A multiply-add is two operations. A layer makes its multiply-adds three times: for its outputs,
    for the gradient of its weights, and for the gradient of its inputs. The first layer makes them
    twice, since no step needs the gradient of the images; `image_gradient` counts that too.
    """
    rows = summarize(spec, in_shape)
    return 6 * sum(row.macs for row in rows) - (0 if image_gradient else 2 * rows[0].macs)


def check_fits(name: str, spec: Spec, in_shape: Shape) -> None:
    """Raise UsageError, naming a size that fits, if an input is too small for a network."""

    def check(shape: Shape) -> None:
        for part in spec:
            shape = part.shape(shape)

    try:
        check(in_shape)
    except TooSmall as error:
        for size in range(max(in_shape[1:]), MAX_SIZE + 1):
            try:
                check((in_shape[0], size, size))
            except TooSmall:
                continue
            raise UsageError(
                f"{name} takes images of {size} pixels a side and more, and {in_shape[1]} were "
                f"asked for ({error}): use {option('crop', size)} or another model"
            ) from None
        raise
