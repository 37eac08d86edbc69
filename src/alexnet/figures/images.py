"""Pictures made of images: predictions, neighbours, evidence, what training shows."""

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
    fitting,
    new_figure,
    show,
    write_figure,
)
from alexnet.terminal import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = 24  # characters that fit above a small picture

Images = NDArray[np.uint8]


def draw_captioned(
    images: Images, captions: Sequence[str], out: Path, title: str, note: str
) -> "Figure":
    """Draw images with a caption above each, and one line below all."""
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    lines = max(caption.count("\n") for caption in captions) + 1
    figure = new_figure(max(5, 2.1 * columns), rows * (1.75 + 0.16 * lines) + 0.9, title)
    figure.supxlabel(note, fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        show(axes, image)
        axes.set_title(caption, fontsize=9)
    return write_figure(figure, out)


def draw_nothing(message: str, out: Path, title: str) -> "Figure":
    """Draw a line of words where there is nothing to show."""
    figure = new_figure(6, 2, title)
    figure.text(0.5, 0.4, message, ha="center", fontsize=13)
    return write_figure(figure, out)


def pair_caption(true: str, said: str, probability: float) -> str:
    """Return "true → said (97 %)", on several lines if the names are long."""
    share = percent(probability, 0 if probability >= 0.01 else 1)
    likely = f"{fitting(said)} ({share})".replace(" %", "\N{NO-BREAK SPACE}%")
    caption = f"{fitting(true)} → {likely}"
    if len(caption) <= CAPTION:
        return caption
    return "\n".join(textwrap.wrap(f"{fitting(true)} →", CAPTION) + textwrap.wrap(likely, CAPTION))


@dataclass(frozen=True)
class Prediction:
    """An image, its class where it is known, and the likeliest classes with their probability."""

    image: Images
    true: str | None
    top: Sequence[tuple[str, float]]


def draw_predictions(found: Sequence[Prediction], out: Path, title: str) -> "Figure":
    """Draw each image above its likeliest classes as bars, as the paper's figure 4 has it."""
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    bars = max(len(one.top) for one in found)
    figure = new_figure(max(2.6 * columns, 5), rows * (2.35 + 0.22 * bars) + 1.0, title)
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, height_ratios=[2.1, 0.22 * bars] * rows
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    for i, one in enumerate(found):
        row, column = divmod(i, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        show(above, one.image)
        above.set_title(
            "" if one.true is None else fitting(one.true, 30), fontsize=10, fontweight="bold"
        )
        for y, (name, probability) in enumerate(one.top):
            color = ORANGE if name == one.true else BLUE
            below.barh(y, 1, color="#F2F2F2", height=0.86)
            below.barh(y, probability, color=color, alpha=0.5, height=0.86)
            weight = "bold" if name == one.true else "normal"
            below.text(0.015, y, fitting(name, 22), va="center", fontsize=8, fontweight=weight)
            below.text(0.985, y, percent(probability, 1), va="center", ha="right", fontsize=8)
        below.set(xlim=(0, 1), ylim=(bars - 0.5, -0.5))
    known = any(one.true is not None for one in found)
    figure.supxlabel(
        "bars: probability" + ("; orange and bold: the true class" if known else ""), fontsize=9
    )
    return write_figure(figure, out)


@dataclass(frozen=True)
class Found:
    """An image among the neighbours, its class, and whether that is the asked image's (None where
    nobody knows)."""

    image: Images
    name: str
    same: bool | None


def draw_neighbours(
    asked: Sequence[tuple[Images, str]],
    ways: Mapping[str, Sequence[Sequence[Found]]],
    out: Path,
    title: str,
) -> "Figure":
    """Draw a row for each image asked about: itself, then its nearest images by each way.

    Source: paper, figure 4, right. Neighbours of another class have a broken frame and a name.
    """
    counts = [len(next(iter(rows), ())) for rows in ways.values()]
    widths = [1.0] + [w for n in counts for w in (0.18, *[1.0] * n)]
    figure = new_figure(1.22 * sum(widths) + 0.3, 1.36 * len(asked) + 1.3, title)
    grid = figure.subplots(len(asked), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (image, name) in zip(grid, asked, strict=True):
        show(line[0], image)
        line[0].set_title(fitting(name, 14), fontsize=8, fontweight="bold")
    grid[0, 0].annotate(
        "asked", (0.5, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points",
        ha="center", fontsize=10,
    )  # fmt: skip
    place = 1
    for (way, rows), count in zip(ways.items(), counts, strict=True):
        for line, row in zip(grid, rows, strict=True):
            for axes, one in zip(line[place + 1 :], row, strict=False):
                show(axes, one.image)
                axes.set_axis_on()
                axes.set(xticks=[], yticks=[])
                color = "#888888" if one.same is None else BLUE if one.same else RED
                for spine in axes.spines.values():
                    spine.set(color=color, lw=2.2, ls="--" if one.same is False else "-")
                if not one.same:
                    axes.set_title(fitting(one.name, 14), fontsize=8, color="black")
        grid[0, place + 1].annotate(
            way, (0, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points",
            fontsize=10,
        )  # fmt: skip
        place += count + 1
    known = any(one.same is not None for rows in ways.values() for row in rows for one in row)
    note = "blue frame: the same class; broken red frame: another, named above"
    figure.supxlabel(note if known else "above each: its class", fontsize=9)
    return write_figure(figure, out)


def draw_evidence(
    rows: Sequence[tuple[Images, str, Mapping[str, NDArray[np.floating]]]], out: Path, title: str
) -> "Figure":
    """Draw each image beside maps (H, W) of where its evidence is, by method.

    Each map has its own scale: full colour is the number that one in 200 of its pixels exceeds,
    either way, for a few peaks of gradients would leave all else pale.
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
        show(line[0], image)
        line[0].set_title(name, fontsize=9)
        grey = image.mean(2, keepdims=True) / 255
        for axes, method in zip(line[1:], methods, strict=True):
            full = max(float(np.quantile(np.abs(maps[method]), 0.995)), 1e-12)
            values = np.clip(maps[method] / full, -1, 1)
            strength = np.abs(values)[..., None]
            ink = colours(0.5 + values / 2)[..., :3]
            axes.imshow((1 - strength) * (0.35 + 0.5 * grey) + strength * ink)
            axes.set_title(method, fontsize=9)
    scale = ScalarMappable(Normalize(-1, 1), colours)
    bar = figure.colorbar(scale, ax=grid, shrink=0.6, aspect=30, label="evidence, of the strongest")
    bar.set_ticks([-1, 0, 1], labels=["against", "0", "for"])
    return write_figure(figure, out)


def draw_views(rows: Sequence[tuple[str, Images]], out: Path, title: str) -> "Figure":
    """Draw a row of views (M, H, W, C) for each name: what training shows of the same images."""
    columns = max(len(images) for _, images in rows)
    figure = new_figure(1.15 * columns + 1.9, 1.2 * len(rows) + 0.9, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, image in zip(line, images, strict=False):
            show(axes, image)
        line[0].text(
            -0.1, 0.5, textwrap.fill(name, 21), transform=line[0].transAxes, ha="right",
            va="center", fontsize=9,
        )  # fmt: skip
    return write_figure(figure, out)
