"""The verbs as functions: each does what its command does and returns what --json prints."""

from alexnet.commands.benching import bench
from alexnet.commands.claiming import claim
from alexnet.commands.classifying import classify
from alexnet.commands.completing import completion
from alexnet.commands.data import data_check, data_get, data_pack
from alexnet.commands.diagnosing import doctor
from alexnet.commands.explaining import recipes
from alexnet.commands.exporting import export
from alexnet.commands.importing import import_weights
from alexnet.commands.inspecting import inspect
from alexnet.commands.reporting import report
from alexnet.commands.serving import serve
from alexnet.commands.testing import test
from alexnet.commands.training import train

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
