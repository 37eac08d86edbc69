"""Fills the templates in templates/, and prepares what they show: tables, pictures, verdicts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from alexnet.support.terminal import are_numbers

if TYPE_CHECKING:
    from alexnet.records import Verdict

LONGEST = 32  # characters of a cell that is read as a number; longer ones are read as words
EXACT = 500_000  # bytes of a PNG; larger ones are of photos
_MOODS = {"will not learn": "bad", "learns badly": "bad", "misleads": "mild", "note": ""}


def render(template: str, **values: Any) -> str:
    """The text of a page. Everything in `values` is escaped; a name without a value is an error."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("alexnet.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@dataclass(frozen=True)
class Column:
    """The head of a table's column, and whether its cells are words and not short numbers."""

    head: str
    words: bool


@dataclass(frozen=True)
class Table:
    """Cells by row; `label` names the table for those who do not see it."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    caption: str
    label: str


def build_table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table whose rows are named by their first cells."""
    cells = [[row[i] for row in rows] for i in range(len(heads))]
    columns = [Column(h, not _short_numbers(c)) for h, c in zip(heads, cells, strict=True)]
    kept = [[row[0], *map(_on_one_line, row[1:])] for row in rows]
    return Table(columns, kept, caption, caption or heads[0] or heads[-1])


def _short_numbers(cells: Sequence[str]) -> bool:
    return are_numbers(cells) and max(map(len, cells)) <= LONGEST


def _on_one_line(cell: str) -> str:
    """A short cell, whose spaces do not break."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}") if len(cell) < 24 else cell


@dataclass(frozen=True)
class Picture:
    """A picture inside a page: its data as `source`, which is empty where it is left out, its size
    on the page in pixels, and what it `says` for those who do not see it."""

    file: str
    says: str
    width: int = 0
    height: int = 0
    broad: bool = False
    source: str = ""


def embed_picture(path: Path, says: str) -> Picture:
    """A PNG as WebP for the inside of a page."""
    with Image.open(path) as drawn:
        image = drawn.convert("RGB")
    # Of a plot the exact picture is the smaller one; photos take a tenth with loss.
    exact = path.stat().st_size < EXACT
    packed = io.BytesIO()
    image.save(packed, "WEBP", lossless=exact, quality=82, method=2)
    code = base64.b64encode(packed.getvalue()).decode()
    return Picture(
        file=path.name,
        says=says,
        # Two thirds: drawn at 150 dots an inch, and an inch of a page is 96 pixels.
        width=image.width * 2 // 3,
        height=image.height * 2 // 3,
        broad=image.width > 1.5 * image.height,
        source=f"data:image/webp;base64,{code}",
    )


@dataclass(frozen=True)
class ShownVerdict:
    """A verdict of the doctor as a page shows it: `mood` is a class of the style sheet."""

    title: str
    mood: str
    lines: Sequence[tuple[str, str]]


def show_verdict(v: Verdict) -> ShownVerdict:
    """A verdict's title and those of its lines that it has."""
    where = f" ({v.where})" if v.where else ""
    lines = (
        ("measured", v.evidence),
        ("why", v.cause),
        ("change", v.advice),
        ("judged by", v.source),
    )
    return ShownVerdict(
        title=f"{v.severity}: {v.name}{where}",
        mood=_MOODS.get(v.severity, ""),
        lines=[(what, text) for what, text in lines if text],
    )
