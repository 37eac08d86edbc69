"""Pictures of images: predictions, mistakes, neighbours, evidence, augmented views."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    ORANGE,
    RED,
    fit_name,
    new_figure,
    show_image,
    write_figure,
)
from alexnet.support.terminal import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION_WIDTH = 24  # characters that fit above a small image
FULL_COLOUR = 0.995  # quantile of an evidence map that gets full colour

Images = NDArray[np.uint8]  # an image (H, W, C), or several (N, H, W, C)


def draw_captioned(
    images: Images, captions: Sequence[str], out: Path, title: str, note: str
) -> "Figure":
    """Draw images (N, H, W, C) with a caption above each, and a note below all."""
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") for caption in captions) + 1
    figure = new_figure(max(5, 2.1 * columns), rows * (1.75 + 0.16 * lines) + 0.9, title)
    figure.supxlabel(note, fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        show_image(axes, image)
        axes.set_title(caption, fontsize=9)
    return write_figure(figure, out)


def draw_message(message: str, out: Path, title: str) -> "Figure":
    """Draw a line of text in place of a picture that has nothing to show."""
    figure = new_figure(6, 2, title)
    figure.text(0.5, 0.4, message, ha="center", fontsize=13)
    return write_figure(figure, out)


def pair_caption(true: str, predicted: str, probability: float) -> str:
    """A caption "true → predicted (97 %)", on several lines if the names are long."""
    confidence = percent(probability, 0 if probability >= 0.01 else 1)
    prediction = f"{fit_name(predicted)} ({confidence})".replace(" %", "\N{NO-BREAK SPACE}%")
    caption = f"{fit_name(true)} → {prediction}"
    if len(caption) <= CAPTION_WIDTH:
        return caption
    return "\n".join(
        textwrap.wrap(f"{fit_name(true)} →", CAPTION_WIDTH)
        + textwrap.wrap(prediction, CAPTION_WIDTH)
    )


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
    """Draw up to `limit` wrongly classified images, those of highest probability first."""
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    shown = wrong[np.argsort(-np.asarray(probability)[wrong], kind="stable")][:limit]
    if not len(shown):
        return draw_message(f"no mistakes in {len(labels):,} images", out, title)
    captions = [
        pair_caption(classes[labels[i]], classes[predicted[i]], float(probability[i]))
        for i in shown
    ]
    note = "true class → predicted class (its probability)"
    return draw_captioned(images[shown], captions, out, title, note)


@dataclass(frozen=True)
class Prediction:
    """An image, its class or None if unknown, and the most likely classes with probabilities."""

    image: Images
    true: str | None
    top: Sequence[tuple[str, float]]


def draw_predictions(predictions: Sequence[Prediction], out: Path, title: str) -> "Figure":
    """Draw each image above bars for its most likely classes, as in figure 4 of the paper."""
    columns = min(4, len(predictions))
    rows = -(-len(predictions) // columns)
    bars = max(len(prediction.top) for prediction in predictions)
    figure = new_figure(max(2.6 * columns, 5), rows * (2.35 + 0.22 * bars) + 1.0, title)
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, height_ratios=[2.1, 0.22 * bars] * rows
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    for i, prediction in enumerate(predictions):
        row, column = divmod(i, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        show_image(above, prediction.image)
        above.set_title(
            "" if prediction.true is None else fit_name(prediction.true, 30),
            fontsize=10,
            fontweight="bold",
        )
        for y, (name, probability) in enumerate(prediction.top):
            color = ORANGE if name == prediction.true else BLUE
            below.barh(y, 1, color="#F2F2F2", height=0.86)
            below.barh(y, probability, color=color, alpha=0.5, height=0.86)
            weight = "bold" if name == prediction.true else "normal"
            below.text(0.015, y, fit_name(name, 22), va="center", fontsize=8, fontweight=weight)
            below.text(0.985, y, percent(probability, 1), va="center", ha="right", fontsize=8)
        below.set(xlim=(0, 1), ylim=(bars - 0.5, -0.5))
    has_classes = any(prediction.true is not None for prediction in predictions)
    note = "; orange and bold: the true class" if has_classes else ""
    figure.supxlabel("bars: probability" + note, fontsize=9)
    return write_figure(figure, out)


@dataclass(frozen=True)
class NeighbourImage:
    """A neighbour's image and class, and whether its query has the same class (None: unknown)."""

    image: Images
    name: str
    same: bool | None


