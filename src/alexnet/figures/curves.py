"""Learning curves of one or several runs, and the measurements of the guard."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    fit_name,
    new_figure,
    style_axes,
    write_figure,
)
from alexnet.records import Event, LookEvent, TrainEvent, ValEvent, as_event
from alexnet.support.terminal import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_SPAN = 20  # largest value divided by the smallest, above which the axis is logarithmic
_RUN_COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)

Line = Event | Mapping[str, Any]
Kind = TypeVar("Kind", TrainEvent, ValEvent, LookEvent)


def draw_looks(lines: Sequence[Line], out: Path, title: str) -> "Figure | None":
    """Draw the guard's measurements over epochs: dead units by layer, and the size of updates.

    Draws nothing, and returns None, if it measured fewer than two steps.
    """
    from matplotlib import colormaps

    looks = _of_kind(lines, LookEvent)
    if len(looks) < 2:
        return None
    figure = new_figure(13, 4.2, title)
    dead, update = figure.subplots(1, 2)
    epochs = [look.epoch for look in looks]
    names = list(looks[0].dead)
    for i, name in enumerate(names):
        colour = colormaps["cividis"](0.92 * i / max(len(names) - 1, 1))  # early layers are darker
        values = [100 * look.dead.get(name, np.nan) for look in looks]
        dead.plot(epochs, values, color=colour, lw=1.4, label=fit_name(name, 24))
    dead.set(title="Dead units", xlabel="epoch", ylabel="0 for a whole batch (%)", ylim=(0, 100))
    if names:
        dead.legend(frameon=False, fontsize=8, ncols=2)
    values = [np.nan if look.update_ratio is None else look.update_ratio for look in looks]
    update.plot(epochs, values, color=BLUE, lw=1.4)
    update.set(title="Steps", xlabel="epoch", ylabel="update / weight (median)", yscale="log")
    for axes in (dead, update):
        style_axes(axes)
    return write_figure(figure, out)


def draw_curves(
    runs: Mapping[str, Sequence[Line]], out: Path, title: str, no_top5: str = ""
) -> "Figure":
    """Draw loss, top-1, top-5, learning rate and speed over epochs, with a colour for each run.

    `runs` are lines of metrics.jsonl by name. Thin lines are training, thick ones validation with
    its 95 % interval. `no_top5` says why there is no top-5, or is empty where there is.
    """
    figure = new_figure(13, 7.4, title)
    grid = figure.subplots(2, 3).ravel()
    panels = (
        ("Loss", "cross-entropy (nats)", "loss_mean", "loss", 1.0),
        ("Top-1 accuracy", "images right (%)", "top1", "top1", 100.0),
        ("Top-5 accuracy", "images right (%)", "top5", "top5", 100.0),
        ("Learning rate", "learning rate", "lr", None, 1.0),
        ("Speed of training", "images/s", "images_per_s", None, 1.0),
    )
    for axes, (name, unit, during, after, scale) in zip(grid, panels, strict=False):
        if no_top5 and during == "top5":
            axes.set(title=name, xticks=[], yticks=[])
            text = f"left out:\n{fill(no_top5, 30)}"
            axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
            axes.spines[:].set_visible(False)
            continue
        drawn_values, drawn_epochs = [np.zeros(0)], set[float]()
        for color, lines in zip(cycle(_RUN_COLOURS), runs.values(), strict=False):
            x, y = _series(_of_kind(lines, TrainEvent), during)
            axes.plot(x, scale * y, color=color, lw=0.9 if after else 1.6, marker=_marker(x), ms=3)
            drawn_values.append(scale * y)
            drawn_epochs |= set(x)
            if after is None:
                continue
            val = _of_kind(lines, ValEvent)
            x, y = _series(val, after)
            axes.plot(x, scale * y, color=color, lw=2.2, marker="o", ms=3.5)
            drawn_values.append(scale * y)
            drawn_epochs |= set(x)
            if with_interval := [e for e in val if getattr(e, f"{after}_ci95", None)]:
                bounds = 100 * np.array([getattr(e, f"{after}_ci95") for e in with_interval])
                epochs = [e.epoch for e in with_interval]
                axes.fill_between(epochs, *bounds.T, color=color, alpha=0.15, lw=0)
        values = np.concatenate(drawn_values)
        if during in ("loss_mean", "lr"):
            _log_if_wide(axes, values)
        elif during == "images_per_s":
            axes.set_ylim(bottom=0)
        axes.set(title=name, xlabel="epoch", ylabel=unit)
        if len(drawn_epochs) == 1:  # ticks around one point are long, and would overlap
            axes.set_xticks(list(drawn_epochs), [f"{epoch:.3g}" for epoch in drawn_epochs])
        style_axes(axes)
        if not len(values):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
    legend = grid[-1]
    legend.set_axis_off()
    for color, (name, lines) in zip(cycle(_RUN_COLOURS), runs.items(), strict=False):
        legend.plot([], [], color=color, lw=2.2, label=fit_name(name, 36) + _best(lines))
    legend.plot([], [], color="#444444", lw=0.9, label="thin: training")
    legend.plot([], [], color="#444444", lw=2.2, marker="o", ms=3.5,
                label="thick: validation, 95 % interval")  # fmt: skip
    legend.legend(frameon=False, loc="center", fontsize=10)
    return write_figure(figure, out)


def _best(lines: Sequence[Line]) -> str:
    """A line of the legend with the best top-1 on validation, or nothing."""
    scored = [(e.top1, e) for e in _of_kind(lines, ValEvent) if e.top1 is not None]
    if not scored:
        return ""
    top1, best = max(scored, key=lambda pair: pair[0])
    return f"\nbest: {percent(top1)} at epoch {best.epoch:.4g}"


def _of_kind(lines: Sequence[Line], kind: type[Kind]) -> list[Kind]:
    """One event per step, in order; where a resumed run repeats a step, its last event counts."""
    last = {e.step: e for e in map(as_event, lines) if isinstance(e, kind)}
    return [last[step] for step in sorted(last)]


def _series(
    events: Sequence[TrainEvent] | Sequence[ValEvent], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs and values of the events that have a value of this name."""
    pairs = [(e.epoch, value) for e in events if (value := getattr(e, name)) is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _marker(x: NDArray[np.float64]) -> str:
    """Dots for a few points, which a line alone would hardly show."""
    return "." if len(x) < 20 else ""


def _log_if_wide(axes: "Axes", values: NDArray[np.float64]) -> None:
    """Use a logarithmic axis where values differ by more than a factor of `LOG_SPAN`."""
    from matplotlib.ticker import LogLocator

    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) and positive.max() > LOG_SPAN * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
        # A schedule that ends near zero would otherwise leave no room for the rest.
        axes.set_ylim(bottom=max(positive.min() / 1.5, positive.max() / 1e4))
