"""A few steps of training, taken back afterwards: what they do to loss, weights and units."""

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.diagnosis.signal import Loss, modes_kept, training

RATES = (1e-6, 3.0)  # learning rates that are tried, geometrically
FELL, ROSE = 0.002, 0.3  # of the first loss: what counts as falling, and as bursting
BURST = 4.0  # times the lowest loss, beyond which larger rates are not tried


@dataclass(frozen=True)
class Move:
    """What a step did to a weight: rms(update) / rms(weight), and the cosine between the update and
    minus the weight, 1 where it was only made smaller."""

    ratio: float
    shrinking: float


@dataclass(frozen=True)
class Trial:
    """Losses before each step, and what the second step at the full rate did to each weight."""

    losses: list[float]
    moves: dict[str, Move]


@dataclass(frozen=True)
class RateRange:
    """Losses by learning rate; `best` is where it fell fastest, `limit` from where on it rose."""

    rates: list[float]
    losses: list[float]
    best: float | None
    limit: float | None


@contextmanager
def taken_back(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Weights, buffers, gradients, modes, optimiser and random state are those of before again."""
    groups = optimizer.param_groups if optimizer else []
    held = [p for group in groups for p in group["params"]]
    states = dict(optimizer.state) if optimizer else {}
    kept = {p: dict(state) for p, state in states.items()}
    buffers = [(m, name, b) for m in model.modules() for name, b in m._buffers.items()]
    inner = [v for state in kept.values() for v in state.values() if isinstance(v, Tensor)]
    tensors = [*model.parameters(), *held, *(b for _, _, b in buffers if b is not None), *inner]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    parameters = [(p, p.requires_grad, p.grad) for p in [*model.parameters(), *held]]
    gradients = [(p.grad, p.grad.clone()) for p, _, _ in parameters if p.grad is not None]
    settings = [dict(group) for group in groups]
    chance = random.getstate(), np.random.get_state()
    try:
        with modes_kept(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in [*values, *gradients]:
                tensor.copy_(value)
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for p, wanted, gradient in parameters:
            p.requires_grad_(wanted)
            p.grad = gradient
        # Not by load_state_dict: it casts the state to the type of the weights.
        if optimizer is not None:
            optimizer.state.clear()
            for p, state in states.items():
                state.clear()
                state.update(kept[p])
                optimizer.state[p] = state
            for group, setting in zip(groups, settings, strict=True):
                group.clear()
                group.update(setting)
        random.setstate(chance[0])
        np.random.set_state(chance[1])


def try_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss: Loss,
    *,
    steps: int,
    seconds: float,
    warmup: int = 0,
    enough: float = 0.0,
) -> Trial:
    """So many steps over the batches in turn, or as many as there is time for.

    Over the first `warmup` the learning rates rise to what the optimiser has. Ends where the loss
    comes under `enough`.
    """
    losses: list[float] = []
    moves: dict[str, Move] = {}
    until = time.monotonic() + seconds
    rates = [group["lr"] for group in optimizer.param_groups]
    # A weight that begins at zero is as large as its first steps: their ratio says nothing.
    empty = {name for name, p in model.named_parameters() if not p.detach().any()}
    with training(model):
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (step + 1) / (warmup + 1))
            before = weights_now(model, optimizer) if step == min(warmup + 1, steps - 1) else {}
            losses.append(_step(model, optimizer, *batches[step % len(batches)], loss))
            moves |= {k: v for k, v in moved(model, before).items() if k not in empty}
            done = losses[-1] < enough or time.monotonic() > until
            if done or not math.isfinite(losses[-1]):
                break
    return Trial(losses, moves)


def find_rates(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    loss: Loss,
    *,
    steps: int,
    seconds: float,
) -> RateRange:
    """Raises the learning rate with every step on one batch until the loss bursts."""
    low, high = RATES
    rates: list[float] = []
    losses: list[float] = []
    until = time.monotonic() + seconds
    with training(model):
        for i in range(steps):
            rate = low * (high / low) ** (i / max(steps - 1, 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(0)  # the same units dropped each time: what changes is the rate
            found = _step(model, optimizer, *batch, loss)
            if not math.isfinite(found) or (losses and found > BURST * max(min(losses), 0.1)):
                break
            rates.append(rate)
            losses.append(found)
            if time.monotonic() > until:
                break
    lowest = list(accumulate(losses, min))
    rises = [
        rates[i] for i in range(len(losses) - 1) if losses[i + 1] > lowest[i] + ROSE * losses[0]
    ]
    limit = rises[0] if rises else (rates[-1] if len(rates) < steps and rates else None)
    # The loss at step i + 1 is what the rates up to step i did to it.
    drops = [
        (losses[i] - losses[i + 1], rates[i])
        for i in range(len(losses) - 1)
        if limit is None or rates[i] < limit
    ]
    best = max(drops)[1] if drops and max(drops)[0] > FELL * abs(losses[0]) else None
    return RateRange(rates, losses, best, limit)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, loss: Loss
) -> float:
    def again() -> Tensor:
        model.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        found = loss(model(x.clone()).float(), y)
        if found.requires_grad:
            found.backward()  # type: ignore[no-untyped-call]
        return found

    found = again()
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(again)  # type: ignore[no-untyped-call]
    elif found.requires_grad:
        optimizer.step()
    return float(found.detach())


def weights_now(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Tensor]:
    """Copies of the weights that are trained: of matrices and kernels that the optimiser holds."""
    groups = optimizer.param_groups if optimizer else [{"params": list(model.parameters())}]
    held = {id(p) for group in groups for p in group["params"]}
    return {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad and p.dim() > 1 and id(p) in held
    }


def moved(model: nn.Module, before: dict[str, Tensor]) -> dict[str, Move]:
    """How weights differ from what they were; those that were zero are left out."""
    now, found = dict(model.named_parameters()) if before else {}, {}
    for name, value in before.items():
        size = float(torch.linalg.vector_norm(value))
        update = now[name].detach() - value
        length = float(torch.linalg.vector_norm(update))
        if size > 0:
            along = -float((update * value.conj()).sum().real) if length > 0 else 0.0
            along /= max(size * length, 1e-30)
            found[name] = Move(length / size, along)
    return found
