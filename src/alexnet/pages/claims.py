"""The claims with what was measured of each, as a page."""

import html
from collections.abc import Sequence
from typing import Any

from alexnet.pages.parts import MAIN, page, render_picture, render_table

CLAIM_HEADS = ("claim", "printed", "measured", "verdict", "seeds", "command")
PUBLISHED_HEADS = ("published", "top-1 error", "top-5 error")
TITLE = "The claims of the 2012 paper, measured"
_MOODS = {"confirmed": "", "contradicted": "bad"}


def claims_page(claims: Sequence[dict[str, Any]]) -> str:
    """Each claim has what the listing of `alexnet claim` has; measured ones also their `record` and
    `pictures`, paths of PNGs."""
    links = (f'<li><a href="#{c["name"]}">{html.escape(c["name"])}</a></li>' for c in claims)
    parts = [f'<nav aria-label="claims"><ul>{"".join(links)}</ul></nav>']
    parts += [
        f"{MAIN}<h1>{TITLE}</h1>",
        render_table(CLAIM_HEADS, [claim_row(c) for c in claims], "every claim"),
    ]
    parts += [_claim(claim) for claim in claims]
    return page(TITLE, "\n".join(parts) + "</main>")


def claim_row(claim: dict[str, Any]) -> tuple[str, ...]:
    """A claim in words under CLAIM_HEADS."""
    printed = f"{claim['paper']} ({claim['source']})"
    measured = f"{figure(claim)} {claim['unit']}" if claim["measured"] is not None else ""
    seeds = str((claim.get("record") or {}).get("seeds") or "")
    return claim["name"], printed, measured, claim["verdict"], seeds, claim["command"]


def published_rows(claim: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What others published of a claim's table, under PUBLISHED_HEADS, lowest error first."""
    ranked = sorted(claim["published"].items(), key=lambda item: item[1][0])
    return [(name, f"{top1:.1f} %", f"{top5:.1f} %") for name, (top1, top5) in ranked]


def figure(claim: dict[str, Any]) -> str:
    """What was measured of a claim, with its interval, short enough for a table."""
    if claim["measured"] is None:
        return ""
    interval = ""
    if claim["ci95"]:
        low, high = map(_number, claim["ci95"])
        interval = f" ({low} to {high})"
    return _number(claim["measured"]) + interval


def _claim(claim: dict[str, Any]) -> str:
    rows = [("printed", f"{claim['paper']} ({claim['source']})"), ("needs", claim["needs"])]
    if record := claim.get("record"):
        seeds = f", {record['seeds']} seeds" if record["seeds"] else ""
        machine = record["environment"]
        where = f"{machine['gpu'] or machine['cpu']}, {machine['threads']} threads"
        rows.append(("measured", f"{figure(claim)} {claim['unit']}{seeds}"))
        rows.append(("found", record["finding"]))
        rows.append(("on", f"{where}, commit {str(machine['commit'])[:7]}"))
    rows.append(("again", claim["command"]))
    if claim["picture"]:
        rows.append(("its figure", claim["picture"]))
    listed = "".join(f"<dt>{what}</dt><dd>{html.escape(text)}</dd>" for what, text in rows)
    name = html.escape(claim["name"])
    says = f"{claim['name']}: {(record or {}).get('finding', claim['verdict'])}"
    pictures = "".join(
        render_picture(path, f"{says} ({path.stem})") for path in claim.get("pictures", ())
    )
    if claim.get("published"):
        pictures += render_table(PUBLISHED_HEADS, published_rows(claim), f"published beside {name}")
    return (
        f'<h2 id="{name}">{name}: {html.escape(claim["verdict"])}</h2>'
        f'<div class="verdict {_MOODS.get(claim["verdict"], "mild")}"><dl>{listed}</dl></div>'
        f"{pictures}"
    )


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"
