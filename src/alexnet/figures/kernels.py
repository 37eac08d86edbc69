"""Pictures of kernels, of feature maps, and of the images that excite a channel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    ORANGE,
    fit_name,
    new_figure,
    show_image,
    style_axes,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Box = tuple[int, int, int, int]  # pixels: top, left, bottom, right


def draw_filters(
    towers: Sequence[tuple[str, NDArray[np.floating]]], out: Path, title: str, note: str
) -> "Figure":
    """Draw the kernels (M, k, k) or (M, k, k, 3) of each tower, with its name.

    Each kernel has its own scale: grey is 0, white or full colour its largest weight.
    """
    count = max(len(kernels) for _, kernels in towers)
    columns = 16 if count >= 48 else math.ceil(math.sqrt(2 * count))
    rows = [math.ceil(len(kernels) / columns) for _, kernels in towers]
    width = max(0.62 * columns, 6)
    figure = new_figure(width, width / columns * sum(rows) + 0.3 * len(rows) + 1.1, title)
    grid = figure.subplots(len(towers), 1, squeeze=False, height_ratios=rows).ravel()
    for axes, (name, kernels) in zip(grid, towers, strict=True):
        peaks = np.abs(kernels).reshape(len(kernels), -1).max(1)
        scale = np.maximum(peaks, 1e-12).reshape(-1, *[1] * (kernels.ndim - 1))
        tiles = _tile(0.5 + kernels / (2 * scale), columns, 1.0)
        axes.imshow(tiles, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, fontsize=10, loc="left")
    figure.supxlabel(note, fontsize=9)
    return write_figure(figure, out)


def draw_maps(
    image: NDArray[np.uint8],
    maps: NDArray[np.floating],
    channels: Sequence[int],
    total: int,
    out: Path,
    title: str,
) -> "Figure":
    """Draw an image beside the maps (M, h, w) of some of a part's `total` channels, on one scale.

    The outputs (M,) of a part without maps are drawn as bars.
    """
    figure = new_figure(12, 6.4, title)
    if maps.ndim == 1:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        right.barh(range(len(maps)), maps, color=BLUE)
        right.set_yticks(range(len(maps)), [str(c) for c in channels], fontsize=7)
        right.invert_yaxis()
        right.set(xlabel="activation", ylabel=f"unit (of {total:,})")
        style_axes(right)
    else:
        columns = math.ceil(math.sqrt(len(maps)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        high = max(float(maps.max()), 1e-12)
        low = min(float(maps.min()), 0.0)
        edge = max(maps.shape[1] // 14, 1)
        tiles = _tile(np.asarray(maps, np.float64), columns, np.nan, edge)
        heat_map = right.imshow(tiles, cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        tile_side = maps.shape[1] + edge
        for i, channel in enumerate(channels):
            row, column = divmod(i, columns)
            right.text(
                *((place + 0.02) * tile_side + edge for place in (column, row)), str(channel),
                color="white", fontsize=7, va="top",
                bbox={"facecolor": "black", "alpha": 0.55, "pad": 1, "lw": 0},
            )  # fmt: skip
        right.set_axis_off()
        right.set_title(f"channels of {total:,}, the highest peak first", fontsize=10)
        figure.colorbar(heat_map, ax=right, label="activation", shrink=0.8, aspect=30)
    show_image(left, image)
    left.set_title("input of the network", fontsize=10)
    return write_figure(figure, out)


@dataclass(frozen=True)
class BoxedImage:
    """An image with the receptive field of one output as a box, and the `value` of that output."""

    image: NDArray[np.uint8]
    box: Box
    value: float
    caption: str


def draw_boxed_images(
    rows: Sequence[tuple[str, Sequence[BoxedImage]]], out: Path, title: str
) -> "Figure":
    """Draw a row of images for each channel, with the receptive field of the channel in a box."""
    from matplotlib.patches import Rectangle

    columns = max(len(images) for _, images in rows)
    figure = new_figure(1.45 * columns + 0.8, 1.8 * len(rows) + 1.0, title)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (name, images) in zip(grid, rows, strict=True):
        for axes, boxed in zip(line, images, strict=False):
            show_image(axes, boxed.image)
            top, left, bottom, right = boxed.box
            shape: dict[str, Any] = {"width": right - left, "height": bottom - top, "fill": False}
            for color, width in (("black", 3.0), (ORANGE, 1.6)):
                axes.add_patch(Rectangle((left - 0.5, top - 0.5), **shape, ec=color, lw=width))
            axes.set_title(f"{fit_name(boxed.caption, 16)}\n{boxed.value:.3g}", fontsize=7)
        line[0].text(
            -0.12, 0.5, name, transform=line[0].transAxes, rotation=90, ha="right", va="center",
            fontsize=9,
        )  # fmt: skip
    figure.supxlabel("box: receptive field of the unit; above: class, activation", fontsize=9)
    return write_figure(figure, out)


def _tile(tiles: NDArray[np.floating], columns: int, fill: float, edge: int = 1) -> Any:
    """One picture of tiles (M, h, w, ...), `columns` a row, with `edge` pixels of `fill` around."""
    count, height, width, *rest = tiles.shape
    rows = math.ceil(count / columns)
    shape = (rows * (height + edge) + edge, columns * (width + edge) + edge, *rest)
    picture = np.full(shape, fill, np.float64)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        top, left = row * (height + edge) + edge, column * (width + edge) + edge
        picture[top : top + height, left : left + width] = tile
    return picture
