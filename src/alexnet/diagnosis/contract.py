"""What training and evaluation silently promise each other, tried out on any network."""

import math
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
        [name for name, p in named if p.numel() == 1 and _only_trains(model, p, x)],
        [name for name, p in named if not p.requires_grad],
        [name for name, p in named if optimizer and p.requires_grad and id(p) not in held],
    )


def _distance(a: Tensor, b: Tensor) -> float:
    found = float((a - b).abs().max())
    return found if math.isfinite(found) else 0.0


def _only_trains(model: nn.Module, p: nn.Parameter, x: Tensor) -> bool:
    """Whether a number moves the training output and not evaluation's, as dropout's rate does."""
    if not p.requires_grad:
        return False

    def moves(mode: object) -> bool:
        outputs = []
        with mode, torch.no_grad():  # type: ignore[attr-defined]
            for factor in (1.0, 0.8):
                torch.manual_seed(0)
                kept = p.detach().clone()
                p.mul_(factor)
                outputs.append(model(x.clone()).float())
                p.copy_(kept)
        return _distance(*outputs) > ALIKE * max(float(outputs[0].abs().max()), 1e-12)

    return moves(training(model)) and not moves(evaluating(model))
