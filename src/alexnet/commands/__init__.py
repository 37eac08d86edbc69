"""The verbs as functions: each does what its command does and returns what --json prints."""

from alexnet.commands.classifying import classify
from alexnet.commands.completing import completion
from alexnet.commands.data import data_check, data_get, data_pack
from alexnet.commands.diagnosing import doctor
from alexnet.commands.explaining import recipes
from alexnet.commands.exporting import export
from alexnet.commands.importing import import_weights
from alexnet.commands.initial_weights import Given as Given
from alexnet.commands.inspecting import inspect
from alexnet.commands.recipe_choice import choose as choose
from alexnet.commands.recipe_choice import look_at as look_at
from alexnet.commands.recipe_choice import time_decoding as time_decoding
from alexnet.commands.reporting import report
from alexnet.commands.serving import serve
from alexnet.commands.testing import test
from alexnet.commands.training import train
from alexnet.commands.training import train_choosing as train_choosing
from alexnet.lab import bench, claim

# Given, choose, look_at, time_decoding, train_choosing are parts of verbs, for tests and benches.

__all__ = [
    "bench",
    "claim",
    "classify",
    "completion",
    "data_check",
    "data_get",
    "data_pack",
    "doctor",
    "export",
    "import_weights",
    "inspect",
    "recipes",
    "report",
    "serve",
    "test",
    "train",
]
