"""The claims with what was measured of each, as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.pages.parts import MAIN, page, render_picture, render_table

if TYPE_CHECKING:
    from alexnet.runs.records import ClaimRecord, ClaimRow

CLAIM_HEADS = ("claim", "printed", "measured", "verdict", "seeds", "command")
PUBLISHED_HEADS = ("published", "top-1 error", "top-5 error")
TITLE = "The claims of the 2012 paper, measured"
_MOODS = {"confirmed": "", "contradicted": "bad"}


@dataclass(frozen=True)
class ClaimPart:
    """What is said of one claim: its `row` of the listing, and of one that was measured its
    `record` and `pictures`, paths of PNGs."""

    row: ClaimRow
    record: ClaimRecord | None = None
    pictures: Sequence[Path] = ()


def claims_page(claims: Sequence[ClaimPart]) -> str:
    """All claims, each with what was measured of it."""
    links = (f'<li><a href="#{c.row.name}">{html.escape(c.row.name)}</a></li>' for c in claims)
    parts = [f'<nav aria-label="claims"><ul>{"".join(links)}</ul></nav>']
    parts += [
        f"{MAIN}<h1>{TITLE}</h1>",
        render_table(CLAIM_HEADS, [claim_row(c) for c in claims], "every claim"),
    ]
    parts += [_claim(claim) for claim in claims]
    return page(TITLE, "\n".join(parts) + "</main>")


def claim_row(claim: ClaimPart) -> tuple[str, ...]:
    """A claim in words under CLAIM_HEADS."""
    row = claim.row
    printed = f"{row.paper} ({row.source})"
    measured = f"{figure(row)} {row.unit}" if row.measured is not None else ""
    seeds = str(claim.record.seeds or "") if claim.record else ""
    return row.name, printed, measured, row.verdict, seeds, row.command


def published_rows(claim: ClaimRow) -> list[tuple[str, str, str]]:
    """What others published of a claim's table, under PUBLISHED_HEADS, lowest error first."""
    ranked = sorted(claim.published.items(), key=lambda item: item[1][0])
    return [(name, f"{top1:.1f} %", f"{top5:.1f} %") for name, (top1, top5) in ranked]


def figure(claim: ClaimRow | ClaimRecord) -> str:
    """What was measured of a claim, with its interval, short enough for a table."""
    if claim.measured is None:
        return ""
    interval = ""
    if claim.ci95:
        low, high = map(_number, claim.ci95)
        interval = f" ({low} to {high})"
    return _number(claim.measured) + interval


def _claim(claim: ClaimPart) -> str:
    row, record = claim.row, claim.record
    rows = [("printed", f"{row.paper} ({row.source})"), ("needs", row.needs)]
    if record:
        seeds = f", {record.seeds} seeds" if record.seeds else ""
        machine = record.environment
        where = f"{machine.gpu or machine.cpu}, {machine.threads} threads"
        rows.append(("measured", f"{figure(row)} {row.unit}{seeds}"))
        rows.append(("found", record.finding))
        rows.append(("on", f"{where}, commit {str(machine.commit)[:7]}"))
    rows.append(("again", row.command))
    if row.picture:
        rows.append(("its figure", row.picture))
    listed = "".join(f"<dt>{what}</dt><dd>{html.escape(text)}</dd>" for what, text in rows)
    name = html.escape(row.name)
    says = f"{row.name}: {record.finding if record else row.verdict}"
    pictures = "".join(render_picture(path, f"{says} ({path.stem})") for path in claim.pictures)
    if row.published:
        pictures += render_table(PUBLISHED_HEADS, published_rows(row), f"published beside {name}")
    return (
        f'<h2 id="{name}">{name}: {html.escape(row.verdict)}</h2>'
        f'<div class="verdict {_MOODS.get(row.verdict, "mild")}"><dl>{listed}</dl></div>'
        f"{pictures}"
    )


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"
