"""Generates the tables of docs/speed.md from all records of speed, and the README's selection.

    python -m scripts.speed [--check]

Records are in results/bench and results/accuracy: the output of `alexnet bench ... --json` or of a
script in benchmarks/, a file for each machine. With --check nothing is written, and the exit status
is 1 where a page is out of date.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scripts.results import README, RESULTS, ROOT, replace_between

from alexnet.support.files import write_atomic

PAGE, RECORDS = ROOT / "docs" / "speed.md", RESULTS
BEGIN, END = "<!-- records: made by scripts/speed.py -->\n", "<!-- /records -->\n"

README_MARKS = "<!-- speed: made by scripts/speed.py -->\n", "<!-- /speed -->\n"

README_ROWS = (  # record, row, its batch size where there are several, description
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

EXPECTED_RECORDS = {  # of every kind of machine, by the beginning of their names
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
    """A value of a row, formatted for readers."""
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
    """A Markdown table with a column for each key of any row."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[HEADS.get(key, key.replace("_", " ")) for key in keys], ["---"] * len(keys)]
    lines += [[cell(key, row.get(key)) for key in keys] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def is_in_company(row: dict[str, Any]) -> bool:
    """Whether a row was measured beside busy processes."""
    return "company" in row and "of_quiet" in row


def company_table(rows: list[dict[str, Any]]) -> list[str]:
    """A table of rows in company, with a line for each implementation: for each priority of the
    busy processes the images/s, their fraction of the quiet rate, and the ratio to the reference
    under the same load."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        name = {key: row[key] for key in ("name", "batch") if key in row}
        line = lines.setdefault(tuple(name.values()), name)
        line[f"{row['company']} priority"] = float(row["images_per_s"])
        line[f"of quiet, {row['company']}"] = f"{100 * row['of_quiet']:.0f} %"
        line[f"ratio, {row['company']}"] = row["ratio"]
    return table(list(lines.values()))


def machine(environment: dict[str, Any]) -> str:
    """The machine and the software of a record, in a line."""
    device = environment.get("gpu") or f"{environment['cpu']}, {environment['threads']} thread(s)"
    commit = (environment.get("commit") or "no commit")[:10]
    changed = " with changes" if environment.get("dirty") else ""
    return f"{device}; torch {environment['packages']['torch']}; {commit}{changed}"


def command(words: list[str] | str) -> str:
    """The command of a record, without the folders of its paths."""
    words = words.split() if isinstance(words, str) else words
    names = [Path(word).name if "/" in word else word for word in words]
    return " ".join(["alexnet" if name == "__main__.py" else name for name in names])


def read_records(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The names and contents of all records."""
    paths = sorted(folder.glob("bench/*.json")) + sorted(folder.glob("accuracy/*.json"))
    return [(path.stem, json.loads(path.read_text())) for path in paths]


def record_tables(records: list[tuple[str, dict[str, Any]]]) -> str:
    """The tables of all records, and a list of what was not measured on a GPU."""
    lines: list[str] = []
    for name, record in records:
        lines += [f"### {name}", "", f"{machine(record['environment'])}.", ""]
        words = record.get("command") or record["environment"].get("command")
        if words:
            lines += [f"`{command(words)}`", ""]
        if model := record.get("model"):
            lines += [f"Network: `{model}`.", ""]
        if note := record.get("note") or record.get("data_note"):
            lines += [f"{note}.", ""]
        lines += [*table([row for row in record["rows"] if not is_in_company(row)]), ""]
        if in_company := [row for row in record["rows"] if is_in_company(row)]:
            lines += ["In company, beside one busy process on each core; images/s, medians:", ""]
            lines += [*company_table(in_company), ""]
        lines += [f"- Not measured: {line}." for line in record.get("missing", ())]
        lines += [""] if record.get("missing") else []
    lines += ["### On a GPU", ""]
    for start, what in EXPECTED_RECORDS.items():
        on_gpu = [n for n, r in records if n.startswith(start) and r["environment"].get("gpu")]
        lines.append(f"- {what}: {', '.join(on_gpu) if on_gpu else 'not measured'}.")
    return "\n".join(lines) + "\n"


def readme_table(records: dict[str, dict[str, Any]]) -> str:
    """The README's table: README_ROWS, each beside the reference, the first row of its record with
    the same batch size."""
    lines = ["| | images/s | beside | images/s | times | record |", "|---|---|---|---|---|---|"]
    for name, row_name, batch, what in README_ROWS:
        rows = [row for row in records.get(name, {}).get("rows", ()) if row.get("batch") == batch]
        row = next((row for row in rows if row["name"] == row_name), None)
        cells = ["not measured", "", "", "", ""]
        if row is not None:
            speeds = [cell("", r["images_per_s"]) for r in (row, rows[0])]
            device, _, commit = machine(records[name]["environment"]).split("; ")
            link = f"[{device}, {commit}](results/bench/{name}.json)"
            reference = rows[0]["name"].partition(":")[0]
            cells = [speeds[0], reference, speeds[1], f"{row['ratio']:.1f}", link]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    records = read_records(RECORDS)
    pages = {
        PAGE: replace_between(PAGE, BEGIN, END, record_tables(records)),
        README: replace_between(README, *README_MARKS, readme_table(dict(records))),
    }
    if args.check:
        return int(any(text != page.read_text() for page, text in pages.items()))
    for page, text in pages.items():
        write_atomic(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
