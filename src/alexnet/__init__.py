"""AlexNet-family image classification: from raw images to a trained, tested classifier.

The verbs of the command line are functions here, with the same options. Nothing heavy is imported
until one is used.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors: the names of _HOMES once more
    from alexnet.cli.completion import completion as completion
    from alexnet.commands.classify import classify as classify
    from alexnet.commands.data import data_check as data_check
    from alexnet.commands.data import data_get as data_get
    from alexnet.commands.data import data_pack as data_pack
    from alexnet.commands.doctor import doctor as doctor
    from alexnet.commands.export import export as export
    from alexnet.commands.import_weights import import_weights as import_weights
    from alexnet.commands.inspect import inspect as inspect
    from alexnet.commands.recipes import recipes as recipes
    from alexnet.commands.report import report as report
    from alexnet.commands.serve import serve as serve
    from alexnet.commands.test import test as test
    from alexnet.commands.train import train as train
    from alexnet.diagnosis.diagnose import diagnose as diagnose
    from alexnet.lab.benches.verb import bench as bench
    from alexnet.lab.claims.verb import claim as claim
    from alexnet.models.norm import response_norm as response_norm
    from alexnet.models.zoo import build_model as build_model
    from alexnet.predictor import Predictor as Predictor
    from alexnet.predictor import load as load

_HOMES = {
    "Predictor": "alexnet.predictor",
    "bench": "alexnet.lab.benches.verb",
    "build_model": "alexnet.models.zoo",
    "claim": "alexnet.lab.claims.verb",
    "classify": "alexnet.commands.classify",
    "completion": "alexnet.cli.completion",
    "data_check": "alexnet.commands.data",
    "data_get": "alexnet.commands.data",
    "data_pack": "alexnet.commands.data",
    "diagnose": "alexnet.diagnosis.diagnose",
    "doctor": "alexnet.commands.doctor",
    "export": "alexnet.commands.export",
    "import_weights": "alexnet.commands.import_weights",
    "inspect": "alexnet.commands.inspect",
    "load": "alexnet.predictor",
    "recipes": "alexnet.commands.recipes",
    "report": "alexnet.commands.report",
    "response_norm": "alexnet.models.norm",
    "serve": "alexnet.commands.serve",
    "test": "alexnet.commands.test",
    "train": "alexnet.commands.train",
}
"""The public names, and the module of each."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("alexnet")
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
