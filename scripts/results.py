"""Writes records of finished runs, and the tables of README and docs from all records.

    python scripts/results.py record RUN [--data-note TEXT] [--note TEXT]
    python scripts/results.py table [--check]

A record is `results/<recipe>-seed<n>.json`: the figures on all test images and, for the
generalisation gap, on all training images without augmentation, with everything that is needed to
reproduce them. The pages docs/claims.md and docs/claims.html are made from `results/claims`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import alexnet
from alexnet.data.ilsvrc import EPOCHS, training_hours
from alexnet.lab.claims.verb import listing
from alexnet.pages import (
    CLAIM_HEADS,
    PUBLISHED_HEADS,
    ClaimPart,
    claim_row,
    claims_page,
    published_rows,
)
from alexnet.recipe import find_recipe
from alexnet.records import ClaimRecord, ResumeEvent, TrainEvent
from alexnet.runs.rundir import RunDir
from alexnet.support.files import read_json, write_atomic
from alexnet.support.terminal import duration, percent

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "results", ROOT / "README.md"
BEGIN, END = "<!-- results: made by scripts/results.py -->\n", "<!-- /results -->\n"
BIAS_ONE = ROOT / "docs" / "why-bias-one.md"
BIAS_MARKS = "<!-- bias-one: made by scripts/results.py -->\n", "<!-- /bias-one -->\n"
CLAIMS, CLAIMS_PAGE = ROOT / "docs" / "claims.md", ROOT / "docs" / "claims.html"
CLAIMS_MARKS = "<!-- claims: made by scripts/results.py -->\n", "<!-- /claims -->\n"
FREE_FIELDS = ("seed", "about", "precision")  # may differ between a record and its recipe
FIGURES = ("n", "loss", "top1", "top1_ci95", "top5", "top5_ci95", "views")


def record(path: Path, data_note: str, note: str) -> Path:
    """Test a run and write its record. Returns the path of the record."""
    run = RunDir.open(path)
    start, environment = run.start(), run.environment(required=True)
    events = run.events()
    last = [event for event in events if isinstance(event, TrainEvent)][-1]
    recipe = start.recipe
    views = recipe.get("views", 1)
    split = {name: alexnet.test(path, split=name, views=views) for name in ("test", "train")}
    out = RESULTS / f"{recipe['name']}-seed{recipe['seed']}.json"
    body: dict[str, Any] = {
        "recipe": recipe,
        "digest": start.digest,
        "command": command(list(environment.command)),
        "data": {k: getattr(start.data, k) for k in ("kind", "digest", "counts", "splits")},
        "data_note": data_note,
        "note": note,
        "epochs": last.epoch,
        "wall_s": last.wall_s,
        **{name: {k: getattr(result, k) for k in FIGURES} for name, result in split.items()},
        "checkpoint": Path(split["test"].checkpoint).name,
        "resumes": [event.step for event in events if isinstance(event, ResumeEvent)],
        "environment": environment.without("command"),
    }
    for word in ("--data", "--run"):  # paths of this machine
        if word in body["command"]:
            body["command"][body["command"].index(word) + 1] = word[2:].upper()
    write_atomic(out, json.dumps(body, indent=1) + "\n")
    return out


def command(words: list[str]) -> list[str]:
    """The command as a user types it: `python -m alexnet` becomes `alexnet`; scripts keep their
    names."""
    first = Path(words[0]).name
    return [first if first.endswith(".py") and first != "__main__.py" else "alexnet", *words[1:]]


def differences(recipe: dict[str, Any]) -> list[str]:
    """The fields in which a record's recipe differs from the current recipe of that name."""
    current = find_recipe(recipe["name"]).to_dict()
    return [
        f"{field} {recipe[field]} ({'none' if value is None else value} in the recipe)"
        for field, value in current.items()
        if field not in FREE_FIELDS and recipe.get(field, value) != value
    ]


