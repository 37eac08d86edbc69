"""What computes a server's answers: the network of a run, in int8, or on another runtime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.interchange.runtimes import EngineName, with_engine
from alexnet.predict import Predictor

__all__ = ["Engine", "EngineName", "build_engine"]

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Stored images to probabilities: uint8 (N, size, size, C) -> float32 (N, K)."""


def build_engine(predictor: Predictor, name: EngineName, data: str | Path | None = None) -> Engine:
    """`Predictor.answer` by torch, int8, ONNX runtime or OpenVINO, held against the network:
    int8 on the run's held-out images, or those in `data`."""
    return with_engine(predictor, name, data).answer
