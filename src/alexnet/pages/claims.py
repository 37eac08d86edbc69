"""The claims with what was measured of each, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.pages.render import build_table, embed_picture, render

if TYPE_CHECKING:
    from alexnet.records import ClaimRecord, ClaimRow

CLAIM_HEADS = ("claim", "printed", "measured", "verdict", "seeds", "command")
PUBLISHED_HEADS = ("published", "top-1 error", "top-5 error")
TITLE = "The claims of the 2012 paper, measured"
_MOODS = {"confirmed": "", "contradicted": "bad"}


@dataclass(frozen=True)
class ClaimPart:
    """One claim on the page: its `row` of the listing, and of one that was measured its
    `record` and `pictures`, paths of PNGs."""

    row: ClaimRow
    record: ClaimRecord | None = None
    pictures: Sequence[Path] = ()


def claims_page(claims: Sequence[ClaimPart]) -> str:
    """All claims, each with what was measured of it."""
    return render(
        "claims.html",
        title=TITLE,
        every_claim=build_table(CLAIM_HEADS, [claim_row(c) for c in claims], "every claim"),
        claims=[_claim(claim) for claim in claims],
    )


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


def _claim(claim: ClaimPart) -> dict[str, Any]:
    row, record = claim.row, claim.record
    lines = [("printed", f"{row.paper} ({row.source})"), ("needs", row.needs)]
    if record:
        seeds = f", {record.seeds} seeds" if record.seeds else ""
        machine = record.environment
        where = f"{machine.gpu or machine.cpu}, {machine.threads} threads"
        lines.append(("measured", f"{figure(row)} {row.unit}{seeds}"))
        lines.append(("found", record.finding))
        lines.append(("on", f"{where}, commit {str(machine.commit)[:7]}"))
    lines.append(("again", row.command))
    if row.picture:
        lines.append(("its figure", row.picture))
    says = f"{row.name}: {record.finding if record else row.verdict}"
    published = None
    if row.published:
        caption = f"published beside {row.name}"
        published = build_table(PUBLISHED_HEADS, published_rows(row), caption)
    return {
        "name": row.name,
        "verdict": row.verdict,
        "mood": _MOODS.get(row.verdict, "mild"),
        "lines": lines,
        "pictures": [embed_picture(path, f"{says} ({path.stem})") for path in claim.pictures],
        "published": published,
    }


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"
