"""Runs on disk: directory, checkpoints, log and records.

These names are stable. The modules they come from are not.
"""

from alexnet.runs.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)
from alexnet.runs.rundir import RunDir
from alexnet.runs.weights import read_weights

__all__ = [
    "Checkpoint",
    "RunDir",
    "find_checkpoint",
    "load_checkpoint",
    "load_latest",
    "read_weights",
    "save_checkpoint",
]
