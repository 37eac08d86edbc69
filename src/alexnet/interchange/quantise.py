"""Quantisation of ONNX files to int8, and the comparison of accuracy and speed with fp32."""

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
from alexnet.interchange.end_to_end import Function
from alexnet.interchange.export_check import OnnxNet
from alexnet.interchange.held_out import spread_indices, tally_scores
from alexnet.interchange.optional_packages import missing_package, quiet
from alexnet.records import FileAccuracy, QuantisationFigures

MAX_CALIBRATION_IMAGES = 256  # and at most half of the held-out images
OPERATORS = ["Conv", "Gemm"]  # others stay in fp32: int8 is too coarse for response norms
ROUNDS = 15  # of the comparison of speed


class _CalibrationReader:
    """Calibration images one by one, in the interface that onnxruntime expects."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self._batches: Iterator[dict[str, Any]] = ({name: one[None].numpy()} for one in inputs)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantise(content: bytes, inputs: Tensor) -> bytes:
    """Quantise an ONNX file: weights, with a scale for each output channel, and inputs of layers.

    `inputs` are inputs of the file, made from images that the network was not trained on.
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
            _CalibrationReader(name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=OPERATORS,
        )
        return out.read_bytes()


def calibration_indices(part: Split) -> NDArray[np.int64]:
    """The indices of the images for calibration; the other images of the slice are for the test."""
    if len(part) < 2:
        raise DataError(
            f"{part.name} has {len(part)} image: int8 needs one for calibration and one to test"
        )
    return spread_indices(part, min(MAX_CALIBRATION_IMAGES, len(part) // 2))


def compare_quantised(
    fp32: bytes,
    int8: bytes,
    part: Split,
    calibration: NDArray[np.int64],
    classes: int,
    inputs: Function,
) -> QuantisationFigures:
    """Compare an ONNX file with its int8 version: accuracy on the images of a slice that are not in
    `calibration`, and speed with one image. `inputs` maps stored images to inputs of the files.
    """
    contents = {"fp32": fp32, "int8": int8}
    nets = {precision: OnnxNet(c, f"the {precision} file") for precision, c in contents.items()}
    accuracies: dict[str, FileAccuracy] = {}
    for precision, net in nets.items():
        tally = tally_scores(
            lambda images, net=net: net(inputs(images)),  # type: ignore[misc]
            part,
            classes,
            calibration,
        )
        figures = tally.figures()
        accuracies[precision] = FileAccuracy(
            top1=figures.top1,
            top1_ci95=figures.top1_ci95,
            top5=figures.top5,
            n=figures.n,
            precision=precision,
            bytes=len(contents[precision]),
        )
    one_image = inputs(torch.from_numpy(part.read(np.zeros(1, np.int64))))
    seconds: dict[str, list[float]] = {precision: [] for precision in nets}
    for _ in range(ROUNDS):
        for precision, net in nets.items():
            began = time.perf_counter()
            net(one_image)
            seconds[precision].append(time.perf_counter() - began)
    medians = [statistics.median(times) for times in seconds.values()]
    return QuantisationFigures(
        **accuracies,
        calibration_images=len(calibration),
        speed_ratio=round(medians[0] / medians[1], 2),
        ms=[round(1e3 * median, 3) for median in medians],
    )
