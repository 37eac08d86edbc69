"""A network built from its specification, with every part under its field name."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.layers import Conv, Dropout, Linear, Part, Shape

Spec = Sequence[Part]


def named_parts(spec: Spec) -> list[tuple[str, Part]]:
    """Each part with its name: conv1, then relu1, pool1 ... after the layer they follow."""
    named: list[tuple[str, Part]] = []
    number = ""
    for part in spec:
        if isinstance(part, Conv | Linear):
            number = part.label.removeprefix("conv").removeprefix("fc")
            named.append((part.label, part))
        else:
            named.append((f"{part.label}{number}", part))
    return named


class Net(nn.Module):
    """The network of a specification. Shapes: (N, C, H, W) -> logits (N, K), always float32.

    Parts are attributes by name, so the keys of the state dict are `conv1.weight` ... `fc8.bias`.
    The last layer is computed in float32 even under autocast: bfloat16 logits tie, and ties make
    top-5 figures meaningless.
    """

    def __init__(self, spec: Spec, given: Shape, dropout: float | None = None) -> None:
        super().__init__()
        self.input_shape = given
        if dropout is not None:
            spec = [replace(p, rate=dropout) if isinstance(p, Dropout) else p for p in spec]
        self.parts: OrderedDict[str, None] = OrderedDict()
        for name, part in named_parts(spec):
            self.add_module(name, part.build(given))
            given = part.shape(given)
            self.parts[name] = None

    def forward(self, images: Tensor) -> Tensor:
        return self.activations(images, ())[0]

    def activations(self, images: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and the output of each named part. A part that is not there is a UsageError."""
        if unknown := [name for name in names if name not in self.parts]:
            raise UsageError(f"no part {unknown[0]!r}: there are {', '.join(self.parts)}")
        kept: dict[str, Tensor] = {}
        wanted, last, x = set(names), next(reversed(self.parts)), images
        for name in self.parts:
            layer = getattr(self, name)
            if isinstance(layer, nn.Linear) and x.dim() > 2:
                x = x.flatten(1)
            if name == last:
                with torch.autocast(x.device.type, enabled=False):
                    x = layer(x.float())
            else:
                x = layer(x)
            if name in wanted:
                kept[name] = x
        return x, kept


@dataclass(frozen=True)
class LayerRow:
    """One line of a network's table. shape without the batch; macs per image."""

    name: str
    shape: Shape
    parameters: int
    macs: int


def summarize(spec: Spec, given: Shape) -> list[LayerRow]:
    """Shapes, parameters and multiply-adds of every part, from the specification alone."""
    rows = []
    for name, part in named_parts(spec):
        out = part.shape(given)
        with torch.device("meta"):
            parameters = sum(p.numel() for p in part.build(given).parameters())
        macs = 0
        if isinstance(part, Conv):
            macs = math.prod(out) * given[0] // part.groups * part.kernel**2
        elif isinstance(part, Linear):
            macs = math.prod(given) * part.out
        rows.append(LayerRow(name, out, parameters, macs))
        given = out
    return rows
