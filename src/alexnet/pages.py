"""Self-contained HTML pages: text, tables and pictures in one file that opens anywhere."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: white }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.verdict { border-left: 5px solid #0072B2; padding: .2rem 1rem; margin: 1rem 0 }
.verdict.bad { border-color: #D55E00 } .verdict.mild { border-color: #E69F00 }
dt { font-weight: 600; float: left; clear: left; width: 6rem } dd { margin: 0 0 .3rem 6.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .15rem .8rem } th { border-bottom: 2px solid #999 }
th:first-child, td:first-child, .words th, .words td { text-align: left; vertical-align: top }
img { max-width: 100% }
"""
LAYER_HEADS = ("layer", "kind", "output", "size", "image matters", "dead", "gradient")
CLAIM_HEADS = ("claim", "printed", "measured", "verdict", "seeds", "command")
_CLASSES = {"will not learn": "bad", "learns badly": "bad", "misleads": "mild", "note": ""}


def doctor_page(found: dict[str, Any], pictures: Sequence[tuple[str, Path]]) -> str:
    """What `doctor` found, as a page; `pictures` are (title, PNG) and go into it."""
    about = str(found.get("run") or found["recipe"])
    verdicts = found["verdicts"]
    verdict = "nothing wrong was found" if found["healthy"] else verdicts[0]["severity"]
    parts = [f"<h1>{html.escape(about)}: {html.escape(verdict)}</h1>"]
    parts += [_verdict(v) for v in verdicts]
    parts += [_picture(title, path) for title, path in pictures]
    if found.get("layers"):
        parts += ["<h2>Layer by layer</h2>", _layers(found["layers"])]
    return _page(about, parts)


def claims_page(claims: Sequence[dict[str, Any]]) -> str:
    """The claims with what was measured of each, as a page.

    Each has what the listing of `alexnet claim` has; measured ones also their `record` and
    `pictures`, paths of PNGs.
    """
    head = "".join(f"<th>{name}</th>" for name in CLAIM_HEADS)
    rows = []
    for claim in claims:
        name, *cells = (html.escape(cell) for cell in claim_row(claim))
        rows.append(f'<tr><td><a href="#{name}">{name}</a></td>')
        rows.append("".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f'<table class="words"><tr>{head}</tr>{"".join(rows)}</table>'
    parts = ["<h1>The claims of the 2012 paper, measured</h1>", table]
    parts += [_claim(claim) for claim in claims]
    return _page("The claims of the 2012 paper", parts)


def claim_row(claim: dict[str, Any]) -> tuple[str, ...]:
    """A claim in words under CLAIM_HEADS."""
    printed = f"{claim['paper']} ({claim['source']})"
    measured = f"{figure(claim)} {claim['unit']}" if claim["measured"] is not None else ""
    seeds = str((claim.get("record") or {}).get("seeds") or "")
    return claim["name"], printed, measured, claim["verdict"], seeds, claim["command"]


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
    mood = {"confirmed": "", "contradicted": "bad"}.get(claim["verdict"], "mild")
    name = html.escape(claim["name"])
    pictures = "".join(_image(f"{name}: {path.stem}", path) for path in claim.get("pictures", ()))
    return (
        f'<h2 id="{name}">{name}: {html.escape(claim["verdict"])}</h2>'
        f'<div class="verdict {mood}"><dl>{listed}</dl></div>{pictures}'
    )


def _page(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _verdict(v: dict[str, Any]) -> str:
    where = f" ({v['where']})" if v["where"] else ""
    rows = "".join(
        f"<dt>{what}</dt><dd>{html.escape(str(v[key]))}</dd>"
        for what, key in (
            ("measured", "evidence"),
            ("why", "cause"),
            ("change", "advice"),
            ("judged by", "source"),
        )
    )
    title = html.escape(f"{v['severity']}: {v['name']}{where}")
    return f'<div class="verdict {_CLASSES[v["severity"]]}"><b>{title}</b><dl>{rows}</dl></div>'


def _picture(title: str, path: Path) -> str:
    return f"<h2>{html.escape(title)}</h2>" + _image(title, path)


def _image(title: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def figure(claim: dict[str, Any]) -> str:
    """What was measured of a claim, with its interval, short enough for a table."""
    if claim["measured"] is None:
        return ""
    interval = ""
    if claim["ci95"]:
        low, high = map(_number, claim["ci95"])
        interval = f" ({low} to {high})"
    return _number(claim["measured"]) + interval


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"


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


def _layers(layers: Sequence[dict[str, Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in LAYER_HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in layer_rows(layers)
    )
    return f"<table><tr>{head}</tr>{body}</table>"
