"""Packages that are not always installed: the error where one is missing, and their warnings."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet.errors import Unavailable


def missing_package(package: str, extra: str = "onnx") -> Unavailable:
    """The error to raise where a package is missing that an extra of alexnet installs."""
    return Unavailable(
        f"this needs {package}, which is not installed: pip install 'alexnet[{extra}]'"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of exporters and quantisers: about missing operators of torchvision, about
    names that will change, and general advice. Their output is compared with the network instead.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
