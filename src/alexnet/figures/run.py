"""Pictures of a run: layers, the surest mistakes, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    RED,
    fitting,
    new_figure,
    style_axes,
    write_figure,
)
from alexnet.figures.images import draw_captioned, draw_nothing, pair_caption
from alexnet.runs.records import LayerSignals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Classes whose cells hold counts, also those that are 0, and whose ticks hold names.
COUNTS_UP_TO, ZEROS_UP_TO, LABELS_UP_TO = 30, 12, 60


def draw_layers(layers: Sequence[LayerSignals], out: Path, title: str) -> "Figure":
    """Draw what each layer does: how much the image matters, how large it is, which units are dead.

    `layers` are those of `doctor`: name, signal, rms, gradient and dead of each, in order.
    """
    names = [fitting(layer.name, 24) for layer in layers]
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
            shown = np.where(values > 0, values, np.nan)
            axes.plot(shown, range(len(names)), "o-", color=color, ms=4, lw=1.2)
            axes.set_xscale("log")
        axes.set(xlabel=unit)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        style_axes(axes)
    figure.axes[0].invert_yaxis()
    return write_figure(figure, out)


def draw_mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probability: NDArray[np.floating],
    classes: Sequence[str],
    out: Path,
    title: str,
    limit: int = 24,
) -> "Figure":
    """Draw the wrongly named images the model was surest of, the surest first."""
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    picked = wrong[np.argsort(-np.asarray(probability)[wrong], kind="stable")][:limit]
    if not len(picked):
        return draw_nothing(f"no mistakes in {len(labels):,} images", out, title)
    captions = [
        pair_caption(classes[labels[i]], classes[predicted[i]], float(probability[i]))
        for i in picked
    ]
    note = "true class → predicted class (its probability)"
    return draw_captioned(images[picked], captions, out, title, note)


def draw_confusion(
    matrix: NDArray[np.integer], classes: Sequence[str], out: Path, title: str
) -> "Figure":
    """Draw the confusion matrix, rows the true classes: the colour of a cell is its share of its
    row, from 0 to 1 in even steps; its count stands in it where there is room."""
    size = len(classes)
    totals = matrix.sum(axis=1)
    share = matrix / np.maximum(totals[:, None], 1)
    names = [fitting(name, 28) for name in classes] if size <= LABELS_UP_TO else []
    side = 4.2 + (0.2 if size <= COUNTS_UP_TO else 0.15) * size if names else 8.6
    reach = 0.085 * max(map(len, names), default=0)
    figure = new_figure(side + reach + 1.8, side + reach, title)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    label = "share of the images of the true class (its row)"
    bar = figure.colorbar(shown, label=label, shrink=0.9, aspect=30)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    note = "" if names else f" ({size:,} classes, in order)"
    of = "true class (its images)" if names else "true class"
    axes.set(xlabel=f"predicted class{note}", ylabel=f"{of}{note}")
    small = 9 if size <= COUNTS_UP_TO else 7
    turn = 0 if sum(map(len, names)) <= 40 else 90
    rows = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=False)]
    axes.set_xticks(range(len(names)), names, rotation=turn, fontsize=small)
    axes.set_yticks(range(len(names)), rows, fontsize=small)
    if size <= COUNTS_UP_TO:
        letters = 8 if size <= ZEROS_UP_TO else 6
        for (row, column), count in np.ndenumerate(matrix):
            if not count and size > ZEROS_UP_TO:
                continue
            ink = "black" if share[row, column] > 0.5 else "white"
            text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
            axes.text(column, row, text, color=ink, ha="center", va="center", fontsize=letters)
    return write_figure(figure, out)
