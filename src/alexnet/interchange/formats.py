"""A network as the content of a file of another format, held against the network itself."""

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
from alexnet.interchange.chain import Chain, OnnxNet, check_export, missing_package, quiet
from alexnet.models.net import Net
from alexnet.options import option
from alexnet.runs.weights import parse_weights

OPSET = 20

Written = tuple[bytes, dict[str, Any]]  # the file, and what `check_export` found


@dataclass(frozen=True)
class Exportable:
    """What is exported: a module, inputs to hold the export against, and what travels along.

    The module is a `Chain` where the preprocessing goes inside, and takes stored images; else the
    network alone, which takes them preprocessed and gives logits.
    """

    model: Net
    module: nn.Module
    inputs: Tensor
    about: dict[str, Any]

    @staticmethod
    def of(
        model: Net, preprocess: Preprocess, images: Tensor, about: dict[str, Any], inside: bool
    ) -> "Exportable":
        """From a network and stored images, uint8 (N, size, size, C). The network is brought to
        the CPU, into evaluation and into the plain memory layout."""
        model = model.cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if inside:
            return Exportable(model, Chain(model, preprocess), images, about)
        return Exportable(model, model, preprocess.views(images, 1)[0].contiguous(), about)

    @property
    def names(self) -> tuple[str, str]:
        """Of the input and the output."""
        return "images", "probabilities" if isinstance(self.module, Chain) else "logits"

    @property
    def example(self) -> Tensor:
        return self.inputs[torch.arange(2) % len(self.inputs)]


def to_onnx(subject: Exportable) -> Written:
    """ONNX for any number of images. Raises Differs, and Unavailable without its packages."""
    content, source = make_onnx(subject), "the ONNX file"
    return content, check_export(subject.module, OnnxNet(content, source), subject.inputs, source)


def make_onnx(subject: Exportable) -> bytes:
    """The same, not yet held against the network: without onnxruntime."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_package(str(error.name)) from None
    given, found = subject.names
    with quiet():
        program = torch.onnx.export(
            subject.module,
            (subject.example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[given],
            output_names=[found],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in subject.about.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    return content


def to_torch_export(subject: Exportable) -> Written:
    """A program that `torch.export.load` reads, for any number of images."""
    out = io.BytesIO()
    with quiet():
        program = torch.export.export(
            subject.module,
            (subject.example,),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        torch.export.save(program, out)
        again = torch.export.load(io.BytesIO(out.getvalue())).module()
    return out.getvalue(), check_export(
        subject.module, again, subject.inputs, "the exported program"
    )


def to_safetensors(subject: Exportable) -> Written:
    """The state dict under the network's own names; what travels along is its metadata."""
    metadata = {"format": "pt", "alexnet": json.dumps(subject.about)}
    return _weights(subject, save(_tensors(subject), metadata), Path("model.safetensors"))


def to_torchvision(subject: Exportable) -> Written:
    """The state dict that `torchvision.models.alexnet` loads."""
    if subject.model.parts["conv1"] != "features.0":
        raise UsageError(
            "torchvision's alexnet is the one of 2014: only a run of model alexnet-2014 can be "
            f"written for it; use {option('format', 'safetensors')} or onnx"
        )
    out = io.BytesIO()
    torch.save(_tensors(subject), out)
    return _weights(subject, out.getvalue(), Path("alexnet.pth"))


Format = Literal["onnx", "safetensors", "torchvision", "torch-export"]
FORMATS: dict[Format, Callable[[Exportable], Written]] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
    "torchvision": to_torchvision,
    "torch-export": to_torch_export,
}


def _tensors(subject: Exportable) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in subject.model.state_dict().items()}


def _weights(subject: Exportable, content: bytes, name: Path) -> Written:
    tensors = parse_weights(content, name)

    def again(inputs: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(subject.model, tensors, (inputs,))
        return found

    return content, check_export(subject.model, again, subject.inputs, str(name))
