"""Pictures of figures: calibration, confused pairs, class counts, probes, likeness."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    fitting,
    new_figure,
    style_axes,
    whole_numbers,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 60  # classes that still have room for their names

Row = tuple[float, float, int, float, float, tuple[float, float]]


def draw_calibration(
    bins: Sequence[Row], said: NDArray[np.floating], out: Path, title: str
) -> "Figure":
    """Draw what was said against what was right, and how many images said it.

    `bins` are (low, high, images, said, right, 95 % interval of right), `said` the probability of
    each image (N,).
    """
    figure = new_figure(6.6, 7, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 100), (0, 100), color="#666666", lw=1, ls=":", label="said what was right")
    points = np.array([(100 * said, 100 * right) for *_, said, right, _ in bins])
    errors = 100 * np.array([(right - ci[0], ci[1] - right) for *_, right, ci in bins]).T
    reach = 100 * np.array([(said - low, high - said) for low, high, _, said, *_ in bins]).T
    above.errorbar(*points.T, xerr=np.maximum(reach, 0), fmt="none", ecolor=BLUE, lw=3, alpha=0.25,
                   label="what the bin reaches over")  # fmt: skip
    above.errorbar(*points.T, np.maximum(errors, 0), fmt="o", color=BLUE, ms=5, lw=1.2, capsize=2,
                   label=f"right, 95 % interval ({_images(bins)} a bin)")  # fmt: skip
    above.set(ylabel="images right (%)", xlim=(0, 102), ylim=(0, 103))
    above.legend(frameon=False, fontsize=9, loc="upper left")
    below.hist(100 * said, bins=np.linspace(0, 100, 41), color=GREEN, lw=0)
    below.set(xlabel="probability that was said (%)", ylabel="images")
    whole_numbers(below.yaxis)
    for axes in (above, below):
        style_axes(axes)
    return write_figure(figure, out)


def _images(bins: Sequence[Row]) -> str:
    """How many images bins have."""
    least, most = min(n for _, _, n, *_ in bins), max(n for _, _, n, *_ in bins)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def draw_bars(
    rows: Sequence[tuple[str, float, tuple[float, float] | None]],
    out: Path,
    title: str,
    unit: str,
) -> "Figure":
    """Draw a bar for each (name, value, interval or None), the first on top."""
    names = [fitting(name, 44) for name, _, _ in rows]
    reach = 0.085 * max(map(len, names), default=0)
    figure = new_figure(5.5 + reach, 0.34 * len(rows) + 1.6, title)
    axes = figure.subplots()
    values = np.array([value for _, value, _ in rows])
    sure = [(v - ci[0], ci[1] - v) if ci else (np.nan, np.nan) for _, v, ci in rows]
    axes.barh(range(len(rows)), values, color=BLUE, alpha=0.55)
    axes.errorbar(values, range(len(rows)), xerr=np.array(sure).T, fmt="none", color="black",
                  capsize=2, lw=1)  # fmt: skip
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel=unit, xlim=(0, None))
    if (values == values.round()).all():  # counts
        whole_numbers(axes.xaxis)
    style_axes(axes)
    return write_figure(figure, out)


def draw_counts(
    counts: Mapping[str, NDArray[np.integer]], classes: Sequence[str], out: Path, title: str
) -> "Figure":
    """Draw how many images each class has in each split; of many classes in order of size."""
    colours = (BLUE, ORANGE, GREEN)
    if len(classes) <= NAMED:
        names = [fitting(name, 28) for name in classes]
        reach = 0.085 * max(map(len, names))
        figure = new_figure(3.2 * len(counts) + reach + 0.6, 0.24 * len(classes) + 1.8, title)
        grid = figure.subplots(1, len(counts), squeeze=False, sharey=True).ravel()
        for axes, (split, n), color in zip(grid, counts.items(), colours, strict=False):
            axes.barh(range(len(n)), n, color=color, alpha=0.7)
            axes.set_title(f"{split}: {int(n.sum()):,}", fontsize=10)
            axes.set_xlabel("images")
            whole_numbers(axes.xaxis)
            style_axes(axes)
        grid[0].set_yticks(range(len(names)), names, fontsize=8)
        grid[0].invert_yaxis()
    else:
        figure = new_figure(8, 4.4, title)
        axes = figure.subplots()
        strokes = ("-", "--", ":")  # equal splits lie over each other
        for (split, n), color, ls in zip(counts.items(), colours, strokes, strict=False):
            label = f"{split}: {int(n.sum()):,}"
            places = range(1, len(n) + 1)
            axes.plot(places, np.sort(n)[::-1], color=color, lw=1.8, ls=ls, label=label)
        axes.set(xlabel="class, the largest first", ylabel="images", ylim=(0, None))
        whole_numbers(axes.yaxis)
        axes.legend(frameon=False)
        style_axes(axes)
    return write_figure(figure, out)


def draw_alike(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    out: Path,
    title: str,
    names: tuple[str, str],
) -> "Figure":
    """Draw how alike each part of one network is to each of another: (rows, columns), 0 to 1."""
    figure = new_figure(0.62 * len(columns) + 3.2, 0.5 * len(rows) + 2.2, title)
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(drawn, label="linear CKA", shrink=0.9, aspect=30)
    for (row, column), value in np.ndenumerate(values):
        ink = "black" if value > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", color=ink, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(ylabel=fitting(names[0], 40), xlabel=fitting(names[1], 40))
    return write_figure(figure, out)
