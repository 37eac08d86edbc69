"""Export formats: each writes a network as a file and compares the file with the network."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from alexnet.data.augment import Preprocess
from alexnet.errors import UsageError
from alexnet.interchange.end_to_end import EndToEnd
from alexnet.interchange.export_check import OnnxNet, check_export
from alexnet.interchange.optional_packages import missing_package, quiet
from alexnet.models.net import Net
from alexnet.records import ExportComparison
from alexnet.runs.weights import parse_weights
from alexnet.support.options import option

OPSET = 20  # of ONNX

CheckedFile = tuple[bytes, ExportComparison]  # the content of a file, and its check


@dataclass(frozen=True)
class Exportable:
    """A module to export, `inputs` for the comparison with its export, and metadata (`about`).

    With preprocessing the module is an `EndToEnd`, from stored images to probabilities. Without, it
    is the network itself, from preprocessed images to logits.
    """

    model: Net
    module: nn.Module
    inputs: Tensor
    about: dict[str, Any]

    @staticmethod
    def of(
        model: Net,
        preprocess: Preprocess,
        images: Tensor,
        about: dict[str, Any],
        with_preprocessing: bool,
    ) -> "Exportable":
        """From a network and stored images, uint8 (N, size, size, C). Moves the network to the CPU,
        and sets it to evaluation mode and to the contiguous memory layout."""
        model = model.cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if with_preprocessing:
            return Exportable(model, EndToEnd(model, preprocess), images, about)
        return Exportable(model, model, preprocess.views(images, 1)[0].contiguous(), about)

    @property
    def input_name(self) -> str:
        return "images"

    @property
    def output_name(self) -> str:
        return "probabilities" if isinstance(self.module, EndToEnd) else "logits"

    @property
    def example(self) -> Tensor:
        """Two inputs, with which exporters trace the module."""
        return self.inputs[torch.arange(2) % len(self.inputs)]


def to_onnx(subject: Exportable) -> CheckedFile:
    """Export to ONNX for any number of images. Raises Differs where the file differs from the
    network, and Unavailable where a package is missing."""
    content, source = build_onnx(subject), "the ONNX file"
    return content, check_export(subject.module, OnnxNet(content, source), subject.inputs, source)


def build_onnx(subject: Exportable) -> bytes:
    """Export to ONNX without the comparison, which needs onnxruntime."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_package(str(error.name)) from None
    with quiet():
        program = torch.onnx.export(
            subject.module,
            (subject.example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[subject.input_name],
            output_names=[subject.output_name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in subject.about.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    return content


def to_torch_export(subject: Exportable) -> CheckedFile:
    """Export to a program for `torch.export.load`, for any number of images."""
    out = io.BytesIO()
    with quiet():
        program = torch.export.export(
            subject.module,
            (subject.example,),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        torch.export.save(program, out)
        loaded = torch.export.load(io.BytesIO(out.getvalue())).module()
    return out.getvalue(), check_export(
        subject.module, loaded, subject.inputs, "the exported program"
    )


def to_safetensors(subject: Exportable) -> CheckedFile:
    """Export the state dict under the network's own names, with the metadata."""
    metadata = {"format": "pt", "alexnet": json.dumps(subject.about)}
    return _check_weights(subject, save(_tensors(subject), metadata), Path("model.safetensors"))


def to_torchvision(subject: Exportable) -> CheckedFile:
    """Export the state dict that `torchvision.models.alexnet` loads."""
    if subject.model.parts["conv1"] != "features.0":
        raise UsageError(
            "torchvision's alexnet is the network of 2014: only a run of model alexnet-2014 can be "
            f"exported to it; use {option('format', 'safetensors')} or onnx"
        )
    out = io.BytesIO()
    torch.save(_tensors(subject), out)
    return _check_weights(subject, out.getvalue(), Path("alexnet.pth"))


Format = Literal["onnx", "safetensors", "torchvision", "torch-export"]
FORMATS: dict[Format, Callable[[Exportable], CheckedFile]] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
    "torchvision": to_torchvision,
    "torch-export": to_torch_export,
}


def _tensors(subject: Exportable) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in subject.model.state_dict().items()}


def _check_weights(subject: Exportable, content: bytes, name: Path) -> CheckedFile:
    tensors = parse_weights(content, name)

    def with_exported_weights(inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(subject.model, tensors, (inputs,))
        return outputs

    return content, check_export(subject.module, with_exported_weights, subject.inputs, str(name))
