"""Runs faults with their full counts, one after the other; see the package."""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "results" / "faults.jsonl"
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- faults: made by `make faults` -->\n", "<!-- /faults -->\n"


def main() -> int:
    from faults.library import FAULTS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--count", type=int, help="instead of the full one")
    parser.add_argument("--few", action="store_true", help="the counts of the ordinary tests")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--record", action="store_true", help="keep it, whatever the count")
    parser.add_argument("--page", action="store_true", help="only makes the page from the record")
    args = parser.parse_args()
    if unknown := set(args.names) - set(FAULTS):
        parser.error(f"no fault {min(unknown)!r}; there are {', '.join(FAULTS)}")
    lost = 0
    for name in [] if args.page else args.names or FAULTS:
        fault = FAULTS[name]
        full = not (args.count or args.few)
        count = args.count or (fault.few if args.few else fault.full)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = fault.run(count, args.seed, Path(folder))
        row = {
            "fault": name, "seed": args.seed, "tried": tally.tried, "outcomes": tally.outcomes,
            "losses": tally.losses[:20], "lost": len(tally.losses),
            "seconds": round(time.monotonic() - began),
        }  # fmt: skip
        lost += len(tally.losses)
        print(json.dumps(row), flush=True)
        if full or args.record:
            _record(row)
    if args.record or not (args.count or args.few):
        _write_page(FAULTS)
    return int(lost > 0)


def _record(row: dict[str, object]) -> None:
    """The newest line of each fault is kept."""
    rows = {old["fault"]: old for old in _rows()} | {row["fault"]: row}
    ROWS.write_text("".join(json.dumps(r) + "\n" for r in rows.values()))


def _rows() -> list[dict[str, object]]:
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def _write_page(faults: dict[str, object]) -> None:
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(head + BEGIN + table(faults) + END + tail)


def table(faults: dict[str, object]) -> str:
    """The table of docs/faults.md, of the newest record of each fault."""
    rows = {row["fault"]: row for row in _rows()}
    lines = ["| fault | promise | tried | came of it | lost |", "|---|---|---|---|---|"]
    for name, fault in faults.items():
        row = rows.get(name)
        cells = ["not run", "", ""]
        if row is not None:
            counted = row["outcomes"].items()  # type: ignore[attr-defined]
            came = "; ".join(f"{n:,} {what}" if n > 1 else what for what, n in counted if n > 0)
            cells = [f"{row['tried']:,}", came, f"{row['lost']:,}"]
        lines.append(f"| {fault.what} | {fault.promise} | {' | '.join(cells)} |")  # type: ignore[attr-defined]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
