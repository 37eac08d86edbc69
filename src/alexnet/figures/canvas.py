"""What all pictures share: canvas, colours, names that fit, files that are whole.

Only matplotlib's object interface is used, so drawing leaves no global state behind. The look is
white, with Okabe-Ito colours and cividis, both readable by the colour-blind.
"""

import textwrap
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import UsageError
from alexnet.files import write_atomic
from alexnet.terminal import shorten

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


def new_figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    heading = textwrap.fill(fitting(title, 300), width=int(8 * width))
    figure.suptitle(heading, fontsize=13, fontweight="bold")
    return figure


def write_figure(figure: "Figure", out: Path) -> "Figure":
    """Writes the picture whole, or not at all, and returns it, for who wants to look at it."""
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"{out}: a picture ends in .png or .svg; rename it")
    data = BytesIO()
    with warnings.catch_warnings():
        # A script the font lacks shows as boxes; the names themselves are in the result files.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(data, format=kind)
    write_atomic(out, data.getvalue())
    return figure


def fitting(text: str, limit: int = 40) -> str:
    """Return a name that fits and that matplotlib does not take for a formula."""
    return shorten(text, limit).replace("$", r"\$")


def show(axes: "Axes", image: "NDArray[np.uint8]") -> None:
    """An image (H, W, 1 or 3) as it is, without axes."""
    grey = image.shape[-1] == 1
    axes.imshow(image.squeeze(-1) if grey else image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def style_axes(axes: "Axes") -> None:
    """A light grid behind the data, and no frame."""
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def whole_numbers(axis: "Axis") -> None:
    """Ticks of counts: none at 2.5 images."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
