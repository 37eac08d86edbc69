"""Pictures of a run: layers, the surest mistakes, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    RED,
    fitting,
    new_figure,
    plain,
    write_figure,
)
from alexnet.figures.images import draw_captioned, draw_nothing, pair_caption

COUNTS_UP_TO, LABELS_UP_TO = 12, 60  # classes whose cells hold counts, whose ticks hold names


def draw_layers(layers: Sequence[dict[str, Any]], out: Path, title: str) -> None:
    """Draw what each layer does: how much the image matters, how large it is, which units are dead.

    `layers` are those of `doctor`: name, signal, rms, gradient and dead of each, in order.
    """
    names = [fitting(layer["name"], 24) for layer in layers]
    figure = new_figure(13, 1.8 + 0.22 * len(names), title)
    for axes, key, unit, color in zip(
        figure.subplots(1, 3, sharey=True),
        ("signal", "rms", "dead"),
        ("how much the image matters (1 - cosine)", "size of the outputs (rms)", "dead units (%)"),
        (BLUE, GREEN, RED),
        strict=True,
    ):
        values = np.array([layer[key] for layer in layers], np.float64)
        if key == "dead":
            axes.barh(range(len(names)), 100 * values, color=color)
            axes.set_xlim(0, 100)
        else:
            shown = np.where(values > 0, values, np.nan)
            axes.plot(shown, range(len(names)), "o-", color=color, ms=4, lw=1.2)
            axes.set_xscale("log")
        axes.set(xlabel=unit)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        plain(axes)
    figure.axes[0].invert_yaxis()
    write_figure(figure, out)


def draw_mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    probability: NDArray[np.floating],
    classes: Sequence[str],
    out: Path,
    title: str,
    limit: int = 24,
) -> None:
    """Draw the wrongly named images the model was surest of, the surest first."""
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    picked = wrong[np.argsort(-np.asarray(probability)[wrong], kind="stable")][:limit]
    if not len(picked):
        draw_nothing(f"no mistakes in {len(labels):,} images", out, title)
        return
    captions = [
        pair_caption(classes[labels[i]], classes[predicted[i]], float(probability[i]))
        for i in picked
    ]
    note = "true class → predicted class (its probability)"
    draw_captioned(images[picked], captions, out, title, note)


def draw_confusion(
    matrix: NDArray[np.integer], classes: Sequence[str], out: Path, title: str
) -> None:
    """Draw the confusion matrix (rows are the true classes) as a share of each row."""
    from matplotlib.colors import LogNorm

    size = len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The scale starts below the rarest mistake: one lone error still differs from none.
    floor = float(share[share > 0].min(initial=1.0)) / 3
    names = [fitting(name, 28) for name in classes] if size <= LABELS_UP_TO else []
    side = 4.2 + 0.15 * size if names else 8.6
    reach = 0.085 * max(map(len, names), default=0)
    figure = new_figure(side + reach + 1.4, side + reach, title)
    axes = figure.subplots()
    shown = axes.imshow(
        np.maximum(share, floor), cmap="cividis", norm=LogNorm(floor, 1), interpolation="nearest"
    )
    bar = figure.colorbar(shown, label="share of the true class", shrink=0.9, aspect=30)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    bar.ax.minorticks_off()
    note = "" if names else f" ({size:,} classes, in order)"
    axes.set(xlabel=f"predicted class{note}", ylabel=f"true class{note}")
    small = 9 if size <= 30 else 7
    turn = 0 if sum(map(len, names)) <= 40 else 90
    axes.set_xticks(range(len(names)), names, rotation=turn, fontsize=small)
    axes.set_yticks(range(len(names)), names, fontsize=small)
    if size <= COUNTS_UP_TO:
        middle = floor**0.5  # of the logarithmic scale from `floor` to 1
        for (row, column), count in np.ndenumerate(matrix):
            ink = "black" if share[row, column] > middle else "white"
            axes.text(column, row, f"{count:,}", color=ink, ha="center", va="center", fontsize=8)
    write_figure(figure, out)
