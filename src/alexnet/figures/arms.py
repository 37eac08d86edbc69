"""The picture of a comparison: what each arm reaches, and how it gets there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    fitting,
    new_figure,
    style_axes,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]


def draw_arms(
    scores: Mapping[str, Sequence[float]],
    curves: Mapping[str, Sequence[Curve]],
    out: Path,
    score_name: str,
) -> "Figure":
    """Draw each arm's scores, those of one seed joined by a line, beside its training error (%)
    over steps, a line a seed."""
    names = [fitting(name, 24) for name in scores]
    figure = new_figure(9 if curves else 4.5, 3.8, score_name)
    left, *right = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    for joined in zip(*scores.values(), strict=True):
        left.plot(range(len(joined)), joined, "-", color="#BBBBBB", lw=1, zorder=1)
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
        axes.set_ylabel("error in training (%)")
        axes.legend(frameon=False, fontsize=8)
        style_axes(axes)
    return write_figure(figure, out)
