"""AlexNet-family image classification: from raw images to a trained, tested classifier.

The verbs of the command line are functions here, with the same options. Nothing heavy is imported
until one is used.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet.commands import (
        bench,
        claim,
        classify,
        completion,
        data_check,
        data_get,
        data_pack,
        doctor,
        export,
        import_weights,
        inspect,
        recipes,
        report,
        serve,
        test,
        train,
    )
    from alexnet.diagnosis.diagnose import diagnose
    from alexnet.models.norm import response_norm
    from alexnet.models.zoo import build_model
    from alexnet.predictor import Predictor, load

_HOMES = {
    "Predictor": "alexnet.predictor",
    "bench": "alexnet.commands",
    "build_model": "alexnet.models.zoo",
    "claim": "alexnet.commands",
    "classify": "alexnet.commands",
    "completion": "alexnet.commands",
    "data_check": "alexnet.commands",
    "data_get": "alexnet.commands",
    "data_pack": "alexnet.commands",
    "doctor": "alexnet.commands",
    "export": "alexnet.commands",
    "import_weights": "alexnet.commands",
    "diagnose": "alexnet.diagnosis.diagnose",
    "inspect": "alexnet.commands",
    "load": "alexnet.predictor",
    "recipes": "alexnet.commands",
    "report": "alexnet.commands",
    "response_norm": "alexnet.models.norm",
    "serve": "alexnet.commands",
    "test": "alexnet.commands",
    "train": "alexnet.commands",
}

__all__ = [
    "Predictor",
    "bench",
    "build_model",
    "claim",
    "classify",
    "completion",
    "data_check",
    "data_get",
    "data_pack",
    "diagnose",
    "doctor",
    "export",
    "import_weights",
    "inspect",
    "load",
    "recipes",
    "report",
    "response_norm",
    "serve",
    "test",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("alexnet")
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
