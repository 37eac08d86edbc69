"""Pictures, each written to a PNG or SVG file.

Each function that draws returns the figure that it wrote. These names are stable. The modules they
come from are not.
"""

from alexnet.figures.arms import draw_arms
from alexnet.figures.conditions import Panel, draw_distributions, draw_dots, draw_panels
from alexnet.figures.curves import draw_curves, draw_looks
from alexnet.figures.images import (
    Found,
    Prediction,
    draw_captioned,
    draw_evidence,
    draw_neighbours,
    draw_nothing,
    draw_predictions,
    draw_views,
    pair_caption,
)
from alexnet.figures.kernels import Sight, draw_filters, draw_maps, draw_sights
from alexnet.figures.quality import draw_alike, draw_bars, draw_calibration, draw_counts
from alexnet.figures.run import draw_confusion, draw_layers, draw_mistakes
from alexnet.runs.records import Event

__all__ = [
    "Event",
    "Found",
    "Panel",
    "Prediction",
    "Sight",
    "draw_alike",
    "draw_arms",
    "draw_bars",
    "draw_calibration",
    "draw_captioned",
    "draw_confusion",
    "draw_counts",
    "draw_curves",
    "draw_distributions",
    "draw_dots",
    "draw_evidence",
    "draw_filters",
    "draw_layers",
    "draw_looks",
    "draw_maps",
    "draw_mistakes",
    "draw_neighbours",
    "draw_nothing",
    "draw_panels",
    "draw_predictions",
    "draw_sights",
    "draw_views",
    "pair_caption",
]
