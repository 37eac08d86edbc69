"""Pictures of a run: learning curves, layers, the surest mistakes, the confusion matrix."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    fitting,
    new_figure,
    plain,
    write_figure,
)
from alexnet.terminal import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_SPAN = 20  # values further apart than this factor are drawn on a logarithmic axis
COUNTS_UP_TO, LABELS_UP_TO = 12, 60  # classes whose cells hold counts, whose ticks hold names
CAPTION = 24  # characters that fit above a small picture

Event = dict[str, Any]


def draw_curves(events: list[Event], out: Path, title: str) -> None:
    """Draw loss, top-1 and learning rate over epochs from the events of metrics.jsonl."""
    figure = new_figure(13, 4.2, title)
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
        plain(axes)
        if not any(len(line.get_xdata(orig=False)) for line in axes.lines):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
        elif axes is not rate:
            axes.legend(frameon=False, fontsize=9)
    write_figure(figure, out)


def draw_looks(events: list[Event], out: Path, title: str) -> bool:
    """Draw what the sentinel saw over epochs: dead units of each layer, update beside weight.

    False, and nothing is drawn, where it looked less than twice.
    """
    from matplotlib import colormaps

    looks = _of_kind(events, "look")
    if len(looks) < 2:
        return False
    figure = new_figure(13, 4.2, title)
    dead, update = figure.subplots(1, 2)
    epochs = [look["epoch"] for look in looks]
    names = list(looks[0]["dead"])
    for i, name in enumerate(names):
        shade = colormaps["cividis"](0.92 * i / max(len(names) - 1, 1))  # darker is earlier
        values = [100 * look["dead"].get(name, np.nan) for look in looks]
        dead.plot(epochs, values, color=shade, lw=1.4, label=fitting(name, 24))
    dead.set(title="Dead units", xlabel="epoch", ylabel="0 for a whole batch (%)", ylim=(0, 100))
    if names:
        dead.legend(frameon=False, fontsize=8, ncols=2)
    values = [look.get("update", np.nan) for look in looks]
    update.plot(epochs, values, color=BLUE, lw=1.4)
    update.set(title="Steps", xlabel="epoch", ylabel="update / weight (median)", yscale="log")
    for axes in (dead, update):
        plain(axes)
    write_figure(figure, out)
    return True


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
        figure = new_figure(6, 2, title)
        figure.text(0.5, 0.4, f"no mistakes in {len(labels):,} images", ha="center", fontsize=13)
        write_figure(figure, out)
        return

    captions = [
        _caption(classes[labels[i]], classes[predicted[i]], float(probability[i])) for i in picked
    ]
    columns = min(6, len(picked))
    rows = -(-len(picked) // columns)
    lines = max(caption.count("\n") for caption in captions) + 1
    figure = new_figure(max(5, 2.1 * columns), rows * (1.75 + 0.16 * lines) + 0.9, title)
    figure.supxlabel("true class → predicted class (its probability)", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, i, caption in zip(grid, picked, captions, strict=False):
        image = images[i]
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmax=255)
        axes.set_title(caption, fontsize=9)
    write_figure(figure, out)


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


def _caption(true: str, said: str, probability: float) -> str:
    """Return "true → said (97 %)", on several lines if the names are long."""
    likely = f"{fitting(said)} ({percent(probability, 0)})".replace(" %", "\N{NO-BREAK SPACE}%")
    caption = f"{fitting(true)} → {likely}"
    if len(caption) <= CAPTION:
        return caption
    return "\n".join(textwrap.wrap(f"{fitting(true)} →", CAPTION) + textwrap.wrap(likely, CAPTION))


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
