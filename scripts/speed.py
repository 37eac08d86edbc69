"""The tables of docs/speed.md, made from every record in results/bench and results/accuracy, and
the few rows of them that the README shows.

    python -m scripts.speed [--check]

A record is what `alexnet bench ... --json` or a script of benchmarks/ printed, one file a machine.
With --check nothing is written, and the exit status says whether the page is as it would be made.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scripts.results import README, RESULTS, ROOT, filled

from alexnet.files import write_atomic

PAGE, RECORDS = ROOT / "docs" / "speed.md", RESULTS
BEGIN, END = "<!-- records: made by scripts/speed.py -->\n", "<!-- /records -->\n"

README_MARKS = "<!-- speed: made by scripts/speed.py -->\n", "<!-- /speed -->\n"

SHOWN = (  # record, row, its batch where there are several, what it is
    ("input-xeon-2", "ours, jpeg, to float", None, "packed JPEGs of 256 pixels to floats"),
    ("input-xeon-2", "ours, raw, to float", None, "packed raw pixels to floats"),
    ("train-alexnet-2012-xeon-2", "ours, fp32", None, "training `alexnet-2012` in fp32"),
    ("train-alexnet-2012-xeon-2", "ours, bf16", None, "training `alexnet-2012` in bf16"),
    ("train-alexnet-2012-epyc-2", "ours, fp32", None, "training `alexnet-2012` in fp32"),
    ("train-alexnet-2012-epyc-2", "ours, bf16", None, "training `alexnet-2012` in bf16"),
    ("train-alexnet-2014-epyc-2", "ours, bf16", None, "training `alexnet-2014` in bf16"),
    ("infer-alexnet-2014-xeon-2", "ours, bf16", 1, "answers of `alexnet-2014`, one by one, bf16"),
    ("infer-alexnet-2014-xeon-2", "ours, bf16", 128, "answers of `alexnet-2014` by 128, bf16"),
    ("infer-alexnet-2014-epyc-2", "ours, bf16", 1, "answers of `alexnet-2014`, one by one, bf16"),
    ("infer-alexnet-2014-epyc-2", "ours, bf16", 128, "answers of `alexnet-2014` by 128, bf16"),
    ("infer-alexnet-2014-epyc-2", "ours, int8", 1, "answers of `alexnet-2014`, one by one, int8"),
    ("infer-alexnet-2014-epyc-2", "ours, int8", 128, "answers of `alexnet-2014` by 128, int8"),
    ("infer-alexnet-2012-epyc-2", "ours, int8", 128, "answers of `alexnet-2012` by 128, int8"),
)

WANTED = {  # what is to be measured on every kind of machine, by the beginning of its record's name
    "train-": "`alexnet bench train`: training steps",
    "infer-": "`alexnet bench infer`: answers for one image and for many",
    "input-": "`alexnet bench input`: from files to batches",
}
HEADS = {
    "images_per_s": "images/s",
    "extra_bytes": "memory, MiB",
    "ms": "ms",
    "ilsvrc_2012_hours": "hours for ILSVRC-2012",
}


def cell(key: str, value: Any) -> str:
    """A value of a row as people read it."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{k} {cell('', v)}" for k, v in value.items())
    if isinstance(value, list):
        return " to ".join(cell("", v) for v in value)
    if key == "extra_bytes":
        return f"{value / 2**20:,.0f}"
    if key in ("share", "top1") and isinstance(value, float):
        return f"{100 * value:.{1 if key == 'share' else 2}f} %"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Every row with every key that any of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[HEADS.get(key, key.replace("_", " ")) for key in keys], ["---"] * len(keys)]
    lines += [[cell(key, row.get(key)) for key in keys] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def is_in_company(row: dict[str, Any]) -> bool:
    """Whether `alexnet bench` measured it beside busy processes; a quiet row has no `company`."""
    return "company" in row and "of_quiet" in row


def company_table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows in company, a line for all companies of the same way: in each its images/s, their share
    of its quiet rate, and the ratio to the reference in the same company."""
    ways: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        name = {key: row[key] for key in ("name", "batch") if key in row}
        line = ways.setdefault(tuple(name.values()), name)
        line[f"{row['company']} priority"] = float(row["images_per_s"])
        line[f"of quiet, {row['company']}"] = f"{100 * row['of_quiet']:.0f} %"
        line[f"ratio, {row['company']}"] = row["ratio"]
    return table(list(ways.values()))


def machine(environment: dict[str, Any]) -> str:
    """One line on where and with what it was measured."""
    device = environment.get("gpu") or f"{environment['cpu']}, {environment['threads']} thread(s)"
    commit = (environment.get("commit") or "no commit")[:10]
    changed = " with changes" if environment.get("dirty") else ""
    return f"{device}; torch {environment['packages']['torch']}; {commit}{changed}"


def command(words: list[str] | str) -> str:
    """What was typed, without where things lay there."""
    words = words.split() if isinstance(words, str) else words
    said = [Path(word).name if "/" in word else word for word in words]
    return " ".join(["alexnet" if word == "__main__.py" else word for word in said])


def records(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    found = sorted(folder.glob("bench/*.json")) + sorted(folder.glob("accuracy/*.json"))
    return [(path.stem, json.loads(path.read_text())) for path in found]


def made(found: list[tuple[str, dict[str, Any]]]) -> str:
    """All tables, and what has not been measured."""
    lines: list[str] = []
    for name, r in found:
        lines += [f"### {name}", "", f"{machine(r['environment'])}.", ""]
        words = r.get("command") or r["environment"].get("command")
        if words:
            lines += [f"`{command(words)}`", ""]
        if model := r.get("model"):
            lines += [f"Network: `{model}`.", ""]
        if note := r.get("note") or r.get("data_note"):
            lines += [f"{note}.", ""]
        lines += [*table([row for row in r["rows"] if not is_in_company(row)]), ""]
        if beside := [row for row in r["rows"] if is_in_company(row)]:
            lines += ["In company, beside a busy process a core; images/s, medians:", ""]
            lines += [*company_table(beside), ""]
        lines += [f"- Not measured: {line}." for line in r.get("missing", ())]
        lines += [""] if r.get("missing") else []
    lines += ["### On a GPU", ""]
    for start, what in WANTED.items():
        own = [n for n, r in found if n.startswith(start) and r["environment"].get("gpu")]
        lines.append(f"- {what}: {', '.join(own) if own else 'not measured'}.")
    return "\n".join(lines) + "\n"


def shown(found: dict[str, dict[str, Any]]) -> str:
    """The README's table: each of SHOWN beside the first row of its record with the same batch."""
    lines = ["| | images/s | beside | images/s | times | record |", "|---|---|---|---|---|---|"]
    for name, row_name, batch, what in SHOWN:
        rows = [row for row in found.get(name, {}).get("rows", ()) if row.get("batch") == batch]
        row = next((row for row in rows if row["name"] == row_name), None)
        cells = ["not measured", "", "", "", ""]
        if row is not None:
            speeds = [cell("", r["images_per_s"]) for r in (row, rows[0])]
            device, _, commit = machine(found[name]["environment"]).split("; ")
            link = f"[{device}, {commit}](results/bench/{name}.json)"
            beside = rows[0]["name"].partition(":")[0]
            cells = [speeds[0], beside, speeds[1], f"{row['ratio']:.1f}", link]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found = records(RECORDS)
    pages = {
        PAGE: filled(PAGE, BEGIN, END, made(found)),
        README: filled(README, *README_MARKS, shown(dict(found))),
    }
    if args.check:
        return int(any(text != page.read_text() for page, text in pages.items()))
    for page, text in pages.items():
        write_atomic(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
