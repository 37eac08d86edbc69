"""Learning curves: of one run, of several on one plot, and what the sentinel saw."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    fitting,
    new_figure,
    plain,
    write_figure,
)
from alexnet.terminal import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_SPAN = 20  # values further apart than this factor are drawn on a logarithmic axis

Event = dict[str, Any]


def draw_looks(events: list[Event], out: Path, title: str) -> "Figure | None":
    """Draw what the sentinel saw over epochs: dead units of each layer, update beside weight.

    None, and nothing is drawn, where it looked less than twice.
    """
    from matplotlib import colormaps

    looks = _of_kind(events, "look")
    if len(looks) < 2:
        return None
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
    return write_figure(figure, out)


def draw_curves(
    runs: Mapping[str, list[Event]], out: Path, title: str, no_top5: str = ""
) -> "Figure":
    """Draw loss, top-1, top-5, learning rate and speed over epochs from the events of
    metrics.jsonl, a colour a run: training thin, validation thick with its 95 % interval.
    `no_top5` says why top-5 is left out, where it is."""
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
        shown, places = [np.zeros(0)], set[float]()
        for color, events in zip(cycle(_RUNS), runs.values(), strict=False):
            x, y = _series(_of_kind(events, "train"), during)
            axes.plot(x, scale * y, color=color, lw=0.9 if after else 1.6, marker=_marker(x), ms=3)
            shown.append(scale * y)
            places |= set(x)
            if after is None:
                continue
            val = _of_kind(events, "val")
            x, y = _series(val, after)
            axes.plot(x, scale * y, color=color, lw=2.2, marker="o", ms=3.5)
            shown.append(scale * y)
            places |= set(x)
            if sure := [event for event in val if event.get(f"{after}_ci95")]:
                bounds = 100 * np.array([event[f"{after}_ci95"] for event in sure])
                epochs = [event["epoch"] for event in sure]
                axes.fill_between(epochs, *bounds.T, color=color, alpha=0.15, lw=0)
        values = np.concatenate(shown)
        if during in ("loss_mean", "lr"):
            _log_if_wide(axes, values)
        elif during == "images_per_s":
            axes.set_ylim(bottom=0)
        axes.set(title=name, xlabel="epoch", ylabel=unit)
        if len(places) == 1:  # ticks around one point are long and lie over each other
            axes.set_xticks(list(places), [f"{epoch:.3g}" for epoch in places])
        plain(axes)
        if not len(values):
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
    legend = grid[-1]
    legend.set_axis_off()
    for color, (name, events) in zip(cycle(_RUNS), runs.items(), strict=False):
        legend.plot([], [], color=color, lw=2.2, label=fitting(name, 36) + _best(events))
    legend.plot([], [], color="#444444", lw=0.9, label="thin: training")
    legend.plot([], [], color="#444444", lw=2.2, marker="o", ms=3.5,
                label="thick: validation, 95 % interval")  # fmt: skip
    legend.legend(frameon=False, loc="center", fontsize=10)
    return write_figure(figure, out)


def _best(events: list[Event]) -> str:
    scored = [event for event in _of_kind(events, "val") if event.get("top1") is not None]
    if not scored:
        return ""
    best = max(scored, key=lambda event: float(event["top1"]))
    return f"\nbest: {percent(best['top1'])} at epoch {best['epoch']:.4g}"


_RUNS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)


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
