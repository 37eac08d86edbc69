"""The picture of accuracy against minutes, from records of accuracy.py.

    python benchmarks/curves.py RECORD... --out docs/minutes.png

Lines are the held-out slice of train, with the smallest and the largest seed, and one line is all
that was trained on a data set with so many threads; a ring is the test split, read once. The other
axis is wrong answers, since what is won at the end is a share of those.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

from script import obeyed

from alexnet.errors import UsageError
from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    new_figure,
    style_axes,
    write_figure,
)
from alexnet.recipe import find_recipe
from alexnet.support.files import read_json

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)


def wrong(row: dict[str, Any]) -> tuple[float, float, float]:
    """Wrong answers in percent: of the worst seed, the mean and the best."""
    low, high = (float(text.removesuffix(" %")) for text in row["top1_range"])
    return 100 - low, 100 * (1 - row["top1"]), 100 - high


def data_of(recipe: str) -> str:
    return find_recipe(recipe).data or recipe


def draw(records: list[dict[str, Any]], out: Path) -> None:
    figure = new_figure(6.4, 4.2, "Wrong answers against minutes of training")
    axes = figure.subplots()
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in records:
        for row in record["rows"]:
            for count in row["threads"]:
                lines.setdefault((data_of(record["recipe"]), count), []).append(row)
    colours = dict(zip(dict.fromkeys(data for data, _ in lines), itertools.cycle(COLOURS)))
    for (data, count), rows in sorted(lines.items()):
        held = sorted((r for r in rows if r["split"] == "val"), key=lambda r: r["minutes"])
        minutes = [row["minutes"] for row in held]
        worst, mean, best = zip(*(wrong(row) for row in held), strict=True)
        style, colour = "--" if count == 1 else "-", colours[data]
        name = f"{data}, {count} thread{'s' * (count != 1)}"
        axes.plot(minutes, mean, color=colour, ls=style, marker=".", label=name)
        axes.vlines(minutes, best, worst, color=colour, lw=1)
        for row in rows:
            if row["split"] == "test":
                axes.plot(row["minutes"], wrong(row)[1], "o", color=colour, mfc="none", ms=9)
    axes.set(xscale="log", yscale="log", xlabel="minutes", ylabel="wrong, %")
    for axis, ticks in (
        (axes.xaxis, (1, 2, 5, 10, 20, 45, 80)),
        (axes.yaxis, (0.5, 1, 2, 5, 10, 20)),
    ):
        low, high = axis.get_view_interval()
        axis.set_ticks([t for t in ticks if low <= t <= high])
        axis.set_major_formatter("{x:g}")
        axis.set_ticks([], minor=True)
    axes.legend(frameon=False, fontsize=8, loc="center right")
    style_axes(axes)
    write_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    records = [read_json(path) for path in args.records]
    for path, record in zip(args.records, records, strict=True):
        if "recipe" not in record or "top1_range" not in (record.get("rows") or [{}])[0]:
            raise UsageError(f"{path} is no record of benchmarks/accuracy.py; name one that is")
    draw(records, args.out)


if __name__ == "__main__":
    obeyed(main)
