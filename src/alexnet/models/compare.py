"""What differs between two networks, each difference with where it comes from."""

from dataclasses import dataclass, fields
from typing import Any

from alexnet.models.layers import Conv, Linear, Local, Part, initial
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
    """One thing that differs: what it is in each, as text, and the source of each."""

    what: str
    first: str
    second: str
    first_source: str
    second_source: str


def compare_presets(first: Preset, second: Preset, classes: int) -> list[Difference]:
    """Every difference between two presets: input, order of parts, and each number of each part."""
    found: list[Difference] = []

    def add(what: str, kind: str, one: Any, other: Any) -> None:
        sources = (p.sources.get(kind, p.sources.get("sizes", "")) for p in (first, second))
        found.append(Difference(what, str(one), str(other), *sources))

    inputs = [f"{p.channels} x {p.size} x {p.size}" for p in (first, second)]
    if inputs[0] != inputs[1]:
        add("input", "sizes", *inputs)
    mine, theirs = (_stages(preset, classes) for preset in (first, second))
    for stage in sorted({*mine, *theirs}, key=lambda s: int(s or 0)):
        one, other = mine.get(stage, {}), theirs.get(stage, {})
        orders = [", ".join(parts) or "nothing" for parts in (one, other)]
        if orders[0] != orders[1]:
            add(f"stage {stage}", "order", *orders)
        for name in [*one, *(n for n in other if n not in one)]:
            if name not in one or name not in other:
                here = {**one, **other}[name]
                text = _describe(*here)
                if isinstance(here[0], Conv | Local | Linear) or text:
                    sides = (text, "none") if name in one else ("none", text)
                    add(name, _PARTS.get(type(here[0]).__name__, "order"), *sides)
                continue
            (part, given), (twin, twin_given) = one[name], other[name]
            if type(part) is not type(twin):
                add(name, "sizes", _describe(part, given), _describe(twin, twin_given))
                continue
            for field in fields(part):  # type: ignore[arg-type]
                values = getattr(part, field.name), getattr(twin, field.name)
                if field.name == "label" or values[0] == values[1]:
                    continue
                kind = _PARTS.get(type(part).__name__, _KINDS.get(field.name, "sizes"))
                texts = (_value(p, g, field.name) for p, g in ((part, given), (twin, twin_given)))
                add(f"{name} {_NAMES.get(field.name, field.name)}", kind, *texts)
    return found


_NAMES = {"std": "initial std", "bias": "initial bias", "divide": "alpha divided by n"}


def _stages(preset: Preset, classes: int) -> dict[str, dict[str, tuple[Part, tuple[int, ...]]]]:
    """The parts of each stage (the number of its layer) by name, with the shape each is given."""
    given: tuple[int, ...] = (preset.channels, preset.size, preset.size)
    found: dict[str, dict[str, tuple[Part, tuple[int, ...]]]] = {}
    for name, part in named_parts(preset.spec(classes)):
        stage = stage_of(name)
        found.setdefault(stage, {})[name] = (part, given)
        given = part.shape(given)
    return found


def _value(part: Part, given: tuple[int, ...], name: str) -> str:
    value = getattr(part, name)
    if name == "std" and isinstance(part, Conv | Local | Linear):
        return f"{value:g}" if isinstance(value, float) else f"{initial(part, given):.4f} ({value})"
    if name == "bias" and getattr(part, "std", None) == "torch":
        return "drawn"
    return "yes" if value is True else "no" if value is False else str(value)


def _describe(part: Part, given: tuple[int, ...]) -> str:
    """A part's numbers in words; empty for parts without any, whose place says it all."""
    shown = [f for f in fields(part) if f.name != "label"]  # type: ignore[arg-type]
    return ", ".join(f"{_NAMES.get(f.name, f.name)} {_value(part, given, f.name)}" for f in shown)
