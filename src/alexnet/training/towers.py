"""The paper's two GPUs: each process holds one tower, and they talk where the paper's do.

Source: paper, section 3.5 and figure 2. A layer with two groups reads its own half; conv3, whose
kernels see all maps, and the fully connected layers read both halves, which are exchanged before
them. The last layer's rows are split by what they read, so that its outputs are sums over towers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.layers import Conv, Dropout, Linear, MeanTo, Part, Pool, ReLU, ResponseNorm
from alexnet.models.net import Net, Spec, named_parts
from alexnet.models.zoo import find_model, model_spec
from alexnet.recipe import Recipe
from alexnet.support.options import option
from alexnet.training.data_parallel import joined, summed
from alexnet.training.parallel import Team

SAME = (Dropout, MeanTo, Pool, ReLU)  # parts that look at one map or unit at a time


@dataclass(frozen=True)
class Plan:
    """Where a network is cut in two.

    `exchanged` are the numbers an image that a tower sends before a layer; `cuts` the dimension in
    which each parameter is cut, None for one that is the first tower's alone.
    """

    exchanged: dict[str, int]
    cuts: dict[str, int | None]

    def bytes_per_image(self, precision: str = "fp32") -> int:
        """What each tower sends for an image forward and back, the same both ways. With bf16 all
        but what the last layer, which is float32, gives."""
        *before, last = self.exchanged.values()
        return 2 * ((2 if precision == "bf16" else 4) * sum(before) + 4 * last)


def plan_towers(name: str, spec: Spec, given: tuple[int, ...], keys: Mapping[str, str]) -> Plan:
    """How a network is cut. UsageError for one that is not two towers."""
    exchanged: dict[str, int] = {}
    cuts: dict[str, int | None] = {}
    parts = named_parts(spec)
    first, last = parts[0][0], parts[-1][0]
    for label, part in parts:
        out = part.shape(given)
        path = keys.get(label, label)
        _check(name, label, part, label == first)
        if isinstance(part, Conv | Linear):
            reads_all = isinstance(part, Linear) or part.groups == 1
            if label == last:
                exchanged[label] = out[0]
            elif reads_all and label != first:
                exchanged[label] = int(torch.Size(given).numel()) // 2
            cuts[f"{path}.weight"] = 1 if label == last else 0
            cuts[f"{path}.bias"] = None if label == last else 0
        given = out
    return Plan(exchanged, cuts)


def _check(name: str, label: str, part: Part, first: bool) -> None:
    fits = isinstance(part, SAME)
    if isinstance(part, Conv):
        fits = part.out % 2 == 0 and part.groups in ((1,) if first else (1, 2))
    if isinstance(part, Linear):
        fits = True
    if isinstance(part, ResponseNorm):
        fits = part.groups == 2 or part.window == "map"
    if not fits:
        raise UsageError(
            f"towers 2: {label} of {name} does not come in two halves as the paper's layers do: "
            f"use alexnet-2012 or alexnet-2012-code, or leave {option('towers')} out"
        )


class Towers:
    """A network cut in place to this process's tower; makes whole tensors of it again.

    `sent` counts the bytes that this tower has handed to the others since it was last set to 0.
    """

    def __init__(self, net: Net, plan: Plan, team: Team) -> None:
        self.plan, self.team, self.sent = plan, team, 0
        own = self.cut(dict(net.named_parameters()))
        for label in net.layers:
            layer: Any = net.part(label)
            path = net.parts[label]
            frozen = not layer.weight.requires_grad
            for leaf in ("weight", "bias"):
                value = own.get(f"{path}.{leaf}")
                kept = None if value is None else nn.Parameter(value, requires_grad=not frozen)
                setattr(layer, leaf, kept)
            if isinstance(layer, nn.Conv2d):
                layer.groups = 1
                layer.out_channels, layer.in_channels = layer.weight.shape[:2]
            if label in plan.exchanged:
                if label == net.layers[-1]:
                    layer.register_forward_hook(self._sum)
                else:
                    layer.register_forward_pre_hook(self._exchange)
        for module in net.modules():
            if "groups" in getattr(module, "constants", {}):
                module.constants["groups"] = 1  # type: ignore[operator, index]

    def describe(self, images: int, precision: str) -> str:
        """What was sent since the last time, beside the arithmetic for so many images."""
        sent, self.sent = self.sent, 0
        named = self.plan.exchanged.items()
        each = ", ".join(f"{n:,} before {name}" for name, n in named)
        each = " that ".join(each.rsplit(" before ", 1))
        return (
            f"towers: each sent {sent:,} bytes in a step of {images} images; the arithmetic says "
            f"{self.plan.bytes_per_image(precision) * images:,}: {precision} numbers an image "
            f"({each} gives, in fp32), forward and back"
        )

    def cut(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This tower's parts of whole tensors, by name; "name/key" is cut as the parameter is."""
        found = {}
        for name, value in tensors.items():
            dim = self._dim(name)
            if value.dim() == 0:  # a count of steps
                found[name] = value
            elif dim is not None:
                half = value.shape[dim] // self.team.towers
                found[name] = value.detach().narrow(dim, half * self.team.tower, half).clone()
            elif self.team.tower == 0:
                found[name] = value.detach().clone()
        return found

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `cut`, which all towers call; the first's is complete."""
        found = {}
        for name, value in tensors.items():
            dim = self._dim(name)
            found[name] = value
            if value.dim() > 0 and dim is not None:
                own = value.detach().contiguous()
                parts = [torch.empty_like(own) for _ in range(self.team.towers)]
                dist.all_gather(parts, own, group=self.team.pair)
                found[name] = torch.cat(parts, dim)
        return found

    def _dim(self, name: str) -> int | None:
        return self.plan.cuts[name.partition("/")[0]]

    def _exchange(self, layer: nn.Module, inputs: Any) -> Tensor:
        (x,) = inputs
        self._count(x)
        return joined(x, self.team.pair)

    def _sum(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self._count(output)
        return summed(output, self.team.pair)

    def _count(self, x: Tensor) -> None:
        both = 2 if x.requires_grad else 1  # the gradients come back
        self.sent += both * x.numel() * x.element_size()


def build_towers(net: Net, recipe: Recipe, classes: int, team: Team) -> Towers | None:
    """Cuts a network to this process's tower, where the team has more than one."""
    if team.towers == 1:
        return None
    if team.towers != 2 or recipe.trust or recipe.whiten:
        why = "trust and whiten need whole layers" if team.towers == 2 else "the paper has two"
        raise UsageError(
            f"towers {team.towers}: {why}: use {option('towers', 2)} without {option('trust')} "
            f"and {option('whiten', True)}"
        )
    given, keys = (recipe.channels, recipe.crop, recipe.crop), find_model(recipe.model).keys
    spec = model_spec(recipe.model, classes, given)
    return Towers(net, plan_towers(recipe.model, spec, given, keys), team)
