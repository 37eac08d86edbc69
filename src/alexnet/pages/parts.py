"""What pages are made of: the frame, tables, verdicts, pictures inside the text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.terminal import are_numbers

if TYPE_CHECKING:
    from alexnet.runs.records import Verdict

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
       color: #1b1b1b; background: white; overflow-wrap: break-word }
h1 { font-size: 1.6rem } h2 { font-size: 1.3rem; margin-top: 2.5rem }
h3 { font-size: 1.05rem; margin-top: 1.8rem }
a { color: #005a8c } :focus-visible { outline: 3px solid #E69F00 }
.skip:not(:focus) { position: absolute; left: -100rem } main:focus { outline: none }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem }
.verdict { border-left: 5px solid #0072B2; padding: .2rem 1rem; margin: 1rem 0 }
.verdict.bad { border-color: #D55E00 } .verdict.mild { border-color: #E69F00 }
dt { font-weight: 600 } dd { margin: 0 0 .3rem 0 }
@media (min-width: 36rem) {
  dt { float: left; clear: left; width: 6rem } dd { margin-left: 6.5rem } }
.wide { overflow-x: auto } figure { margin: 1rem 0 } figcaption { color: #444; font-size: .9rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: right; padding: .15rem .7rem } thead th { border-bottom: 2px solid #999 }
th:first-child, td:first-child { text-align: left; padding-left: 0 } tbody th { font-weight: 400 }
tbody th, td { vertical-align: baseline } .words { text-align: left }
caption { text-align: left; color: #444; padding: .4rem 0 } .wide { margin: .6rem 0 }
figure { overflow-x: auto } img { max-width: 100%; height: auto; display: block }
@media screen { img.broad { min-width: 38rem } }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
footer { margin-top: 3rem; color: #444; font-size: .9rem }
@media (max-width: 36rem) {
  th, td { padding: .15rem .4rem } td:nth-child(2):last-child { overflow-wrap: anywhere } }
@media print { body { max-width: none; font-size: 10pt } nav { display: none }
  figure, .verdict, tr { break-inside: avoid } h2, h3 { break-after: avoid }
  .wide { overflow: visible } }
"""
LONGEST = 32  # characters of a cell that is read as a number; longer ones are read as words
MAIN = '<main id="main" tabindex="-1">'
"""Begins what a page is about; the first link of every page leads there."""
EXACT = 500_000  # bytes of a PNG; larger ones are of photos
_CLASSES = {"will not learn": "bad", "learns badly": "bad", "misleads": "mild", "note": ""}


def page(title: str, body: str) -> str:
    """A whole page, which loads nothing from anywhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><a class="skip" href="#main">To the content</a>{body}</body></html>\n'
    )


def render_table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """The first cell of a row names it. A table that is wider than the page scrolls by itself."""
    columns = [[row[i] for row in rows] for i in range(len(heads))]
    kinds = ["" if _short_numbers(cells) else ' class="words"' for cells in columns]
    named = list(zip(heads, kinds, strict=True))
    head = "".join(f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in named)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(
            f"<td{kind}>{html.escape(_together(cell))}</td>"
            for cell, kind in zip(row[1:], kinds[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    label = html.escape(caption or heads[0] or heads[-1])
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="table: {label}"><table>{said}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _short_numbers(cells: Sequence[str]) -> bool:
    return are_numbers(cells) and max(map(len, cells)) <= LONGEST


def render_picture(path: Path, says: str, caption: str = "") -> str:
    """A PNG as WebP inside the page; `says` is for those who do not see it."""
    from PIL import Image  # not before a page is made: `alexnet --help` imports this

    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    with Image.open(path) as drawn:
        image = drawn.convert("RGB")
        # Of a plot the exact picture is the smaller one; photos take a tenth with loss.
        exact = path.stat().st_size < EXACT
        packed = io.BytesIO()
        image.save(packed, "WEBP", lossless=exact, quality=82, method=2)
        # Two thirds: drawn at 150 dots an inch, and an inch of a page is 96 pixels.
        size = f'width="{image.width * 2 // 3}" height="{image.height * 2 // 3}"'
        broad = ' class="broad"' if image.width > 1.5 * image.height else ""
    code = base64.b64encode(packed.getvalue()).decode()
    source = f"data:image/webp;base64,{code}"
    focus = f' tabindex="0" aria-label="{html.escape(says)}"' if broad else ""  # it may scroll
    shown = f'<img{broad} {size} alt="{html.escape(says)}" src="{source}">'
    return f"<figure{focus}>{shown}{below}</figure>"


def _together(cell: str) -> str:
    """A short cell stays on one line."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}") if len(cell) < 24 else cell


def render_verdict(v: Verdict) -> str:
    """One of the doctor's; the lines that it has."""
    where = f" ({v.where})" if v.where else ""
    rows = "".join(
        f"<dt>{what}</dt><dd>{html.escape(text)}</dd>"
        for what, text in (
            ("measured", v.evidence),
            ("why", v.cause),
            ("change", v.advice),
            ("judged by", v.source),
        )
        if text
    )
    title = html.escape(f"{v.severity}: {v.name}{where}")
    mood = _CLASSES.get(v.severity, "")
    return f'<div class="verdict {mood}"><b>{title}</b><dl>{rows}</dl></div>'
