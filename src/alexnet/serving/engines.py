"""The network of a run on torch or on ONNX runtime, behind one interface."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.errors import UsageError
from alexnet.interchange.certificate import describe, probe
from alexnet.interchange.chain import OnnxNet
from alexnet.interchange.formats import Subject, to_onnx
from alexnet.predict import Predictor

EngineName = Literal["torch", "onnx"]
Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Stored images to probabilities: uint8 (N, size, size, C) -> float32 (N, K)."""


def build_engine(predictor: Predictor, name: EngineName) -> Engine:
    """torch as `Predictor.answer` has it, or ONNX runtime in fp32, which is exported and verified
    here."""
    if name == "onnx":
        probes = probe(predictor.preprocess, "images")
        subject = Subject.of(
            predictor.model, predictor.preprocess, probes, describe(predictor), inside=True
        )
        net = OnnxNet(to_onnx(subject)[0], "the ONNX engine")
        return lambda pixels: net(torch.from_numpy(pixels)).numpy()
    if name != "torch":
        raise UsageError(f"engine {name!r}: there are torch and onnx")
    return predictor.answer
