"""What training and evaluation silently promise each other, tried out on any network."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.diagnosis.signal import evaluating, training

ALIKE = 1e-4  # relative; float32 sums in another order differ by a hundredth of it


@dataclass(frozen=True)
class Contract:
    """`random`: how far two evaluations of the same images differ, `batchwise`: how far those of an
    image do beside other images; both relative to the logits' own spread. The rest are names."""

    random: float
    batchwise: float
    constants: list[str]
    frozen: list[str]
    unheld: list[str]


def check_contract(
    model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer | None
) -> Contract:
    """x (N, ...): a batch. The parameters are as before; random state and batch norms are not."""
    with evaluating(model), torch.no_grad():
        first, second = model(x.clone()).float(), model(x.clone()).float()
        half = model(x[: max(len(x) // 2, 1)].clone()).float()
    spread = max(float(first.std()), 1e-12) if first.numel() > 1 else 1.0
    named = list(model.named_parameters())
    held = (
        {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer else set()
    )
    return Contract(
        _distance(first, second) / spread,
        _distance(first[: len(half)], half) / spread,
        _only_train(model, [(n, p) for n, p in named if p.numel() == 1 and p.requires_grad], x),
        [name for name, p in named if not p.requires_grad],
        [name for name, p in named if optimizer and p.requires_grad and id(p) not in held],
    )


def _distance(a: Tensor, b: Tensor) -> float:
    found = float((a - b).abs().max())
    return found if math.isfinite(found) else 0.0


def _only_train(model: nn.Module, some: list[tuple[str, nn.Parameter]], x: Tensor) -> list[str]:
    """Those of some numbers that move the training output and not evaluation's, as dropout's rate
    does. All are tried at once, and halves of them only where that moves anything."""
    if not some or not _moves(model, some, training(model), x):
        return []
    if len(some) > 1:
        half = len(some) // 2
        return _only_train(model, some[:half], x) + _only_train(model, some[half:], x)
    return [] if _moves(model, some, evaluating(model), x) else [some[0][0]]


def _moves(
    model: nn.Module,
    some: list[tuple[str, nn.Parameter]],
    mode: AbstractContextManager[None],
    x: Tensor,
) -> bool:
    outputs = []
    kept = [p.detach().clone() for _, p in some]
    with mode, torch.no_grad():
        for factor in (1.0, 0.8):
            torch.manual_seed(0)
            for _, p in some:
                p.mul_(factor)
            outputs.append(model(x.clone()).float())
            for (_, p), value in zip(some, kept, strict=True):
                p.copy_(value)
    return _distance(*outputs) > ALIKE * max(float(outputs[0].abs().max()), 1e-12)
