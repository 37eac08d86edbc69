"""Layers in the files of other systems: Caffe's, read by a protobuf library, and ONNX.

Nothing in a file is run. N images, groups as in torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from alexnet.errors import CheckpointError
from alexnet.files import read_bytes
from alexnet.interchange.chain import missing_package
from alexnet.models.net import Net
from alexnet.options import option

ONNX_EPSILON = 1e-5  # of a batch norm that does not say its own
SIZE_LIMIT = 2**31 - 1  # of a protobuf message, bytes


@dataclass(frozen=True)
class ForeignLayer:
    """A convolution (out, in / groups, k, k) or a fully connected layer (out, in)."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int = 1


@dataclass(frozen=True)
class ForeignNorm:
    """A batch norm: scale, shift, mean and variance of each channel (C,)."""

    name: str
    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


# Field numbers of caffe.proto. Packed floats have the same bytes as a byte string, which is read
# two hundred times as fast.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "BlobShape": {"dim": (1, "int64s")},
    "BlobProto": {
        "num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"),
        "width": (4, "int32"), "data": (5, "bytess"), "shape": (7, "BlobShape"),
        "double_data": (8, "bytess"),
    },
    "ConvolutionParameter": {"group": (5, "int32")},
    "LayerParameter": {
        "name": (1, "string"), "type": (2, "string"), "blobs": (7, "BlobProtos"),
        "convolution_param": (106, "ConvolutionParameter"),
    },
    "V1LayerParameter": {
        "name": (4, "string"), "type": (5, "int32"), "blobs": (6, "BlobProtos"),
        "convolution_param": (10, "ConvolutionParameter"),
    },
    "NetParameter": {
        "name": (1, "string"), "layers": (2, "V1LayerParameters"),
        "layer": (100, "LayerParameters"),
    },
}  # fmt: skip
_KINDS = {"Convolution": "conv", "InnerProduct": "fc", 4: "conv", 14: "fc"}


