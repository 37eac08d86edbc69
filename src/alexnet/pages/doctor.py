"""What the doctor found, as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.pages.parts import MAIN, page, render_picture, render_table, render_verdict

if TYPE_CHECKING:
    from alexnet.runs.records import LayerSignals, RecipeDiagnosis, RunDiagnosis

LAYER_HEADS = ("layer", "kind", "output", "size", "image matters", "dead", "gradient")


def doctor_page(found: RecipeDiagnosis | RunDiagnosis, pictures: Sequence[tuple[str, Path]]) -> str:
    """What `doctor` found, as a page; `pictures` are (title, PNG) and go into it."""
    about = name_of(found)
    parts = [f"{MAIN}<h1>{html.escape(about)}: {html.escape(conclusion(found))}</h1>"]
    parts += [render_verdict(v) for v in found.verdicts]
    for title, path in pictures:
        parts += [f"<h2>{html.escape(title)}</h2>", render_picture(path, title)]
    if found.layers:
        parts += ["<h2>Layer by layer</h2>", render_table(LAYER_HEADS, layer_rows(found.layers))]
    return page(about, "\n".join(parts) + "</main>")


def name_of(found: RecipeDiagnosis | RunDiagnosis) -> str:
    """The run that was looked at, or the recipe."""
    return getattr(found, "run", found.recipe)


def conclusion(found: RecipeDiagnosis | RunDiagnosis) -> str:
    """What `doctor` found, in a few words."""
    if found.healthy is None:
        return f"could not be told: {found.unmeasured}"
    return "nothing wrong was found" if found.healthy else found.verdicts[0].severity


def layer_rows(layers: Sequence[LayerSignals]) -> list[tuple[str, ...]]:
    """What `doctor` found of each layer, in words under LAYER_HEADS."""
    return [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            _number(layer.rms, ".3g"),
            _number(layer.signal, ".1e"),
            _number(layer.dead, ".0%"),
            _number(layer.gradient, ".1e"),
        )
        for layer in layers
    ]


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
