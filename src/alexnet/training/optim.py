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

    The learning rate is part of the velocity. torch's SGD multiplies the velocity by the rate when
    it is applied, so that the two differ for some steps after each change of the rate. Without
    momentum there is no velocity. A group that is `held` (see `set_rate`) does not change. `exact`
    are the types of devices whose kernels take the rate as float64.
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
    """Return the gradient in the memory layout of its weight, as the kernel assumes."""
    gradient = weight.grad
    assert gradient is not None
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


class Lars(PaperSGD):
    """The paper's update with a rate for each layer: lr times trust |w| / (|g| + decay |w|).

    So one step changes no matrix or kernel by more than the share trust lr of its norm. Biases and
    norm layers use lr itself. Source: You, Gitman, Ginsburg 2017 (arXiv 1708.03888), algorithm 1.
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
            if group["params"][0].dim() > 1:  # the decay is part of the scaled gradient
                group["weight_decay"] = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None or w.dim() == 1:
                    continue
                w_norm, g_norm = w.norm(), w.grad.norm()
                local_rate = self.trust * w_norm / (g_norm + group["decay"] * w_norm)
                # Weights of 0 would never move; without a gradient there is nothing to scale.
                local_rate = torch.where(
                    (w_norm > 0) & (g_norm > 0), local_rate, torch.ones_like(local_rate)
                )
                w.grad.add_(w, alpha=group["decay"]).mul_(local_rate)
        super().step(closure)


def build_optimizer(model: Net, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the recipe's optimiser.

    Vectors (biases and norm layers) have no weight decay unless `decay_biases`. Parameters are
    grouped by the factors of their rates, see `set_rate`; frozen parameters are left out.
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
    trainable = [group for group in groups.values() if group["params"]]
    if recipe.trust:
        return Lars(trainable, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.trust)
    if recipe.opt == "sgd":
        return PaperSGD(trainable, recipe.lr, recipe.momentum, recipe.weight_decay)
    optimizer_class = torch.optim.Adam if recipe.opt == "adam" else torch.optim.AdamW
    return optimizer_class(trainable, lr=recipe.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int) -> None:
    """Set the learning rate of a step: `lr` times the factors of each group.

    Of the factors of a part, the one with the latest epoch so far applies. A factor of 0 freezes a
    part at once, although its velocity would still move it: conv1 of the 2012 run was frozen at the
    end, for example.
    """
    for group in optimizer.param_groups:
        started = [(since, factor) for factor, since in group["factors"] if epoch >= since]
        factor = max(started, key=lambda pair: pair[0])[1] if started else 1.0
        group["lr"], group["held"] = lr * group["times"] * factor, factor == 0


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state by parameter name, as `conv1.weight/velocity`."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Load the state that `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for entry, value in tensors.items():
        name, _, key = entry.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"optimiser state for {name!r}, which this model does not have")
        parameter = parameters[name]
        like = parameter if value.shape == parameter.shape else value.to(parameter.device)
        optimizer.state[parameter][key] = torch.empty_like(like, dtype=value.dtype).copy_(value)
