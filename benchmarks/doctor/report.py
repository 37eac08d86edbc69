"""The tables and the picture of docs/doctor.md, made from the lines of the matrix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet import figures
from alexnet.diagnosis import rules
from alexnet.diagnosis.findings import LARGE_INPUTS, MAX_LOGIT_GAIN, SMALL_INPUTS
from alexnet.metrics import wilson
from alexnet.support.files import write_atomic
from alexnet.support.terminal import percent

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- matrix: made by `python -m benchmarks.doctor report` -->\n", "<!-- /matrix -->\n"

Row = dict[str, Any]

# Quantity, what it is, thresholds, whether its axis is logarithmic, the faults that it should show.
QUANTITIES = (
    (
        "gain",
        "deviation of the logits, inputs at 1",
        (MAX_LOGIT_GAIN,),
        True,
        ("weights N(0, 1)", "weights N(0, 0.1)"),
    ),
    (
        "loss",
        "first loss / ln K",
        (rules.MAX_FIRST_LOSS,),
        True,
        ("weights N(0, 1)", "weights N(0, 0.1)"),
    ),
    (
        "arrives",
        "1 - cosine at the last layer",
        (rules.StarvedSignal.threshold,),
        True,
        ("std 0.01 and bias 1",),
    ),
    ("dead", "largest share of dead units", (rules.DeadUnits.threshold,), False, ("bias -5",)),
    (
        "follows",
        "least change of an output with its input",
        (rules.SquashingLayer.min_follows,),
        False,
        ("response norm 1e5 times too strong",),
    ),
    (
        "update",
        "update / weight",
        (rules.RateTooHigh.threshold,),
        True,
        ("Adam at 10x", "momentum at 100x"),
    ),
    (
        "order",
        "entropy of a batch / shuffled",
        (rules.ClassOrder.threshold,),
        False,
        ("class order", "class order, badly shuffled"),
    ),
    ("std", "deviation of the inputs", (SMALL_INPUTS, LARGE_INPUTS), True, ("inputs 0 to 255",)),
    (
        "apart",
        "means of the splits, in deviations",
        (rules.SplitsDiffer.threshold,),
        True,
        ("validation 0 to 255",),
    ),
    (
        "shared",
        "share of validation that is training",
        (rules.SharedImages.threshold, rules.ValidationIsTraining.shared),
        True,
        ("training as validation", "copies in validation"),
    ),
    (
        "random",
        "two evaluations apart",
        (rules.StochasticEvaluation.threshold,),
        True,
        ("dropout at evaluation",),
    ),
    (
        "batchwise",
        "an image beside others",
        (rules.BatchInEvaluation.threshold,),
        True,
        ("batch norm at evaluation",),
    ),
)


def summarize(rows: list[Row]) -> None:
    """Says what was right and what was not."""
    for when in ("before", "during", "recipe"):
        of = [row for row in rows if row["when"] == when]
        if of:
            print(f"{when}: right {_share(of)}")
    for row in rows:
        if not row["right"]:
            named = ", ".join(row["named"]) or "nothing"
            print(f"  {row['model']}, seed {row['seed']}, {row['fault']}: named {named}")


def read(file: Path) -> list[Row]:
    """The lines of a file; of a case that was measured again the last one."""
    lines = file.read_text().splitlines() if file.exists() else []
    keys = ("when", "data", "model", "fault", "seed")
    return list({tuple(row[k] for k in keys): row for row in map(json.loads, lines)}.values())


def write_docs(rows: list[Row]) -> None:
    """Puts tables and picture into docs/doctor.md."""
    page = DOCS / "doctor.md"
    head, _, rest = page.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    text = "\n".join([*_matrix(rows), "", *_during(rows), "", *_recipes(rows), ""])
    write_atomic(page, head + BEGIN + text + END + tail)
    _draw(rows, DOCS / "doctor-thresholds.png")


def _matrix(rows: list[Row]) -> list[str]:
    of = [row for row in rows if row["when"] == "before"]
    faulty = [row for row in of if row["fault"] != "healthy"]
    lines = [f"Right cause first: {_share(faulty)}; unbroken networks left alone: "
             f"{_share([row for row in of if row['fault'] == 'healthy'])}.", ""]  # fmt: skip
    return lines + _table(of, lambda row: f"{row['model']}, {row['data']}")


def _during(rows: list[Row]) -> list[str]:
    of = [row for row in rows if row["when"] == "during"]
    return [f"While training: {_share(of)}.", "", *_table(of, lambda row: row["model"])]


def _table(rows: list[Row], column: Callable[[Row], str]) -> list[str]:
    """A row a fault, a column a network: how many of its seeds were right, else what was named."""
    heads = list(dict.fromkeys(column(row) for row in rows))
    lines = ["| fault | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for fault in dict.fromkeys(row["fault"] for row in rows):
        cells = []
        for head in heads:
            of = [row for row in rows if row["fault"] == fault and column(row) == head]
            wrong = sorted({(row["named"] or ["nothing"])[0] for row in of if not row["right"]})
            count = f"{sum(row['right'] for row in of)} of {len(of)}" if of else "-"
            cells.append(count + (f" ({', '.join(wrong)})" if wrong else ""))
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return lines


def _recipes(rows: list[Row]) -> list[str]:
    healthy = [row for row in rows if row["fault"] == "healthy" and row["when"] != "during"]
    fatal = [row for row in healthy if row["severity"] == "will not learn"]
    of = [row for row in rows if row["when"] == "recipe"]
    lines = [f"Unbroken networks called \"will not learn\": {len(fatal)} of {len(healthy)}.", "",
             "| recipe | network | looks | found |", "|---|---|---|---|"]  # fmt: skip
    for name in dict.fromkeys(row["data"] for row in of):
        looks = [row for row in of if row["data"] == name]
        named = sorted({n for row in looks if row["severity"] != "note" for n in row["named"]})
        seen = ", ".join(named) or "nothing"
        lines.append(f"| {name} | {looks[0]['model']} | {len(looks)} | {seen} |")
    return lines


def _share(rows: list[Row]) -> str:
    right = sum(row["right"] for row in rows)
    low, high = wilson(right, len(rows))
    share = percent(right / max(len(rows), 1), 1)
    return f"{right} of {len(rows)}, {share} ({percent(low, 1)} to {percent(high, 1)})"


def _draw(rows: list[Row], out: Path) -> None:
    panels = []
    for key, title, thresholds, logarithmic, faults in QUANTITIES:
        known = [row for row in rows if key in row.get("measured", {})]
        groups = {
            "unbroken": [r["measured"][key] for r in known if r["fault"] == "healthy"],
            "with this fault": [r["measured"][key] for r in known if r["fault"] in faults],
        }
        panels.append(figures.Panel(title, groups, thresholds, logarithmic))
    figures.draw_distributions(panels, out, "What the doctor measures, and where it draws the line")
