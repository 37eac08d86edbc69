"""Pictures of experiments: scores of each arm, curves, states and distributions by condition."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    fit_name,
    new_figure,
    style_axes,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Curve = Sequence[tuple[float, float]]  # (step, training error in %)


def draw_arms(
    scores: Mapping[str, Sequence[float]],
    curves: Mapping[str, Sequence[Curve]],
    out: Path,
    score_name: str,
) -> "Figure":
    """Draw the scores of each arm of a comparison, and its training error (%) over steps.

    Scores of one seed are joined by a line; each seed has a curve of its own.
    """
    names = [fit_name(name, 24) for name in scores]
    figure = new_figure(9 if curves else 4.5, 3.8, score_name)
    left, *right = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    for of_seed in zip(*scores.values(), strict=True):
        left.plot(range(len(of_seed)), of_seed, "-", color="#BBBBBB", lw=1, zorder=1)
    for i, (name, values) in enumerate(scores.items()):
        colour = (BLUE, RED, GREEN, ORANGE)[i % 4]
        left.scatter([i] * len(values), values, color=colour, s=18, zorder=2)
        for j, curve in enumerate(curves.get(name, ())):
            steps, errors = zip(*curve, strict=True)
            right[0].plot(steps, errors, color=colour, lw=1, label=None if j else names[i])
    left.set_xticks(range(len(names)), names, fontsize=8)
    left.set_xlim(-0.5, len(names) - 0.5)
    style_axes(left)
    for axes in right:
        axes.set_xlabel("step")
        axes.set_ylabel("training error (%)")
        axes.legend(frameon=False, fontsize=8)
        style_axes(axes)
    return write_figure(figure, out)


def draw_panels(
    panels: Mapping[str, Sequence[tuple[str, Sequence[float]]]],
    out: Path,
    title: str,
    level: tuple[str, float],
) -> "Figure":
    """Draw a small plot of curves for each panel, all on one scale, with a colour for each label.

    `level` is the name and height of a reference line.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label, _ in curves))
    colours = dict(zip(labels, (BLUE, RED, GREEN, ORANGE), strict=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.1 * columns, 2.5 * rows + 0.8, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    starts = (curve[0] for curves in panels.values() for _, curve in curves)
    high = max(level[1] * 1.4, *(min(start, level[1] * 3) for start in starts))
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        axes.axhline(level[1], color="#666666", lw=1, ls=":", label=level[0])
        for label, values in curves:
            in_legend = label in axes.get_legend_handles_labels()[1]
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=colours[label],
                lw=1.2,
                label=None if in_legend else label,
            )
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, high)
        style_axes(axes)
    grid[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("loss (nats)", fontsize=10)
    return write_figure(figure, out)


def draw_dots(
    columns: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    out: Path,
    title: str,
    logarithmic: Collection[int] = (),
) -> "Figure":
    """Draw a column of dots for each measurement, with a row for each condition.

    Values of one case are joined by a line. `logarithmic` are the numbers of the columns with such
    an axis.
    """
    rows = list(next(iter(columns.values())))
    figure = new_figure(3.2 * len(columns) + 3, 0.27 * len(rows) + 1.6, title)
    grid = figure.subplots(1, len(columns), squeeze=False, sharey=True).ravel()
    for i, (axes, (name, conditions)) in enumerate(zip(grid, columns.items(), strict=True)):
        for y, row in enumerate(rows):
            cases = conditions[row]
            for j, values in enumerate(cases):
                heights = [y + 0.5 * ((j + 1) / (len(cases) + 1) - 0.5)] * len(values)
                axes.plot(values, heights, "-", color="#BBBBBB", lw=1, zorder=1)
                colours = (BLUE, GREEN, ORANGE)[: len(values)]
                axes.scatter(values, heights, c=colours, s=14, zorder=2)
        axes.set_title(name, fontsize=9)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        style_axes(axes)
        if i in logarithmic:
            axes.set_xscale("log")
    grid[0].invert_yaxis()
    return write_figure(figure, out)


@dataclass(frozen=True)
class Panel:
    """A quantity: its values by group, and thresholds as lines."""

    title: str
    groups: Mapping[str, Sequence[float]]
    lines: Sequence[float]
    logarithmic: bool


def draw_distributions(panels: Sequence[Panel], out: Path, title: str) -> "Figure":
    """Draw every value as a dot, with a row for each group and dashed lines for thresholds.

    On a logarithmic axis values of zero or less are at the left edge.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 1.35 * rows + 0.9, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        values = [v for group in panel.groups.values() for v in group] + list(panel.lines)
        floor = min((v for v in values if v > 0), default=1.0) / 3
        for y, (group, colour) in enumerate(zip(panel.groups.values(), (BLUE, RED), strict=False)):
            x = [max(v, floor) for v in group] if panel.logarithmic else group
            # A fixed pattern: the same values give the same picture.
            heights = [y + 0.5 * ((i * 0.618) % 1 - 0.5) for i in range(len(group))]
            axes.scatter(x, heights, color=colour, s=7, alpha=0.6, lw=0)
        for line in panel.lines:
            axes.axvline(line, color="black", lw=1, ls="--")
        if panel.logarithmic:
            axes.set_xscale("log")
        axes.set_title(panel.title, fontsize=9)
        axes.set_yticks(range(len(panel.groups)), list(panel.groups), fontsize=8)
        axes.set_ylim(len(panel.groups) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=8)
        style_axes(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return write_figure(figure, out)
