"""The paper's update of the weights in one pass over memory, and a plain implementation.

v <- m v - decay lr w - lr g; w <- w + v. Source: paper, section 5. Without momentum there is no
velocity: w <- w - lr (g + decay w). The two round differently: by a relative 1e-5 in float32
after twenty steps (a test).
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from alexnet.support.plain import is_plain, report_missing

EXACT = ("cpu",)  # devices on which torch's fused update takes its numbers as float64


def update_weights(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    velocities: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    decay: float,
    exact: Collection[str] = EXACT,
) -> None:
    """Update weights and velocities in place.

    `velocities` is empty if momentum is 0. Gradients have the memory layout of their weights.
    `exact` are the devices whose kernels take the rate as float64.
    """
    fused = None if is_plain() else getattr(torch, "_fused_sgd_", None)
    scale_all = getattr(torch, "_foreach_mul", None)
    if fused is None or scale_all is None:
        if not is_plain():
            report_missing("torch._fused_sgd_", "weights are updated one after the other")
        plain_update(weights, gradients, velocities, lr=lr, momentum=momentum, decay=decay)
        return
    # torch's fused update is b <- m b + (1 - dampening) (-g + decay w), w <- w - lr b. It is the
    # paper's if b is the velocity and dampening is 1 - lr. On a GPU dampening is a float32 close to
    # 1, which rounds a small rate: there the gradients are multiplied by the rate before.
    dampening = 1 - lr
    if velocities and weights[0].device.type not in exact:
        gradients = list(scale_all(gradients, lr))
        decay, dampening = decay * lr, 0.0
    fused(
        weights,
        gradients,
        velocities,
        weight_decay=-decay if velocities else decay,
        momentum=momentum,
        lr=-1.0 if velocities else lr,
        dampening=dampening,
        nesterov=False,
        maximize=bool(velocities),
        is_first_step=False,
    )


def plain_update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    velocities: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    decay: float,
) -> None:
    """The update as the paper writes it, one tensor after the other."""
    if not velocities:
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(g.add(w, alpha=decay), alpha=lr)
        return
    for w, g, v in zip(weights, gradients, velocities, strict=True):
        v.mul_(momentum).sub_(w, alpha=decay * lr).sub_(g, alpha=lr)
        w.add_(v)
