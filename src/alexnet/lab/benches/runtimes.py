"""A network in the other runtimes that are installed, to be timed beside torch."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from alexnet.errors import Unavailable
from alexnet.interchange import (
    Exportable,
    OnnxNet,
    OpenVino,
    Runtime,
    build_onnx,
    check_runtime,
    quantise,
)
from alexnet.models import Net
from alexnet.runtime import choose_precision

Function = Callable[[Tensor], Tensor]


def build_runtimes(net: Net, images: Tensor) -> tuple[dict[str, Runtime], list[str]]:
    """A network in each runtime that is installed, by the name of its row, and what is missing.

    Shapes: images (N, C, H, W), on which each runtime is checked against the network. ONNX runtime
    in fp32, OpenVINO in bf16, or in fp32 where this processor has no bf16; and both in int8.
    """
    plain = copy.deepcopy(net).cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    subject = Exportable(plain, plain, images.cpu().contiguous(), {})
    try:
        content = build_onnx(subject)
    except Unavailable as error:
        return {}, [str(error)]
    built, missing = {}, []
    for name, precision, build in _builders(content, subject.inputs):
        try:
            answer = build()
        except Unavailable as error:
            missing.append(f"{name}: {error}")
            continue
        check_runtime(subject, answer, name, precision)
        built[name] = Runtime(answer)
    return built, missing


def _builders(content: bytes, images: Tensor) -> Iterator[tuple[str, str, Callable[[], Function]]]:
    """(name of the row, precision, what builds it) of each runtime, from an ONNX file."""
    quickest = choose_precision("auto", torch.device("cpu"))
    source = "the ONNX engine"
    yield "onnxruntime, fp32", "fp32", lambda: OnnxNet(content, source)
    yield f"OpenVINO, {quickest}", quickest, lambda: OpenVino(content, quickest)
    yield "onnxruntime, int8", "int8", lambda: OnnxNet(quantise(content, images), source)
    yield "OpenVINO, int8", "int8", lambda: OpenVino(quantise(content, images), "fp32")
