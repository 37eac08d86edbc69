"""The tables of docs/speed.md, made from every record in results/bench and results/accuracy.

    python scripts/speed.py [--check]

A record is what `alexnet bench ... --json` or a script of benchmarks/ printed, one file a machine.
With --check nothing is written, and the exit status says whether the page is as it would be made.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alexnet.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORDS = ROOT / "docs" / "speed.md", ROOT / "results"
BEGIN, END = "<!-- records: made by scripts/speed.py -->\n", "<!-- /records -->\n"

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
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Every row with every key that any of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[HEADS.get(key, key.replace("_", " ")) for key in keys], ["---"] * len(keys)]
    lines += [[cell(key, row.get(key)) for key in keys] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


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
        if note := r.get("note") or r.get("data_note"):
            lines += [f"{note}.", ""]
        lines += [*table(r["rows"]), ""]
        lines += [f"- Not measured: {line}." for line in r.get("missing", ())]
        lines += [""] if r.get("missing") else []
    lines += ["### On a GPU", ""]
    for start, what in WANTED.items():
        own = [n for n, r in found if n.startswith(start) and r["environment"].get("gpu")]
        lines.append(f"- {what}: {', '.join(own) if own else 'not measured'}.")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    text = f"{before}{BEGIN}\n{made(records(RECORDS))}\n{END}{rest.partition(END)[2]}"
    if args.check:
        return int(text != PAGE.read_text())
    write_atomic(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
