"""Pictures of experiments: curves, states and distributions by condition."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.figures.canvas import BLUE, GREEN, ORANGE, RED, new_figure, style_axes, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_panels(
    panels: Mapping[str, Sequence[tuple[str, Sequence[float]]]],
    out: Path,
    title: str,
    level: tuple[str, float],
) -> "Figure":
    """Draw a small plot for each panel: its curves, those of one label in one colour, on one scale.

    `level` is a line that all are held against: its name and height.
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
            known = axes.get_legend_handles_labels()[1]
            shown = None if label in known else label
            axes.plot(range(1, len(values) + 1), values, color=colours[label], lw=1.2, label=shown)
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
    """Draw a column of dots for each measurement, a row a condition: its values, several of one
    case joined by a line. `logarithmic` names columns by number."""
    rows = list(next(iter(columns.values())))
    figure = new_figure(3.2 * len(columns) + 3, 0.27 * len(rows) + 1.6, title)
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
        style_axes(axes)
        if i in logarithmic:
            axes.set_xscale("log")
    grid[0].invert_yaxis()
    return write_figure(figure, out)


@dataclass(frozen=True)
class Panel:
    """A quantity, its values by group, and lines that it is held against."""

    title: str
    groups: Mapping[str, Sequence[float]]
    lines: Sequence[float]
    logarithmic: bool


def draw_distributions(panels: Sequence[Panel], out: Path, title: str) -> "Figure":
    """Draw every value as a dot, a row a group; lines are dashed. On a logarithmic axis what is
    zero or less stands at its left edge."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 1.35 * rows + 0.9, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        values = [v for group in panel.groups.values() for v in group] + list(panel.lines)
        floor = min((v for v in values if v > 0), default=1.0) / 3
        for y, (group, colour) in enumerate(zip(panel.groups.values(), (BLUE, RED), strict=False)):
            x = [max(v, floor) for v in group] if panel.logarithmic else group
            # Spread by a fixed pattern, so that the same values draw the same picture.
            spread = [y + 0.5 * ((i * 0.618) % 1 - 0.5) for i in range(len(group))]
            axes.scatter(x, spread, color=colour, s=7, alpha=0.6, lw=0)
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