def draw_neighbours(
    queries: Sequence[tuple[Images, str]],
    searches: Mapping[str, Sequence[Sequence[NeighbourImage]]],
    out: Path,
    title: str,
) -> "Figure":
    """Draw a row for each query (image, class): the image, then its neighbours by each search.

    `searches` have a name, and a row of neighbours for each query. Neighbours of another class have
    a dashed frame and their class as title. Source: paper, figure 4, right.
    """
    counts = [len(next(iter(rows), ())) for rows in searches.values()]
    widths = [1.0] + [w for n in counts for w in (0.18, *[1.0] * n)]
    figure = new_figure(1.22 * sum(widths) + 0.3, 1.36 * len(queries) + 1.3, title)
    grid = figure.subplots(len(queries), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (image, name) in zip(grid, queries, strict=True):
        show_image(line[0], image)
        line[0].set_title(fit_name(name, 14), fontsize=8, fontweight="bold")
    grid[0, 0].annotate(
        "query", (0.5, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points",
        ha="center", fontsize=10,
    )  # fmt: skip
    column = 1
    for (search, rows), count in zip(searches.items(), counts, strict=True):
        for line, row in zip(grid, rows, strict=True):
            for axes, neighbour in zip(line[column + 1 :], row, strict=False):
                show_image(axes, neighbour.image)
                axes.set_axis_on()
                axes.set(xticks=[], yticks=[])
                same = neighbour.same
                color = "#888888" if same is None else BLUE if same else RED
                for spine in axes.spines.values():
                    spine.set(color=color, lw=2.2, ls="--" if same is False else "-")
                if not same:
                    axes.set_title(fit_name(neighbour.name, 14), fontsize=8, color="black")
        grid[0, column + 1].annotate(
            search, (0, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points",
            fontsize=10,
        )  # fmt: skip
        column += count + 1
    neighbours = [one for rows in searches.values() for row in rows for one in row]
    has_classes = any(neighbour.same is not None for neighbour in neighbours)
    note = "blue frame: the same class; dashed red frame: another class, named above"
    figure.supxlabel(note if has_classes else "above each image: its class", fontsize=9)
    return write_figure(figure, out)


def draw_evidence(
    rows: Sequence[tuple[Images, str, Mapping[str, NDArray[np.floating]]]], out: Path, title: str
) -> "Figure":
    """Draw each image (with its caption) beside maps (H, W) of the evidence in it, by method.

    Each map has its own scale. One of 200 pixels exceeds the number of full colour, positive or
    negative: otherwise a few peaks of the gradient would leave the rest pale.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    methods = list(rows[0][2])
    figure = new_figure(2.6 * (1 + len(methods)) + 1.2, 2.75 * len(rows) + 1.0, title)
    grid = figure.subplots(len(rows), 1 + len(methods), squeeze=False)
    colours = colormaps["PuOr_r"]
    for line, (image, name, maps) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        show_image(line[0], image)
        line[0].set_title(name, fontsize=9)
        grey = image.mean(2, keepdims=True) / 255
        for axes, method in zip(line[1:], methods, strict=True):
            full_colour = max(float(np.quantile(np.abs(maps[method]), FULL_COLOUR)), 1e-12)
            values = np.clip(maps[method] / full_colour, -1, 1)
            opacity = np.abs(values)[..., None]
            overlay = colours(0.5 + values / 2)[..., :3]
            axes.imshow((1 - opacity) * (0.35 + 0.5 * grey) + opacity * overlay)
            axes.set_title(method, fontsize=9)
    scale = ScalarMappable(Normalize(-1, 1), colours)
    bar = figure.colorbar(
        scale, ax=grid, shrink=0.6, aspect=30, label="evidence, relative to the strongest"
    )
    bar.set_ticks([-1, 0, 1], labels=["against", "0", "for"])
    return write_figure(figure, out)


def draw_views(rows: Sequence[tuple[str, Images]], out: Path, title: str) -> "Figure":
    """Draw a row of views (M, H, W, C) for each name, such as the augmented views of an image."""
    columns = max(len(images) for _, images in rows)
    figure = new_figure(1.15 * columns + 1.9, 1.2 * len(rows) + 0.9, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, image in zip(line, images, strict=False):
            show_image(axes, image)
        line[0].text(
            -0.1, 0.5, textwrap.fill(name, 21), transform=line[0].transAxes, ha="right",
            va="center", fontsize=9,
        )  # fmt: skip
    return write_figure(figure, out)
