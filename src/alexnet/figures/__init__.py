"""Pictures, each written to a PNG or SVG file.

Each `draw_...` function returns the figure that it wrote. These names are stable. The modules they
come from are not.
"""

from alexnet.figures.charts import (
    draw_bars,
    draw_calibration,
    draw_confusion,
    draw_counts,
    draw_layers,
    draw_similarity,
)
from alexnet.figures.curves import draw_curves, draw_looks
from alexnet.figures.experiments import (
    Panel,
    draw_arms,
    draw_distributions,
    draw_dots,
    draw_panels,
)
from alexnet.figures.images import (
    NeighbourImage,
    Prediction,
    draw_captioned,
    draw_evidence,
    draw_message,
    draw_mistakes,
    draw_neighbours,
    draw_predictions,
    draw_views,
    pair_caption,
)
from alexnet.figures.kernels import BoxedImage, draw_boxed_images, draw_filters, draw_maps
from alexnet.records import Event

__all__ = [
    "BoxedImage",
    "Event",
    "NeighbourImage",
    "Panel",
    "Prediction",
    "draw_arms",
    "draw_bars",
    "draw_boxed_images",
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
    "draw_message",
    "draw_mistakes",
    "draw_neighbours",
    "draw_panels",
    "draw_predictions",
    "draw_similarity",
    "draw_views",
    "pair_caption",
]
