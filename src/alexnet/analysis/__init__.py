"""Analyses of a trained network: kernels, features, neighbours, confidence, evidence.

These names are stable. The modules they come from are not.
"""

from alexnet.analysis.answers import Mistakes, count_answers
from alexnet.analysis.confidence import (
    confused_pairs,
    doubtful_labels,
    measure_calibration,
    surest_mistakes,
)
from alexnet.analysis.features import gather_features, last_hidden, write_features
from alexnet.analysis.kernels import colour_scores, tower_scores, towers_of
from alexnet.analysis.maps import most_excited, receptive_field
from alexnet.analysis.neighbours import class_agreement, nearest_neighbours
from alexnet.analysis.probe import fit_linear_probe, linear_cka
from alexnet.analysis.saliency import grad_cam, integrated_gradients, occlusion

__all__ = [
    "Mistakes",
    "class_agreement",
    "colour_scores",
    "confused_pairs",
    "count_answers",
    "doubtful_labels",
    "fit_linear_probe",
    "gather_features",
    "grad_cam",
    "integrated_gradients",
    "last_hidden",
    "linear_cka",
    "measure_calibration",
    "most_excited",
    "nearest_neighbours",
    "occlusion",
    "receptive_field",
    "surest_mistakes",
    "tower_scores",
    "towers_of",
    "write_features",
]
