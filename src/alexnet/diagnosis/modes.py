"""Training and evaluation mode: switching between them, and comparing what a network does in both.

Shapes: N images, K classes.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Largest relative difference of equal outputs; another order of float32 sums gives 1e-6.
EQUAL_WITHIN = 1e-4


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Puts every module back into the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def evaluation_mode(model: nn.Module, *, batch_norm_trains: bool = False) -> Iterator[None]:
    """Evaluation mode inside; batch norms may stay in training mode. Modes are restored after."""
    with restored_modes(model):
        model.eval()
        for module in model.modules() if batch_norm_trains else ():
            if isinstance(module, _BatchNorm):
                module.train()
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Training mode inside, as `model.train()` sets it. Modes are restored after."""
    with restored_modes(model):
        model.train()
        yield


@dataclass(frozen=True)
class ModeComparison:
    """Whether evaluation is deterministic, and agrees with training.

    `random`: distance between two evaluations of the same images; `batchwise`: distance between
    evaluations of an image beside different images; both in deviations of the logits. The rest are
    names of parameters: `train_only` are single numbers that change the output in training mode
    alone, `frozen` are not trained, `not_in_optimizer` are trained by no optimiser.
    """

    random: float
    batchwise: float
    train_only: list[str]
    frozen: list[str]
    not_in_optimizer: list[str]


def compare_modes(
    model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer | None
) -> ModeComparison:
    """Compares evaluations of the batch x (N, ...), and the effect of single numbers in both modes.

    Parameters are restored. The random state and the statistics of batch norms are not.
    """
    with evaluation_mode(model), torch.no_grad():
        first, second = model(x.clone()).float(), model(x.clone()).float()
        half = model(x[: max(len(x) // 2, 1)].clone()).float()
    spread = max(float(first.std()), 1e-12) if first.numel() > 1 else 1.0
    parameters = list(model.named_parameters())
    groups = optimizer.param_groups if optimizer else []
    in_optimizer = {id(p) for group in groups for p in group["params"]}
    single_numbers = [(name, p) for name, p in parameters if p.numel() == 1 and p.requires_grad]
    return ModeComparison(
        random=_distance(first, second) / spread,
        batchwise=_distance(first[: len(half)], half) / spread,
        train_only=_train_only(model, single_numbers, x),
        frozen=[name for name, p in parameters if not p.requires_grad],
        not_in_optimizer=[
            name
            for name, p in parameters
            if optimizer and p.requires_grad and id(p) not in in_optimizer
        ],
    )


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference; 0 where it is not finite."""
    largest = float((a - b).abs().max())
    return largest if math.isfinite(largest) else 0.0


NamedParameters = list[tuple[str, nn.Parameter]]


def _train_only(model: nn.Module, numbers: NamedParameters, x: Tensor) -> list[str]:
    """Names of the numbers that change the output in training mode alone, as a dropout rate does.

    All are changed at once; halves of them are tried only where that changes the output.
    """
    if not numbers or not _change_output(model, numbers, training_mode(model), x):
        return []
    if len(numbers) > 1:
        half = len(numbers) // 2
        return _train_only(model, numbers[:half], x) + _train_only(model, numbers[half:], x)
    return [] if _change_output(model, numbers, evaluation_mode(model), x) else [numbers[0][0]]


def _change_output(
    model: nn.Module, numbers: NamedParameters, mode: AbstractContextManager[None], x: Tensor
) -> bool:
    """Whether the output changes where the numbers are a fifth smaller."""
    outputs = []
    originals = [p.detach().clone() for _, p in numbers]
    with mode, torch.no_grad():
        for factor in (1.0, 0.8):
            torch.manual_seed(0)
            for _, p in numbers:
                p.mul_(factor)
            outputs.append(model(x.clone()).float())
            for (_, p), original in zip(numbers, originals, strict=True):
                p.copy_(original)
    return _distance(*outputs) > EQUAL_WITHIN * max(float(outputs[0].abs().max()), 1e-12)
