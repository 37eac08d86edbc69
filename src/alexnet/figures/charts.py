"""Charts of results: calibration, bars, class counts, similarity, confusion, layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    fit_name,
    new_figure,
    style_axes,
    use_whole_numbers,
    write_figure,
)
from alexnet.records import LayerSignals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Most classes for which there is room: for names, for counts in cells, and for counts of 0.
MAX_NAMED, MAX_COUNTED, MAX_ZEROS = 60, 30, 12
INCHES_PER_LETTER = 0.085  # of names beside an axis

# low and high confidence, images, mean confidence, accuracy, its 95 % interval
CalibrationRow = tuple[float, float, int, float, float, tuple[float, float]]


def draw_calibration(
    bins: Sequence[CalibrationRow], confidence: NDArray[np.floating], out: Path, title: str
) -> "Figure":
    """Draw accuracy against confidence by bin, and a histogram of each image's confidence (N,)."""
    figure = new_figure(6.6, 7, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot(
        (0, 100), (0, 100), color="#666666", lw=1, ls=":", label="confidence equals accuracy"
    )
    points = np.array([(100 * mean, 100 * accuracy) for *_, mean, accuracy, _ in bins])
    intervals = 100 * np.array([(right - ci[0], ci[1] - right) for *_, right, ci in bins]).T
    widths = 100 * np.array([(mean - low, high - mean) for low, high, _, mean, *_ in bins]).T
    above.errorbar(*points.T, xerr=np.maximum(widths, 0), fmt="none", ecolor=BLUE, lw=3, alpha=0.25,
                   label="range of the bin")  # fmt: skip
    above.errorbar(*points.T, np.maximum(intervals, 0), fmt="o", color=BLUE, ms=5, lw=1.2,
                   capsize=2, label=f"accuracy, 95 % interval ({_image_range(bins)} images a bin)",
    )  # fmt: skip
    above.set(ylabel="images right (%)", xlim=(0, 102), ylim=(0, 103))
    above.legend(frameon=False, fontsize=9, loc="upper left")
    below.hist(100 * confidence, bins=np.linspace(0, 100, 41), color=GREEN, lw=0)
    below.set(xlabel="confidence: probability of the predicted class (%)", ylabel="images")
    use_whole_numbers(below.yaxis)
    for axes in (above, below):
        style_axes(axes)
    return write_figure(figure, out)


def _image_range(bins: Sequence[CalibrationRow]) -> str:
    """Number of images in a bin, or the smallest and the largest."""
    least, most = min(n for _, _, n, *_ in bins), max(n for _, _, n, *_ in bins)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def draw_bars(
    rows: Sequence[tuple[str, float, tuple[float, float] | None]],
    out: Path,
    title: str,
    unit: str,
) -> "Figure":
    """Draw a bar for each (name, value, interval or None), the first at the top."""
    names = [fit_name(name, 44) for name, _, _ in rows]
    name_width = INCHES_PER_LETTER * max(map(len, names), default=0)
    figure = new_figure(5.5 + name_width, 0.34 * len(rows) + 1.6, title)
    axes = figure.subplots()
    values = np.array([value for _, value, _ in rows])
    intervals = [(v - ci[0], ci[1] - v) if ci else (np.nan, np.nan) for _, v, ci in rows]
    axes.barh(range(len(rows)), values, color=BLUE, alpha=0.55)
    axes.errorbar(values, range(len(rows)), xerr=np.array(intervals).T, fmt="none", color="black",
                  capsize=2, lw=1)  # fmt: skip
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel=unit, xlim=(0, None))
    if (values == values.round()).all():  # counts
        use_whole_numbers(axes.xaxis)
    style_axes(axes)
    return write_figure(figure, out)


def draw_counts(
    counts: Mapping[str, NDArray[np.integer]], classes: Sequence[str], out: Path, title: str
) -> "Figure":
    """Draw the number of images of each class, by split; many classes are sorted by size."""
    colours = (BLUE, ORANGE, GREEN)
    if len(classes) <= MAX_NAMED:
        names = [fit_name(name, 28) for name in classes]
        name_width = INCHES_PER_LETTER * max(map(len, names))
        figure = new_figure(3.2 * len(counts) + name_width + 0.6, 0.24 * len(classes) + 1.8, title)
        grid = figure.subplots(1, len(counts), squeeze=False, sharey=True).ravel()
        for axes, (split, n), color in zip(grid, counts.items(), colours, strict=False):
            axes.barh(range(len(n)), n, color=color, alpha=0.7)
            axes.set_title(f"{split}: {int(n.sum()):,}", fontsize=10)
            axes.set_xlabel("images")
            use_whole_numbers(axes.xaxis)
            style_axes(axes)
        grid[0].set_yticks(range(len(names)), names, fontsize=8)
        grid[0].invert_yaxis()
    else:
        figure = new_figure(8, 4.4, title)
        axes = figure.subplots()
        strokes = ("-", "--", ":")  # so that equal splits are visible on top of each other
        for (split, n), color, ls in zip(counts.items(), colours, strokes, strict=False):
            label = f"{split}: {int(n.sum()):,}"
            axes.plot(
                range(1, len(n) + 1), np.sort(n)[::-1], color=color, lw=1.8, ls=ls, label=label
            )
        axes.set(xlabel="class, the largest first", ylabel="images", ylim=(0, None))
        use_whole_numbers(axes.yaxis)
        axes.legend(frameon=False)
        style_axes(axes)
    return write_figure(figure, out)


