"""Pictures, each written to a PNG or SVG file."""

from alexnet.figures.arms import draw_arms
from alexnet.figures.conditions import Panel, draw_distributions, draw_dots, draw_panels
from alexnet.figures.run import (
    Event,
    draw_confusion,
    draw_curves,
    draw_layers,
    draw_looks,
    draw_mistakes,
)

__all__ = [
    "Event",
    "Panel",
    "draw_arms",
    "draw_confusion",
    "draw_curves",
    "draw_distributions",
    "draw_dots",
    "draw_layers",
    "draw_looks",
    "draw_mistakes",
    "draw_panels",
]
