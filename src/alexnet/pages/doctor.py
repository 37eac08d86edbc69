"""What the doctor found, as a page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.pages.parts import MAIN, page, render_picture, render_table, render_verdict

LAYER_HEADS = ("layer", "kind", "output", "size", "image matters", "dead", "gradient")


def doctor_page(found: dict[str, Any], pictures: Sequence[tuple[str, Path]]) -> str:
    """What `doctor` found, as a page; `pictures` are (title, PNG) and go into it."""
    about = str(found.get("run") or found["recipe"])
    verdicts = found["verdicts"]
    parts = [f"{MAIN}<h1>{html.escape(about)}: {html.escape(conclusion(found))}</h1>"]
    parts += [render_verdict(v) for v in verdicts]
    for title, path in pictures:
        parts += [f"<h2>{html.escape(title)}</h2>", render_picture(path, title)]
    if found.get("layers"):
        parts += ["<h2>Layer by layer</h2>", render_table(LAYER_HEADS, layer_rows(found["layers"]))]
    return page(about, "\n".join(parts) + "</main>")


def conclusion(found: dict[str, Any]) -> str:
    """What `doctor` found, in a few words."""
    if found["healthy"] is None:
        return f"could not be told: {found['unmeasured']}"
    return "nothing wrong was found" if found["healthy"] else found["verdicts"][0]["severity"]


def layer_rows(layers: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What `doctor` found of each layer, in words under LAYER_HEADS."""
    return [
        (
            layer["name"],
            layer["kind"],
            "x".join(map(str, layer["shape"])),
            f"{layer['rms']:.3g}",
            f"{layer['signal']:.1e}",
            f"{layer['dead']:.0%}",
            f"{layer['gradient']:.1e}",
        )
        for layer in layers
    ]
