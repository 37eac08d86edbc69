"""Changes of a network's specification that ablations make, one factor each."""

from dataclasses import replace

from alexnet.lab.claims.one_training import Change
from alexnet.models import Conv, Linear, Part, Pool, ReLU, ResponseNorm, Spec, Tanh


def without_norm(spec: Spec) -> Spec:
    return [part for part in spec if not isinstance(part, ResponseNorm)]


def with_tanh(spec: Spec) -> Spec:
    return [Tanh() if isinstance(part, ReLU) else part for part in spec]


def without_norm_with_tanh(spec: Spec) -> Spec:
    return with_tanh(without_norm(spec))


def with_plain_pools(spec: Spec) -> Spec:
    """Windows of 2 every 2, in the place of 3 every 2."""
    return [replace(part, kernel=2) if isinstance(part, Pool) else part for part in spec]


def without_layer(label: str) -> Change:
    """A convolution and its activation left out."""

    def change(spec: Spec) -> Spec:
        parts = list(spec)
        at = next(i for i, part in enumerate(parts) if part.label == label)
        return [*parts[:at], *parts[at + 2 :]]

    return change


def half_in_one_tower(spec: Spec) -> Spec:
    """One tower with half the kernels in every convolution but the last (paper, footnote 2)."""
    last = [part.label for part in spec if isinstance(part, Conv)][-1]
    parts: list[Part] = []
    for part in spec:
        if isinstance(part, Conv):
            part = replace(part, groups=1, out=part.out if part.label == last else part.out // 2)
        parts.append(replace(part, groups=1) if isinstance(part, ResponseNorm) else part)
    return parts


def in_towers(groups: int, *labels: str) -> Change:
    """So many towers in these convolutions and in every response norm between them."""

    def change(spec: Spec) -> Spec:
        return [
            replace(part, groups=groups)
            if (isinstance(part, Conv) and part.label in labels)
            or (isinstance(part, ResponseNorm) and groups == 1)
            else part
            for part in spec
        ]

    return change


def with_biases(value: float) -> Change:
    """Every bias that starts at 1 in the paper starts at this value."""

    def change(spec: Spec) -> Spec:
        return [
            replace(part, bias=value) if isinstance(part, Conv | Linear) and part.bias else part
            for part in spec
        ]

    return change