def table() -> str:
    """The README's table, with a row for each record."""
    heads = ("recipe", "data", "test top-1 (95 %)", "n", "train", "epochs", "time", "hardware")
    rows, notes = [heads, ("---",) * len(heads)], []
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        recipe, test, machine = record["recipe"], record["test"], record["environment"]
        name = f"`{recipe['name']}`"
        sentences = [record["note"]] if record["note"] else []
        if changed := differences(recipe):
            sentences.append(f"Made with {', '.join(changed)}.")
        if sentences:
            notes.append(" ".join(sentences))
            name += f" [{len(notes)}]"
        low, high = map(percent, test["top1_ci95"])
        threads = machine["threads"]
        device = machine["gpu"] or f"{machine['cpu']}, {threads} thread{'s' * (threads > 1)}"
        rows.append(
            (
                name,
                record["data_note"],
                f"**{percent(test['top1'])}** ({low} to {high})"
                + f", {test['views']} views" * (test["views"] > 1),
                f"{test['n']:,}",
                percent(record["train"]["top1"]),
                f"{record['epochs']:.3g}",
                duration(record["wall_s"]),
                f"{device}, {recipe['precision']}",
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines + [f"\n[{i}] {text}" for i, text in enumerate(notes, 1)]) + "\n"


def bias_one() -> str:
    """The table of docs/why-bias-one.md, with a row for each condition."""
    claim = json.loads((RESULTS / "claims" / "bias-one" / "claim.json").read_text())
    heads = ("condition", "dead", "loss is ln K from step", "loss at the end")
    rows = [heads, ("---",) * len(heads)]
    for c in claim["figures"]["conditions"]:
        losses = ", ".join(f"{loss:.3f}" for loss in c["loss"])
        stuck = ", ".join(f"{step or '-'}" for step in c["ln_k_from"])
        rows.append((c["condition"], f"{c['dead']} of {c['n']}", stuck, losses))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    says = f"**{claim['verdict']}**: {claim['finding']}. ln K is {claim['figures']['ln_k']:.3f}."
    return "\n".join([says, "", *lines]) + "\n"


def claims() -> list[ClaimPart]:
    """All claims, each with its record and pictures where it was measured."""
    parts = []
    for row in listing(RESULTS / "claims"):
        folder = RESULTS / "claims" / row.name
        file = folder / "claim.json"
        record = ClaimRecord.from_json(read_json(file), str(file)) if file.exists() else None
        parts.append(ClaimPart(row, record, sorted(folder.glob("*.png")) if record else ()))
    return parts


def claims_table() -> str:
    """The table of docs/claims.md, and the finding of each claim."""
    rows = [CLAIM_HEADS, ("---",) * len(CLAIM_HEADS)]
    findings = []
    for claim in claims():
        name, *cells, command = claim_row(claim)
        links = "".join(
            f" [{path.stem}](../results/claims/{name}/{path.name})" for path in claim.pictures
        )
        rows.append((f"`{name}`{links}", *cells, f"`{command}`"))
        if claim.record:
            findings.append(f"- `{name}`: {claim.record.finding}.")
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", *findings, "", *published(), *hours()]) + "\n"


def published() -> list[str]:
    """Published errors of others, beside the claims that need ImageNet."""
    lines = []
    for claim in claims():
        if claim.row.published:
            rows = [PUBLISHED_HEADS, ("---",) * 3, *published_rows(claim.row)]
            lines += [f"Beside `{claim.row.name}`:", ""]
            lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def hours() -> list[str]:
    """Hours for training a network on ILSVRC-2012, on each machine with a record of its speed."""
    lines = []
    files = sorted((RESULTS / "bench").glob("train-alexnet-2012-*.json"))
    benches = {file.name: json.loads(file.read_text()) for file in files}
    for name, bench in benches.items():
        quiet = [row for row in bench["rows"] if "company" not in row]
        best = max(quiet, key=lambda row: row["images_per_s"])
        machine = bench["environment"]
        duration_h = training_hours(best["images_per_s"])
        lines.append(
            f"- {machine['gpu'] or machine['cpu']}, {machine['threads']} threads: "
            f"{best['images_per_s']} images/s ({best['name']}; "
            f"[record](../results/bench/{name})), so {duration_h:,.0f} hours a network"
        )
    if not any(bench["environment"]["gpu"] for bench in benches.values()):
        lines.append("- a GPU: not measured")
    return [
        f"Hours of {EPOCHS} epochs of ILSVRC-2012 by `alexnet-2012`, reading not counted; times "
        "the price of an hour they are the cost (the paper: five to six days on two GTX 580):",
        "",
        *lines,
    ]


def replace_between(page: Path, begin: str, end: str, text: str) -> str:
    """The content of a page with `text` in place of what is between two marks."""
    before, _, rest = page.read_text().partition(begin)
    return before + begin + "\n" + text + "\n" + end + rest.partition(end)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("record")
    sub.add_argument("run", type=Path)
    sub.add_argument("--data-note", default="")
    sub.add_argument("--note", default="")
    verbs.add_parser("table").add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.verb == "record":
        print(record(args.run, args.data_note, args.note))
    pages = {
        README: replace_between(README, BEGIN, END, table()),
        BIAS_ONE: replace_between(BIAS_ONE, *BIAS_MARKS, bias_one()),
        CLAIMS: replace_between(CLAIMS, *CLAIMS_MARKS, claims_table()),
        CLAIMS_PAGE: claims_page(claims()),
    }
    if args.verb == "table" and args.check:
        return int(
            any(not page.exists() or text != page.read_text() for page, text in pages.items())
        )
    for page, text in pages.items():
        write_atomic(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
