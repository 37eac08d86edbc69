"""Pictures of a run: learning curves, the surest mistakes, the confusion matrix.

Only matplotlib's object interface is used, so drawing leaves no global state behind. All pictures
share one look: white, Okabe-Ito colours and cividis, both readable by the colour-blind.
"""

import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.errors import UsageError
from alexnet.files import write_atomic
from alexnet.terminal import percent, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
DPI = 150
LOG_SPAN = 20  # values further apart than this factor are drawn on a logarithmic axis
COUNTS_UP_TO, LABELS_UP_TO = 12, 60  # classes whose cells hold counts, whose ticks hold names
CAPTION = 24  # characters that fit above a small picture

Event = dict[str, Any]


def draw_curves(events: list[Event], out: Path, title: str) -> None:
    """Draw loss, top-1 and learning rate over epochs from the events of metrics.jsonl."""
    figure = _figure(13, 4.2, title)
    loss, top1, rate = figure.subplots(1, 3)
    train, val = _of_kind(events, "train"), _of_kind(events, "val")

    for axes, key, scale in ((loss, "loss_mean", 1), (top1, "top1", 100)):
        x, y = _series(train, key)
        axes.plot(x, scale * y, color=BLUE, lw=1.4, marker=_marker(x), label="train")
    for axes, key, scale in ((loss, "loss", 1), (top1, "top1", 100)):
        x, y = _series(val, key)
        label = "validation" if len(x) else None
        axes.plot(x, scale * y, color=RED, lw=1.6, marker="o", ms=4, label=label)

    sure = [event for event in val if event.get("top1_ci95")]
    if sure:
        low, high = (np.array([100 * event["top1_ci95"][i] for event in sure]) for i in (0, 1))
        epochs = [event["epoch"] for event in sure]
        # The edge has a width so that the interval of a single point shows as a stroke.
        top1.fill_between(epochs, low, high, color=RED, alpha=0.2, lw=1, label="95 % interval")
    scored = [event for event in val if event.get("top1") is not None]
    if scored:
        best = max(scored, key=lambda event: float(event["top1"]))
        label = f"best: {percent(best['top1'])} at epoch {best['epoch']:.4g}"
        where = [best["epoch"]], [100 * best["top1"]]
        top1.plot(*where, "*", color=ORANGE, mec="black", mew=0.8, ms=12, zorder=5, label=label)

    x, y = _series(train, "lr")
    rate.plot(x, y, color=GREEN, lw=1.6, marker=_marker(x))
    _log_if_wide(rate, y)
    _log_if_wide(loss, np.concatenate([_series(train, "loss_mean")[1], _series(val, "loss")[1]]))

    for axes, name, unit in (
        (loss, "Loss", "cross-entropy (nats)"),
        (top1, "Top-1 accuracy", "images right (%)"),
        (rate, "Learning rate", "learning rate"),
    ):
        axes.set(title=name, xlabel="epoch", ylabel=unit)
        axes.grid(color="#E4E4E4", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if not any(len(line.get_xdata(orig=False)) for line in axes.lines):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
        elif axes is not rate:
            axes.legend(frameon=False, fontsize=9)
    _write(figure, out)


def draw_layers(layers: Sequence[dict[str, Any]], out: Path, title: str) -> None:
    """Draw what each layer does: how much the image matters, how large it is, which units are dead.

    `layers` are those of `doctor`: name, signal, rms, gradient and dead of each, in order.
    """
    names = [_name(layer["name"], 24) for layer in layers]
    figure = _figure(13, 1.8 + 0.22 * len(names), title)
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
        axes.grid(color="#E4E4E4", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    _write(figure, out)


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
        figure = _figure(6, 2, title)
        figure.text(0.5, 0.4, f"no mistakes in {len(labels):,} images", ha="center", fontsize=13)
        _write(figure, out)
        return

    captions = [
        _caption(classes[labels[i]], classes[predicted[i]], float(probability[i])) for i in picked
    ]
    columns = min(6, len(picked))
    rows = -(-len(picked) // columns)
    lines = max(caption.count("\n") for caption in captions) + 1
    figure = _figure(max(5, 2.1 * columns), rows * (1.75 + 0.16 * lines) + 0.9, title)
    figure.supxlabel("true class → predicted class (its probability)", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, i, caption in zip(grid, picked, captions, strict=False):
        image = images[i]
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmax=255)
        axes.set_title(caption, fontsize=9)
    _write(figure, out)


def draw_confusion(
    matrix: NDArray[np.integer], classes: Sequence[str], out: Path, title: str
) -> None:
    """Draw the confusion matrix (rows are the true classes) as a share of each row."""
    from matplotlib.colors import LogNorm

    size = len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The scale starts below the rarest mistake: one lone error still differs from none.
    floor = float(share[share > 0].min(initial=1.0)) / 3
    names = [_name(name, 28) for name in classes] if size <= LABELS_UP_TO else []
    side = 4.2 + 0.15 * size if names else 8.6
    reach = 0.085 * max(map(len, names), default=0)
    figure = _figure(side + reach + 1.4, side + reach, title)
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
    _write(figure, out)


def draw_panels(
    panels: Mapping[str, Sequence[tuple[str, Sequence[float]]]],
    out: Path,
    title: str,
    level: tuple[str, float],
) -> None:
    """Draw a small plot for each panel: its curves, those of one label in one colour, on one scale.

    `level` is a line that all are held against: its name and height.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label, _ in curves))
    colours = dict(zip(labels, (BLUE, RED, GREEN, ORANGE), strict=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.1 * columns, 2.5 * rows + 0.8, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    starts = (curve[0] for curves in panels.values() for _, curve in curves)
    high = max(level[1] * 1.4, *(min(start, level[1] * 3) for start in starts))
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        axes.axhline(level[1], color="#666666", lw=1, ls=":", label=level[0])
        for label, values in curves:
            known = axes.get_legend_handles_labels()[1]
            shown = None if label in known else label
            axes.plot(range(1, len(values) + 1), values, color=colours[label], lw=1.2, label=shown)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, high)
        axes.grid(color="#E4E4E4", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("loss (nats)", fontsize=10)
    _write(figure, out)


def draw_dots(
    columns: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    out: Path,
    title: str,
    logarithmic: Collection[int] = (),
) -> None:
    """Draw a column of dots for each measurement, a row a condition: its values, several of one
    case joined by a line. `logarithmic` names columns by number."""
    rows = list(next(iter(columns.values())))
    figure = _figure(3.2 * len(columns) + 3, 0.27 * len(rows) + 1.6, title)
    grid = figure.subplots(1, len(columns), squeeze=False, sharey=True).ravel()
    for i, (axes, (name, conditions)) in enumerate(zip(grid, columns.items(), strict=True)):
        for y, row in enumerate(rows):
            cases = conditions[row]
            for j, values in enumerate(cases):
                at = y + 0.5 * ((j + 1) / (len(cases) + 1) - 0.5)
                axes.plot(values, [at] * len(values), "-", color="#BBBBBB", lw=1, zorder=1)
                shades = (BLUE, GREEN, ORANGE)[: len(values)]
                axes.scatter(values, [at] * len(values), c=shades, s=14, zorder=2)
        axes.set_title(name, fontsize=9)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.grid(color="#E4E4E4", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if i in logarithmic:
            axes.set_xscale("log")
    grid[0].invert_yaxis()
    _write(figure, out)


def _figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    heading = textwrap.fill(_name(title, 300), width=int(8 * width))
    figure.suptitle(heading, fontsize=13, fontweight="bold")
    return figure


def _write(figure: "Figure", out: Path) -> None:
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"{out}: a picture ends in .png or .svg; rename it")
    data = BytesIO()
    with warnings.catch_warnings():
        # A script the font lacks shows as boxes; the names themselves are in the result files.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(data, format=kind)
    write_atomic(out, data.getvalue())


def _name(text: str, limit: int = 40) -> str:
    """Return a name that fits and that matplotlib does not take for a formula."""
    return shorten(text, limit).replace("$", r"\$")


def _caption(true: str, said: str, probability: float) -> str:
    """Return "true → said (97 %)", on several lines if the names are long."""
    likely = f"{_name(said)} ({percent(probability, 0)})".replace(" %", "\N{NO-BREAK SPACE}%")
    caption = f"{_name(true)} → {likely}"
    if len(caption) <= CAPTION:
        return caption
    return "\n".join(textwrap.wrap(f"{_name(true)} →", CAPTION) + textwrap.wrap(likely, CAPTION))


def _of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return one event per step, in order: a resumed run repeats steps and its last word counts."""
    last = {event["step"]: event for event in events if event["event"] == kind}
    return [last[step] for step in sorted(last)]


def _series(events: list[Event], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(event["epoch"], event[key]) for event in events if event.get(key) is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _marker(x: NDArray[np.float64]) -> str:
    return "." if len(x) < 20 else ""


def _log_if_wide(axes: "Axes", values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import LogLocator

    above = values[np.isfinite(values) & (values > 0)]
    if len(above) and above.max() > LOG_SPAN * above.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
        # A schedule that ends at almost nothing must not squeeze everything else flat.
        axes.set_ylim(bottom=max(above.min() / 1.5, above.max() / 1e4))
