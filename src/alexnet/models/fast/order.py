"""Takes a ReLU after the max pool that follows it: a quarter of the work."""

import itertools
from collections.abc import Mapping

from torch import nn

from alexnet.plain import is_plain, report_missing

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def order_of_training_step(parts: Mapping[str, nn.Module]) -> list[str]:
    """The names of the parts in the order in which a training step calls them.

    A ReLU is called after the max pool that follows it: the same numbers and gradients, to the bit.
    The order stays as it is where a hook is on either, and with ALEXNET_PLAIN=1.
    """
    names = list(parts)
    if is_plain():
        return names
    order = list(names)
    for at, (first, second) in enumerate(itertools.pairwise(names)):
        relu, pool = parts[first], parts[second]
        swaps = isinstance(relu, nn.ReLU) and isinstance(pool, nn.MaxPool2d)
        if swaps and not (_has_hooks(relu) or _has_hooks(pool)):
            order[at : at + 2] = second, first
    return order


def _has_hooks(module: nn.Module) -> bool:
    missing = [name for name in HOOKS if not hasattr(module, name)]
    if missing:
        report_missing(f"nn.Module.{missing[0]}", "a ReLU comes before its max pool")
    return bool(missing) or any(getattr(module, name) for name in HOOKS)