def draw_similarity(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    out: Path,
    title: str,
    names: tuple[str, str],
) -> "Figure":
    """Draw the similarity (rows, columns), 0 to 1, of the parts of two networks called `names`."""
    figure = new_figure(0.62 * len(columns) + 3.2, 0.5 * len(rows) + 2.2, title)
    axes = figure.subplots()
    heat_map = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(heat_map, label="linear CKA", shrink=0.9, aspect=30)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.5 else "white"
        axes.text(column, row, f"{value:.2f}", color=colour, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(ylabel=fit_name(names[0], 40), xlabel=fit_name(names[1], 40))
    return write_figure(figure, out)


def draw_confusion(
    matrix: NDArray[np.integer], classes: Sequence[str], out: Path, title: str
) -> "Figure":
    """Draw the confusion matrix (K, K), whose rows are the true classes.

    A cell's colour is its share of the row, on a linear scale from 0 to 1. Its count is written
    into it where there is room.
    """
    size = len(classes)
    totals = matrix.sum(axis=1)
    share = matrix / np.maximum(totals[:, None], 1)
    names = [fit_name(name, 28) for name in classes] if size <= MAX_NAMED else []
    side = 4.2 + (0.2 if size <= MAX_COUNTED else 0.15) * size if names else 8.6
    name_width = INCHES_PER_LETTER * max(map(len, names), default=0)
    figure = new_figure(side + name_width + 1.8, side + name_width, title)
    axes = figure.subplots()
    heat_map = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    label = "share of the images of the true class (its row)"
    bar = figure.colorbar(heat_map, label=label, shrink=0.9, aspect=30)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    note = "" if names else f" ({size:,} classes, in order)"
    row_label = "true class (its images)" if names else "true class"
    axes.set(xlabel=f"predicted class{note}", ylabel=f"{row_label}{note}")
    name_size = 9 if size <= MAX_COUNTED else 7
    rotation = 0 if sum(map(len, names)) <= 40 else 90
    rows = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=False)]
    axes.set_xticks(range(len(names)), names, rotation=rotation, fontsize=name_size)
    axes.set_yticks(range(len(names)), rows, fontsize=name_size)
    if size <= MAX_COUNTED:
        count_size = 8 if size <= MAX_ZEROS else 6
        for (row, column), count in np.ndenumerate(matrix):
            if not count and size > MAX_ZEROS:
                continue
            colour = "black" if share[row, column] > 0.5 else "white"
            text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
            axes.text(
                column, row, text, color=colour, ha="center", va="center", fontsize=count_size
            )
    return write_figure(figure, out)


def draw_layers(layers: Sequence[LayerSignals], out: Path, title: str) -> "Figure":
    """Draw the doctor's measurements of each layer: signal of the image, rms, and dead units."""
    names = [fit_name(layer.name, 24) for layer in layers]
    figure = new_figure(13, 1.8 + 0.22 * len(names), title)
    for axes, key, unit, color in zip(
        figure.subplots(1, 3, sharey=True),
        ("signal", "rms", "dead"),
        ("how much the image matters (1 - cosine)", "size of the outputs (rms)", "dead units (%)"),
        (BLUE, GREEN, RED),
        strict=True,
    ):
        values = np.array([getattr(layer, key) for layer in layers], np.float64)
        if key == "dead":
            axes.barh(range(len(names)), 100 * values, color=color)
            axes.set_xlim(0, 100)
        else:
            positive = np.where(values > 0, values, np.nan)
            axes.plot(positive, range(len(names)), "o-", color=color, ms=4, lw=1.2)
            axes.set_xscale("log")
        axes.set(xlabel=unit)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        style_axes(axes)
    figure.axes[0].invert_yaxis()
    return write_figure(figure, out)
