"""Optimisers: the paper's update, and torch's Adam and AdamW."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import CheckpointError
from alexnet.models.fast import EXACT, update_weights
from alexnet.models.net import Net
from alexnet.recipe import Recipe


class PaperSGD(torch.optim.Optimizer):
    """v <- m v - decay lr w - lr g; w <- w + v. Source: paper, section 5.

    The learning rate is inside the velocity. torch's SGD multiplies the velocity by the rate when
    it is applied, so the two differ for a while after every change of the rate. Without momentum
    there is no velocity to keep. A group that is `held` (see `set_rate`) stays as it is. `exact`
    are the kinds of devices whose kernels take the rate as float64.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float,
        weight_decay: float,
        exact: Collection[str] = EXACT,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.exact = exact

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights or group.get("held"):
                continue
            velocities = [] if momentum == 0 else [self._velocity(w) for w in weights]
            gradients = [_laid_out_as(w) for w in weights]
            update_weights(
                weights,
                gradients,
                velocities,
                lr=lr,
                momentum=momentum,
                decay=decay,
                exact=self.exact,
            )

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity


def _laid_out_as(weight: Tensor) -> Tensor:
    """The weight's gradient in the weight's memory layout, which the kernel takes for granted."""
    gradient = weight.grad
    assert gradient is not None
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


class Lars(PaperSGD):
    """The paper's update with a rate for each layer: lr times trust |w| / (|g| + decay |w|), so
    that one step moves no matrix or kernel by more than trust lr of its size.

    Biases and norms take lr as it is. Source: You, Gitman, Ginsburg 2017 (arXiv 1708.03888),
    algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float,
        decay: float,
        trust: float,
        exact: Collection[str] = EXACT,
    ) -> None:
        super().__init__(params, lr, momentum, decay, exact)
        self.trust = trust
        for group in self.param_groups:
            group["decay"] = group["weight_decay"]
            if group["params"][0].dim() > 1:  # there it is part of the scaled gradient
                group["weight_decay"] = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None or w.dim() == 1:
                    continue
                size, slope = w.norm(), w.grad.norm()
                local = self.trust * size / (slope + group["decay"] * size)
                # Zero weights would never move, and without a gradient there is nothing to scale.
                local = torch.where((size > 0) & (slope > 0), local, torch.ones_like(local))
                w.grad.add_(w, alpha=group["decay"]).mul_(local)
        super().step(closure)


def build_optimizer(model: Net, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. Vectors (biases, norms) are not decayed unless `decay_biases`.

    Parameters are grouped by what multiplies their rate, see `set_rate`; frozen ones are left out.
    """
    covered = {part: set(model.stretch(part)) for part, _, _ in recipe.part_rates}
    groups: dict[Any, dict[str, Any]] = {}
    for part in model.parts:
        factors = [(f, epoch) for name, f, epoch in recipe.part_rates if part in covered[name]]
        for name, parameter in model.part(part).named_parameters():
            is_bias = name.endswith("bias")
            is_vector = is_bias or parameter.dim() <= 1
            group = groups.setdefault(
                (tuple(factors), is_bias, is_vector),
                {
                    "params": [],
                    "weight_decay": recipe.weight_decay * (recipe.decay_biases or not is_vector),
                    "times": recipe.bias_lr if is_bias else 1.0,
                    "factors": factors,
                },
            )
            if parameter.requires_grad:
                group["params"].append(parameter)
    found = [group for group in groups.values() if group["params"]]
    if recipe.trust:
        return Lars(found, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.trust)
    if recipe.opt == "sgd":
        return PaperSGD(found, recipe.lr, recipe.momentum, recipe.weight_decay)
    kind = torch.optim.Adam if recipe.opt == "adam" else torch.optim.AdamW
    return kind(found, lr=recipe.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int) -> None:
    """The learning rate of a step, times each group's factors; of a part's own factors the one
    that began last holds. A factor of 0 holds a part still, where the paper's update by itself
    would let it coast on: conv1 of the 2012 run, for one, was frozen at the end."""
    for group in optimizer.param_groups:
        begun = [(since, factor) for factor, since in group["factors"] if epoch >= since]
        factor = max(begun, key=lambda b: b[0])[1] if begun else 1.0
        group["lr"], group["held"] = lr * group["times"] * factor, factor == 0


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `conv1.weight/velocity`."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"optimiser state for {name!r}, which this model does not have")
        parameter = parameters[name]
        like = parameter if value.shape == parameter.shape else value.to(parameter.device)
        optimizer.state[parameter][key] = torch.empty_like(like, dtype=value.dtype).copy_(value)
