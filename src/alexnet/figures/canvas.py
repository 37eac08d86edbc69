"""Shared by all pictures: the canvas, its colours, shortened names, and writing the file.

Only matplotlib's object interface is used, so that drawing changes no global state. Pictures are
white, with the colours of Okabe and Ito, and cividis: colour-blind people can read both.
"""

import textwrap
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import UsageError
from alexnet.support.files import write_atomic
from alexnet.support.terminal import shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
GRID = "#E4E4E4"
DPI = 150
MAX_TITLE = 300  # characters


def new_figure(width: float, height: float, title: str) -> "Figure":
    """An empty figure of this size in inches, with a title that is wrapped to its width."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    heading = textwrap.fill(fit_name(title, MAX_TITLE), width=int(8 * width))
    figure.suptitle(heading, fontsize=13, fontweight="bold")
    return figure


def write_figure(figure: "Figure", out: Path) -> "Figure":
    """Write the figure to a PNG or SVG file, completely or not at all, and return it."""
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"{out}: a picture ends in .png or .svg; rename it")
    data = BytesIO()
    with warnings.catch_warnings():
        # Letters that the font does not have show as boxes. The result files have the names.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(data, format=kind)
    write_atomic(out, data.getvalue())
    return figure


def fit_name(text: str, limit: int = 40) -> str:
    """Shorten a name to `limit` characters, and escape it so that it is not read as a formula."""
    return shorten(text, limit).replace("$", r"\$")


def show_image(axes: "Axes", image: "NDArray[np.uint8]") -> None:
    """Show an image (H, W, 1 or 3) unchanged, without axes."""
    is_grey = image.shape[-1] == 1
    axes.imshow(image.squeeze(-1) if is_grey else image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def style_axes(axes: "Axes") -> None:
    """Draw a light grid behind the data, and no frame."""
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def use_whole_numbers(axis: "Axis") -> None:
    """Set ticks at whole numbers only, for counts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
