"""ONNX in int8: ranges from calibration images, accuracy and speed before and after."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.splits import Split
from alexnet.errors import DataError
from alexnet.interchange.chain import OnnxNet, missing_package, quiet
from alexnet.interchange.heldout import some_of, tally_scores
from alexnet.runs.records import FileAccuracy

CALIBRATION = 256  # images, at most half of those held out
KINDS = ["Conv", "Gemm"]  # the rest, response norm above all, has squares that int8 loses
ROUNDS = 15


class _Reader:
    """The calibration images one by one, as onnxruntime asks for them."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self.rows: Iterator[dict[str, Any]] = ({name: one[None].numpy()} for one in inputs)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.rows, None)


def quantise(content: bytes, inputs: Tensor) -> bytes:
    """An ONNX file with weights (a scale an output channel) and layers' inputs in int8.

    `inputs` are what the file takes, of images that it was not trained on.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise missing_package(str(error.name)) from None
    before = onnx.load_model_from_string(content)
    name = before.graph.input[0].name
    with tempfile.TemporaryDirectory(prefix="alexnet-") as folder, quiet():
        out = Path(folder, "int8.onnx")
        quantize_static(
            before,
            out,
            _Reader(name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=KINDS,
        )
        return out.read_bytes()


def calibration_of(part: Split) -> NDArray[np.int64]:
    """The indices of the images that ranges are taken from; the others measure."""
    if len(part) < 2:
        raise DataError(f"{part.name} has {len(part)} image: int8 needs one and more to measure on")
    return some_of(part, min(CALIBRATION, len(part) // 2))


def before_and_after(
    before: bytes, after: bytes, part: Split, skip: NDArray[np.int64], classes: int, inputs: Any
) -> dict[str, Any]:
    """Accuracy of both on the same images, and how much faster the second is with one image.

    `inputs` turns stored images into what the files take.
    """
    nets = [OnnxNet(before, "the fp32 file"), OnnxNet(after, "the int8 file")]
    found = [
        tally_scores(lambda x, net=net: net(inputs(x)), part, classes, skip).figures()  # type: ignore[misc]
        for net in nets
    ]
    one = inputs(torch.from_numpy(part.read(np.zeros(1, np.int64))))
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for net, taken in zip(nets, times, strict=True):
            began = time.perf_counter()
            net(one)
            taken.append(time.perf_counter() - began)
    medians = [statistics.median(taken) for taken in times]
    return {
        kind: FileAccuracy(
            top1=one.top1,
            top1_ci95=one.top1_ci95,
            top5=one.top5,
            n=one.n,
            precision=kind,
            bytes=len(content),
        )
        for kind, one, content in zip(("fp32", "int8"), found, (before, after), strict=True)
    } | {
        "calibration_images": len(skip),
        "speed_ratio": round(medians[0] / medians[1], 2),
        "ms": [round(1e3 * m, 3) for m in medians],
    }
