"""Calls a max pool before the ReLU in front of it, which leaves a quarter of the work for ReLU."""

import itertools
from collections.abc import Mapping

from torch import nn

from alexnet.support.plain import is_plain, report_missing

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def order_of_training_step(parts: Mapping[str, nn.Module]) -> list[str]:
    """Return the names of the parts in the order in which a training step calls them.

    A ReLU in front of a max pool is called after it, for the same outputs and gradients, to the
    bit. The order does not change if one of them has a hook, or with ALEXNET_PLAIN=1.
    """
    names = list(parts)
    if is_plain():
        return names
    order = list(names)
    for i, (first, second) in enumerate(itertools.pairwise(names)):
        relu, pool = parts[first], parts[second]
        can_swap = isinstance(relu, nn.ReLU) and isinstance(pool, nn.MaxPool2d)
        if can_swap and not (_has_hooks(relu) or _has_hooks(pool)):
            order[i : i + 2] = second, first
    return order


def _has_hooks(module: nn.Module) -> bool:
    missing = [name for name in HOOKS if not hasattr(module, name)]
    if missing:
        report_missing(f"nn.Module.{missing[0]}", "a ReLU comes before its max pool")
    return bool(missing) or any(getattr(module, name) for name in HOOKS)
