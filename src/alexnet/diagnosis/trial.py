"""Trial steps of training, undone afterwards: what they do to the loss and to the weights."""

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

from alexnet.diagnosis.modes import restored_modes, training_mode
from alexnet.diagnosis.signal import Loss

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)

RATE_RANGE = (1e-6, 3.0)  # learning rates of the rate test, in geometric steps
MIN_FALL = 0.002  # of the first loss: a smaller fall is none
MIN_RISE = 0.3  # of the first loss, above the lowest so far: the rate is too high
STOP_AT = 4.0  # times the lowest loss: the rate test ends there


@dataclass(frozen=True)
class WeightUpdate:
    """Change of one weight in one step.

    `ratio` is rms(update) / rms(weight). `decay_cosine` is the cosine between the update and minus
    the weight (1: the step is weight decay alone).
    """

    ratio: float
    decay_cosine: float


@dataclass(frozen=True)
class Trial:
    """The loss before each step, and each weight's second update at the full learning rate."""

    losses: list[float]
    updates: dict[str, WeightUpdate]


@dataclass(frozen=True)
class RateTest:
    """Losses at rising learning rates.

    The loss fell fastest at `best` and rose from `limit` on; None where it did so nowhere.
    """

    rates: list[float]
    losses: list[float]
    best: float | None
    limit: float | None


@contextmanager
def taken_back(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Restores weights, buffers, gradients, modes, optimiser and random state, to the bit."""
    groups = optimizer.param_groups if optimizer else []
    group_parameters = [p for group in groups for p in group["params"]]
    states = dict(optimizer.state) if optimizer else {}
    state_items = {p: dict(state) for p, state in states.items()}
    state_tensors = [
        v for items in state_items.values() for v in items.values() if isinstance(v, Tensor)
    ]
    buffers = [(m, name, b) for m in model.modules() for name, b in m._buffers.items()]
    tensors = [
        *model.parameters(),
        *group_parameters,
        *(buffer for _, _, buffer in buffers if buffer is not None),
        *state_tensors,
    ]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    parameters = [(p, p.requires_grad, p.grad) for p in [*model.parameters(), *group_parameters]]
    gradients = [(p.grad, p.grad.clone()) for p, _, _ in parameters if p.grad is not None]
    group_settings = [dict(group) for group in groups]
    python_random, numpy_random = random.getstate(), np.random.get_state()
    try:
        devices = range(torch.cuda.device_count())
        with restored_modes(model), torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in [*values, *gradients]:
                tensor.copy_(value)
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for p, requires_grad, gradient in parameters:
            p.requires_grad_(requires_grad)
            p.grad = gradient
        # load_state_dict would cast the optimiser's state to the type of the weights.
        if optimizer is not None:
            optimizer.state.clear()
            for p, state in states.items():
                state.clear()
                state.update(state_items[p])
                optimizer.state[p] = state
            for group, setting in zip(groups, group_settings, strict=True):
                group.clear()
                group.update(setting)
        random.setstate(python_random)
        np.random.set_state(numpy_random)


def try_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    steps: int,
    seconds: float,
    warmup: int = 0,
    target_loss: float = 0.0,
) -> Trial:
    """Trains `steps` steps on the batches in turn, or as many as `seconds` allow.

    In the first `warmup` steps the learning rates rise to those of the optimiser. Ends early where
    the loss falls below `target_loss` or is not finite.
    """
    losses: list[float] = []
    updates: dict[str, WeightUpdate] = {}
    deadline = time.monotonic() + seconds
    rates = [group["lr"] for group in optimizer.param_groups]
    # A weight that starts at zero is no larger than its first updates, so their ratio says nothing.
    zero_weights = {name for name, p in model.named_parameters() if not p.detach().any()}
    measured_step = min(warmup + 1, steps - 1)
    with training_mode(model):
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (step + 1) / (warmup + 1))
            before = copy_weights(model, optimizer) if step == measured_step else {}
            losses.append(_step(model, optimizer, batches[step % len(batches)], loss))
            updates |= {
                name: update
                for name, update in weight_updates(model, before).items()
                if name not in zero_weights
            }
            is_done = losses[-1] < target_loss or time.monotonic() > deadline
            if is_done or not math.isfinite(losses[-1]):
                break
    return Trial(losses, updates)


def run_rate_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Loss,
    *,
    steps: int,
    seconds: float,
) -> RateTest:
    """Raises the learning rate at every step on one batch, until the loss rises steeply."""
    low, high = RATE_RANGE
    rates: list[float] = []
    losses: list[float] = []
    deadline = time.monotonic() + seconds
    with training_mode(model):
        for i in range(steps):
            rate = low * (high / low) ** (i / max(steps - 1, 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(0)  # dropout drops the same units, so that only the rate changes
            step_loss = _step(model, optimizer, batch, loss)
            is_steep = bool(losses) and step_loss > STOP_AT * max(min(losses), 0.1)
            if not math.isfinite(step_loss) or is_steep:
                break
            rates.append(rate)
            losses.append(step_loss)
            if time.monotonic() > deadline:
                break
    lowest = list(accumulate(losses, min))
    # The loss at step i + 1 is the result of the rates up to step i.
    rising = [
        rates[i] for i in range(len(losses) - 1) if losses[i + 1] > lowest[i] + MIN_RISE * losses[0]
    ]
    limit = rising[0] if rising else (rates[-1] if len(rates) < steps and rates else None)
    falls = [
        (losses[i] - losses[i + 1], rates[i])
        for i in range(len(losses) - 1)
        if limit is None or rates[i] < limit
    ]
    best = max(falls)[1] if falls and max(falls)[0] > MIN_FALL * abs(losses[0]) else None
    return RateTest(rates, losses, best, limit)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, loss: Loss) -> float:
    """One training step; returns the loss before it."""
    x, y = batch

    def compute_gradients() -> Tensor:
        model.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        batch_loss = loss(model(x.clone()).float(), y)
        if batch_loss.requires_grad:
            batch_loss.backward()  # type: ignore[no-untyped-call]
        return batch_loss

    batch_loss = compute_gradients()
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(compute_gradients)  # type: ignore[no-untyped-call]
    elif batch_loss.requires_grad:
        optimizer.step()
    return float(batch_loss.detach())


def copy_weights(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Tensor]:
    """Copies of the trained matrices and kernels by name; of an optimiser's own if there is one."""
    groups = optimizer.param_groups if optimizer else [{"params": list(model.parameters())}]
    in_groups = {id(p) for group in groups for p in group["params"]}
    return {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad and p.dim() > 1 and id(p) in in_groups
    }


def weight_updates(model: nn.Module, before: dict[str, Tensor]) -> dict[str, WeightUpdate]:
    """Changes of the weights since the copies `before`, without weights that were zero."""
    weights = dict(model.named_parameters()) if before else {}
    updates = {}
    for name, old in before.items():
        weight_norm = float(torch.linalg.vector_norm(old))
        update = weights[name].detach() - old
        update_norm = float(torch.linalg.vector_norm(update))
        if weight_norm > 0:
            cosine = -float((update * old.conj()).sum().real) if update_norm > 0 else 0.0
            cosine /= max(weight_norm * update_norm, 1e-30)
            updates[name] = WeightUpdate(update_norm / weight_norm, cosine)
    return updates
