"""A look at one training step: dead units, weight updates, and what the gradients teach."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.run_figures import Learning
from alexnet.diagnosis.tensor_measures import dead_share
from alexnet.diagnosis.trial import WeightUpdate, copy_weights, weight_updates
from alexnet.records import LookFigures

MIN_IMAGES = 16  # of a batch; in a smaller one any sparse layer has units that are off for all
NO_GRADIENT = 0.95  # share of a layer's units without gradient, above which it counts as off
ALONG_WEIGHT = 0.999  # cosine of gradient and weight, above which the gradient is weight decay


@dataclass
class StepLook:
    """Measurements of one training step, beside those of the look before and the run's figures.

    `dead` is the share of dead units by layer. `updates` are those of the weights. `untaught` is
    the share of weights whose gradient does not come from the images; None where no weight has an
    update. `learning` is what the run's figures show, `schedule_is_ending` whether the learning
    rate has fallen to almost nothing.
    """

    step: int
    learning: Learning = "unknown"
    schedule_is_ending: bool = False
    dead: dict[str, float] = field(default_factory=dict)
    updates: Sequence[WeightUpdate] = ()
    untaught: float | None = None
    dead_before: Mapping[str, float] = field(default_factory=dict)
    untaught_before: float | None = None

    def update_ratio(self) -> float:
        """rms(update) / rms(weight), the median over weights."""
        return statistics.median(update.ratio for update in self.updates)

    def decay_cosine(self) -> float:
        """Cosine between update and minus the weight, the median over weights."""
        return statistics.median(update.decay_cosine for update in self.updates)

    def measured(self) -> LookFigures:
        """The measurements as metrics.jsonl has them."""
        return LookFigures(
            dead={name: round(share, 4) for name, share in self.dead.items()},
            update_ratio=self.update_ratio() if self.updates else None,
            untaught=self.untaught if self.updates else None,
        )


@contextmanager
def look_at_step(model: nn.Module, look: StepLook) -> Iterator[None]:
    """Measures the training step that is made inside, and writes the results into `look`."""
    names = {module: name for name, module in model.named_modules()}

    def record_dead(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() > 1:
            enough = len(output) >= MIN_IMAGES
            look.dead[names[module]] = dead_share(output) if enough else 0.0

    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(record_dead) for module in activations]
    weights = copy_weights(model)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not activations:
        look.dead = _layer_without_gradient(model)
    look.updates = list(weight_updates(model, weights).values())
    if look.updates:
        look.untaught = _untaught_share(model, weights)


def _layer_without_gradient(model: nn.Module) -> dict[str, float]:
    """The layer nearest to the output most of whose units get no gradient, with their share.

    For networks whose activations are functions and not modules. A unit that is off for a whole
    batch gets no gradient. Where all units of a layer are off, the layers before get none either.
    Empty where all layers are off, or none.
    """
    shares = {}
    for name, module in model.named_modules():
        # A bias's gradient is its unit's. A weight's is also zero where its input is zero.
        p = getattr(module, "bias", None)
        p = getattr(module, "weight", None) if p is None else p
        if isinstance(p, Tensor) and p.grad is not None and p.dim() > 0:
            by_unit = p.grad.flatten(1).abs().amax(1) if p.dim() > 1 else p.grad
            shares[name] = float((by_unit == 0).float().mean())
    off = [name for name, share in shares.items() if share > NO_GRADIENT]
    return {off[-1]: shares[off[-1]]} if off and len(off) < len(shares) else {}


def _untaught_share(model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Share of weights that the images teach nothing.

    Such a weight has no gradient, or one along the weight itself, as from an L2 term in the loss.
    """
    parameters = dict(model.named_parameters())
    untaught = 0
    for name, weight in weights.items():
        gradient = parameters[name].grad
        if gradient is None or not bool(gradient.any()):
            untaught += 1
            continue
        product = float((gradient * weight.conj()).sum().real)
        norms = torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(weight)
        untaught += product > ALONG_WEIGHT * float(norms)
    return untaught / len(weights)
