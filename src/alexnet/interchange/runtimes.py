"""The network of a run on torch, in int8, or on ONNX runtime or OpenVINO, behind one interface.

Runtimes are made from the same ONNX, and checked against the network before they answer.
"""

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.errors import Differs, UsageError
from alexnet.interchange.certificate import INT8_TOLERANCE, describe_network, draw_probe_images
from alexnet.interchange.export_check import TOLERANCE, OnnxNet
from alexnet.interchange.formats import Exportable, build_onnx
from alexnet.interchange.int8 import load_int8
from alexnet.interchange.optional_packages import missing_package
from alexnet.predictor import Predictor, pick_precision
from alexnet.runtime import choose_precision
from alexnet.support.options import option

EngineName = Literal["torch", "int8", "onnx", "openvino"]
BOUND = {
    "fp32": TOLERANCE,
    "bf16": 0.05,
    "int8": INT8_TOLERANCE,
}  # of the largest logit, or of 1: how far a runtime may be


class Runtime(nn.Module):
    """A network in another runtime, called like the module that it came from.

    Shapes: preprocessed images (N, C, crop, crop) -> logits (N, K), on the CPU.
    """

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return self._answer(images)


class OpenVino:
    """An ONNX file in OpenVINO, on the CPU, with torch's number of threads.

    Takes images in either memory layout, channels last without a copy. bf16: products in bfloat16.
    """

    def __init__(self, content: bytes, precision: str) -> None:
        try:
            import openvino
            from openvino.preprocess import PrePostProcessor
        except ImportError:
            raise missing_package("openvino", "openvino") from None
        core = openvino.Core()
        steps = PrePostProcessor(core.read_model(content))
        steps.input().tensor().set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        self._request = core.compile_model(steps.build(), "CPU", settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Tensor:
        rows = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).numpy())
        with self._lock:  # a request is for one caller at a time
            found = self._request.infer([rows], share_inputs=True)
            return torch.from_numpy(np.array(found[0], np.float32))


def with_engine(
    predictor: Predictor, name: str, data: str | Path | None = None, precision: str = "auto"
) -> Predictor:
    """The same predictor, answered otherwise: torch in `precision`, int8 by torch's integers
    (`data` has the held-out images that it is measured on, if the run's own are elsewhere), onnx in
    fp32, openvino in `precision`.

    UsageError where an engine does not answer in the precision asked for; Unavailable without the
    runtime's packages; Differs where its logits of the probe images are further from the network's
    than BOUND.
    """
    if name not in get_args(EngineName):
        raise UsageError(f"engine {name!r}: there are {', '.join(get_args(EngineName))}")
    if name == "torch":
        return predictor if precision == "auto" else predictor.at(precision)
    refuse_precision(name, precision)
    if torch.cuda.is_available():
        raise UsageError(f"engine {name} is of the CPU, and this machine has a GPU: use torch")
    if name == "int8":
        return replace(predictor, network=load_int8(predictor, data), precision="int8")
    kind = "fp32"
    if name == "openvino":
        kind = pick_precision(precision, predictor.recipe, torch.device("cpu"))
    return replace(predictor, network=build_runtime(predictor, name, kind), precision=kind)


def refuse_precision(engine: str, precision: str) -> None:
    """UsageError where an engine does not answer in the precision asked for."""
    cpu = torch.device("cpu")
    if engine == "int8" and precision != "auto":
        why = "answers in int8"
    elif engine == "onnx" and precision == "bf16":
        why = "answers in fp32"
    elif engine == "openvino" and precision == "bf16" != choose_precision("auto", cpu):
        why = "answers in fp32 on this processor, which has no bf16"
    else:
        return
    raise UsageError(
        f"{option('precision', precision)}: engine {engine} {why}; leave one of the two out"
    )


def build_runtime(predictor: Predictor, name: str, precision: str) -> Runtime:
    """The predictor's network in ONNX runtime or OpenVINO, checked against torch's answers."""
    probes, net = draw_probe_images(predictor.preprocess, "images"), copy.deepcopy(predictor.model)
    described = describe_network(predictor).to_json()
    subject = Exportable.of(net, predictor.preprocess, probes, described, with_preprocessing=False)
    content = build_onnx(subject)
    answer: Callable[[Tensor], Tensor]
    if name == "openvino":
        answer = OpenVino(content, precision)
    else:
        answer = OnnxNet(content, "the ONNX engine")
    check_runtime(subject, answer, name, precision)
    return Runtime(answer)


@torch.inference_mode()
def check_runtime(
    subject: Exportable, answer: Callable[[Tensor], Tensor], name: str, precision: str
) -> None:
    """Raises Differs where a runtime's logits of the subject's inputs are not the network's."""
    logits = subject.module(subject.inputs)
    apart = float((answer(subject.inputs) - logits).abs().max())
    bound = BOUND[precision] * max(float(logits.abs().max()), 1.0)
    if not apart <= bound:
        raise Differs(
            f"engine {name} in {precision} is {apart:.1e} from the network, and {bound:.1e} is "
            f"allowed: use {option('engine', 'torch')}"
        )