@cache
def _caffe() -> Mapping[str, Any]:
    """The message classes, made from the table above."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise missing_package("protobuf") from None
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    kind = descriptor_pb2.FieldDescriptorProto
    types = {"int32": kind.TYPE_INT32, "int64": kind.TYPE_INT64, "string": kind.TYPE_STRING}
    types["bytes"] = kind.TYPE_BYTES
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, (number, said) in fields.items():
            many = said.endswith("s") and said != "bytes"
            said = said[:-1] if many else said
            field = made.field.add(name=name, number=number)
            field.label = kind.LABEL_REPEATED if many else kind.LABEL_OPTIONAL
            field.type = types.get(said, kind.TYPE_MESSAGE)
            if said not in types:
                field.type_name = f".caffe.{said}"
            field.options.packed = said == "int64"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in _MESSAGES
    }


def read_caffemodel(path: Path) -> list[ForeignLayer]:
    """The layers with weights of a .caffemodel, in order; colours are as in the file (BGR)."""
    net = _parse(path, "NetParameter")
    found = []
    for layer in [*net.layers, *net.layer]:
        kind = _KINDS.get(layer.type)
        if kind is None or not layer.blobs:
            continue
        weight, *rest = (_blob(path, layer.name, blob) for blob in layer.blobs)
        weight = weight.flatten(0, -2) if kind == "fc" else weight
        bias = rest[0].flatten() if rest else None
        found.append(ForeignLayer(layer.name, weight, bias, layer.convolution_param.group or 1))
    if not found:
        raise CheckpointError(f"{path} holds no weights: it is no .caffemodel, or another one")
    return found


def read_caffe_mean(path: Path) -> Tensor:
    """A mean image as Caffe keeps it (.binaryproto) -> float32 (H, W, 3), RGB."""
    image = _blob(path, "mean", _parse(path, "BlobProto")).squeeze(0)
    if image.dim() != 3 or len(image) != 3 or image.shape[1] != image.shape[2]:
        raise CheckpointError(f"{path}: a mean image of {tuple(image.shape)}, not (3, side, side)")
    return image.flip(0).permute(1, 2, 0).contiguous()


def _parse(path: Path, message: str) -> Any:
    found = _caffe()[message]()
    try:
        found.ParseFromString(read_bytes(path, SIZE_LIMIT))
    except CheckpointError:
        raise
    except Exception as error:  # the library's own class differs between its builds
        raise CheckpointError(
            f"{path} is damaged, or not of Caffe ({error}): get it again"
        ) from None
    return found


def _blob(path: Path, name: str, blob: Any) -> Tensor:
    data = np.frombuffer(b"".join(blob.data), "<f4") if blob.data else None
    if data is None:
        data = np.frombuffer(b"".join(blob.double_data), "<f8").astype(np.float32)
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if min(shape) < 1 or int(np.prod(shape, dtype=object)) != len(data):
        raise CheckpointError(
            f"{path}: {name} holds {len(data):,} numbers and says {shape}: get it again"
        )
    return torch.from_numpy(data.reshape(shape).astype(np.float32))


def read_onnx(path: Path) -> list[ForeignLayer | ForeignNorm]:
    """The convolutions, fully connected layers and batch norms of an ONNX graph in its order.

    Exporters make a batch norm part of a layer right before it, and then it is not among them.
    """
    try:
        import onnx
    except ImportError:
        raise missing_package("onnx") from None
    content = read_bytes(path, SIZE_LIMIT)
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception:
        raise CheckpointError(f"{path} is damaged, or no ONNX: get it again") from None
    values = {value.name: value for value in graph.initializer}

    def tensor(name: str) -> Tensor | None:
        if name not in values:
            return None
        if values[name].data_location == onnx.TensorProto.EXTERNAL:
            raise CheckpointError(f"{path}: its weights are in another file: save it as one")
        try:
            array = onnx.numpy_helper.to_array(values[name])
        except Exception:
            raise CheckpointError(f"{path}: {name} is damaged: get it again") from None
        return torch.from_numpy(np.array(array, np.float32))

    found: list[ForeignLayer | ForeignNorm] = []
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            parts = [one for name in node.input[1:5] if (one := tensor(name)) is not None]
            if len(parts) != 4:
                raise CheckpointError(
                    f"{path}: the numbers of {node.name or 'a batch norm'} are not in the file: "
                    "export it again, in evaluation mode"
                )
            epsilon = {a.name: a.f for a in node.attribute}.get("epsilon", ONNX_EPSILON)
            name = node.input[1].removesuffix(".weight")
            scale, shift, mean, variance = parts
            found.append(ForeignNorm(name, scale, shift, mean, variance, epsilon))
            continue
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
            continue
        numbers = {a.name: a.i for a in node.attribute}
        weight = tensor(node.input[1])
        if weight is None:
            raise CheckpointError(
                f"{path}: the weights of {node.name or node.op_type} are worked out when it runs "
                "(quantised?): import the fp32 file"
            )
        if node.op_type == "Gemm" and not numbers.get("transB"):
            weight = weight.T.contiguous()
        bias = tensor(node.input[2]) if len(node.input) > 2 else None
        name = node.input[1].removesuffix(".weight").removesuffix("_w_0")
        found.append(ForeignLayer(name, weight, bias, numbers.get("group", 1)))
    if not any(isinstance(one, ForeignLayer) for one in found):
        raise CheckpointError(f"{path} has no convolution or fully connected layer with weights")
    return found


def match_layers(
    given: Sequence[ForeignLayer | ForeignNorm], model: Net, path: Path, *, bgr: bool
) -> dict[str, Tensor]:
    """The state dict of a network from layers and batch norms in its order. With `bgr` the colours
    of the first are turned round. A batch norm that the file has made part of the layer before it
    becomes one that changes nothing. CheckpointError names the first that does not fit."""
    layers = [one for one in given if isinstance(one, ForeignLayer)]
    if len(layers) != len(model.layers):
        raise CheckpointError(
            f"{path} has {len(layers)} layers ({', '.join(x.name for x in layers)}) and the "
            f"network {len(model.layers)}: name its own with {option('as')}"
        )
    found: dict[str, Tensor] = {}
    rest = list(given)
    for name, prefix in model.parts.items():
        part = model.part(name)
        if isinstance(part, _BatchNorm):
            norm = rest[0] if rest and isinstance(rest[0], ForeignNorm) else None
            rest = rest[1:] if norm else rest
            found |= {f"{prefix}.{k}": v for k, v in _norm(part, norm, name, path).items()}
        elif name in model.layers:
            if isinstance(rest[0], ForeignNorm):
                raise CheckpointError(
                    f"{path} has a batch norm {rest[0].name} before {name}, where the network has "
                    f"none: name another network with {option('as')}"
                )
            first = bgr and name == model.layers[0]
            weights = _layer(part, rest.pop(0), name, path, turn=first)
            found |= {f"{prefix}.{k}": v for k, v in weights.items()}
    if rest:
        raise CheckpointError(
            f"{path} has a batch norm {rest[0].name} after its last layer, and the network none: "
            f"name another network with {option('as')}"
        )
    return found


def _layer(
    part: nn.Module, given: ForeignLayer | ForeignNorm, name: str, path: Path, *, turn: bool
) -> dict[str, Tensor]:
    own = part.get_parameter("weight")
    groups = getattr(part, "groups", 1)
    assert isinstance(given, ForeignLayer)
    if given.weight.shape != own.shape or given.groups != groups:
        raise CheckpointError(
            f"{path}: {given.name} is {tuple(given.weight.shape)} in {given.groups} group(s) "
            f"and {name} takes {tuple(own.shape)} in {groups}: name another network with "
            f"{option('as')}"
        )
    bias = given.bias if given.bias is not None else torch.zeros(own.shape[0])
    if part.get_parameter("weight").shape[0] != bias.numel():
        raise CheckpointError(f"{path}: {given.name} has {bias.numel()} biases: get it again")
    weight = given.weight.flip(1) if turn else given.weight
    return {"weight": weight, "bias": bias.reshape(-1)}


def _norm(part: _BatchNorm, given: ForeignNorm | None, name: str, path: Path) -> dict[str, Tensor]:
    width, eps = part.num_features, part.eps
    if given is None:
        one = torch.ones(width)
        given = ForeignNorm(name, one, torch.zeros(width), torch.zeros(width), one - eps, eps)
    values = {
        "weight": given.weight, "bias": given.bias, "running_mean": given.mean,
        "running_var": given.variance + given.epsilon - eps,
    }  # fmt: skip
    for value in values.values():
        if value.shape != (width,):
            raise CheckpointError(
                f"{path}: {given.name} is of {value.numel()} channels and {name} of {width}: name "
                f"another network with {option('as')}"
            )
    return values
