"""The table and the pictures of docs/doctor.md, made from the lines of the matrix."""

import json
from pathlib import Path


def summarize(out: Path) -> None:
    """Says what was right and what was not."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for when in ("before", "during", "recipe"):
        of = [row for row in rows if row["when"] == when]
        if of:
            print(f"{when}: right {sum(row['right'] for row in of)} of {len(of)}")
