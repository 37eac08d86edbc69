"""A diagnosis of the doctor as a page, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.pages.render import build_table, embed_picture, render, show_verdict

if TYPE_CHECKING:
    from alexnet.records import LayerSignals, RecipeDiagnosis, RunDiagnosis

LAYER_HEADS = ("layer", "kind", "output", "size", "image matters", "dead", "gradient")


def doctor_page(
    diagnosis: RecipeDiagnosis | RunDiagnosis, pictures: Sequence[tuple[str, Path]]
) -> str:
    """A diagnosis as a page; `pictures` are (title, PNG) and go into it."""
    table = build_table(LAYER_HEADS, layer_rows(diagnosis.layers)) if diagnosis.layers else None
    return render(
        "doctor.html",
        title=name_of(diagnosis),
        conclusion=conclusion(diagnosis),
        verdicts=[show_verdict(v) for v in diagnosis.verdicts],
        pictures=[(title, embed_picture(path, title)) for title, path in pictures],
        layers=table,
    )


def name_of(diagnosis: RecipeDiagnosis | RunDiagnosis) -> str:
    """The diagnosed run, or the recipe."""
    return getattr(diagnosis, "run", diagnosis.recipe)


def conclusion(diagnosis: RecipeDiagnosis | RunDiagnosis) -> str:
    """A diagnosis in a few words."""
    if diagnosis.healthy is None:
        return f"could not be told: {diagnosis.unmeasured}"
    return "nothing wrong was found" if diagnosis.healthy else diagnosis.verdicts[0].severity


def layer_rows(layers: Sequence[LayerSignals]) -> list[tuple[str, ...]]:
    """The signals of each layer as the cells under LAYER_HEADS."""
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
