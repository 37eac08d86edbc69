"""The differences between two networks, each with its source."""

from dataclasses import dataclass, fields
from typing import Any

from alexnet.models.layers import Conv, Linear, Local, Part, initial_std
from alexnet.models.net import Preset, named_parts, stage_of

_KINDS = {
    **dict.fromkeys(("out", "kernel", "stride", "side"), "sizes"),
    **dict.fromkeys(("padding", "ceil"), "padding"),
    **dict.fromkeys(("std", "bias"), "init"),
    "groups": "groups",
}
_PARTS = {"ResponseNorm": "norm", "Pool": "pool", "Dropout": "dropout"}


@dataclass(frozen=True)
class Difference:
    """One difference: its name, its value in each network as text, and the source of each."""

    what: str
    first: str
    second: str
    first_source: str
    second_source: str


def compare_presets(first: Preset, second: Preset, classes: int) -> list[Difference]:
    """List the differences of two presets: input, order of parts, and each number of each part."""
    differences: list[Difference] = []

    def add(what: str, kind: str, one: Any, other: Any) -> None:
        sources = (p.sources.get(kind, p.sources.get("sizes", "")) for p in (first, second))
        differences.append(Difference(what, str(one), str(other), *sources))

    inputs = [f"{p.channels} x {p.size} x {p.size}" for p in (first, second)]
    if inputs[0] != inputs[1]:
        add("input", "sizes", *inputs)
    first_stages, second_stages = (_stages(preset, classes) for preset in (first, second))
    for stage in sorted({*first_stages, *second_stages}, key=lambda s: int(s or 0)):
        one, other = first_stages.get(stage, {}), second_stages.get(stage, {})
        orders = [", ".join(parts) or "nothing" for parts in (one, other)]
        if orders[0] != orders[1]:
            add(f"stage {stage}", "order", *orders)
        for name in [*one, *(n for n in other if n not in one)]:
            if name not in one or name not in other:
                part, in_shape = {**one, **other}[name]
                text = _describe(part, in_shape)
                if isinstance(part, Conv | Local | Linear) or text:
                    sides = (text, "none") if name in one else ("none", text)
                    add(name, _PARTS.get(type(part).__name__, "order"), *sides)
                continue
            (part, in_shape), (other_part, other_shape) = one[name], other[name]
            if type(part) is not type(other_part):
                add(name, "sizes", _describe(part, in_shape), _describe(other_part, other_shape))
                continue
            for field in fields(part):  # type: ignore[arg-type]
                values = getattr(part, field.name), getattr(other_part, field.name)
                if field.name == "label" or values[0] == values[1]:
                    continue
                kind = _PARTS.get(type(part).__name__, _KINDS.get(field.name, "sizes"))
                texts = (
                    _value(part, in_shape, field.name),
                    _value(other_part, other_shape, field.name),
                )
                add(f"{name} {_NAMES.get(field.name, field.name)}", kind, *texts)
    return differences


_NAMES = {"std": "initial std", "bias": "initial bias", "divide": "alpha divided by n"}


def _stages(preset: Preset, classes: int) -> dict[str, dict[str, tuple[Part, tuple[int, ...]]]]:
    """Return the parts of each stage (the number of its layer) by name, with their input shapes."""
    shape: tuple[int, ...] = (preset.channels, preset.size, preset.size)
    stages: dict[str, dict[str, tuple[Part, tuple[int, ...]]]] = {}
    for name, part in named_parts(preset.spec(classes)):
        stage = stage_of(name)
        stages.setdefault(stage, {})[name] = (part, shape)
        shape = part.shape(shape)
    return stages


def _value(part: Part, in_shape: tuple[int, ...], name: str) -> str:
    value = getattr(part, name)
    if name == "std" and isinstance(part, Conv | Local | Linear):
        return (
            f"{value:g}"
            if isinstance(value, float)
            else f"{initial_std(part, in_shape):.4f} ({value})"
        )
    if name == "bias" and getattr(part, "std", None) == "torch":
        return "drawn"
    return "yes" if value is True else "no" if value is False else str(value)


def _describe(part: Part, in_shape: tuple[int, ...]) -> str:
    """Describe the numbers of a part in words; empty for a part without numbers."""
    shown = [f for f in fields(part) if f.name != "label"]  # type: ignore[arg-type]
    return ", ".join(
        f"{_NAMES.get(f.name, f.name)} {_value(part, in_shape, f.name)}" for f in shown
    )
