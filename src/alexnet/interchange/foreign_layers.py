"""Layers of networks in Caffe and ONNX files, read and matched with a network of this package.

Reading executes nothing from a file. Groups are as in torch.
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
from alexnet.interchange.optional_packages import missing_package
from alexnet.models.net import Net
from alexnet.support.files import read_bytes
from alexnet.support.options import option

ONNX_EPSILON = 1e-5  # the default of a batch norm
SIZE_LIMIT = 2**31 - 1  # of a protobuf message, in bytes


@dataclass(frozen=True)
class ForeignLayer:
    """The weights of a convolution (out, in / groups, k, k) or fully connected layer (out, in)."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int = 1


@dataclass(frozen=True)
class ForeignNorm:
    """A batch norm: scale, shift, mean and variance, each of the shape (channels,)."""

    name: str
    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


# The field numbers and types of caffe.proto; an s at the end of a type means that it repeats.
# Packed floats are declared as byte strings: the bytes are the same, and reading them is two
# hundred times as fast.
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
    """The protobuf classes of the messages in the table above."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise missing_package("protobuf") from None
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    proto = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "int32": proto.TYPE_INT32,
        "int64": proto.TYPE_INT64,
        "string": proto.TYPE_STRING,
        "bytes": proto.TYPE_BYTES,
    }
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, declared) in fields.items():
            repeats = declared.endswith("s") and declared != "bytes"
            kind = declared[:-1] if repeats else declared
            field = descriptor.field.add(name=name, number=number)
            field.label = proto.LABEL_REPEATED if repeats else proto.LABEL_OPTIONAL
            field.type = scalars.get(kind, proto.TYPE_MESSAGE)
            if kind not in scalars:
                field.type_name = f".caffe.{kind}"
            field.options.packed = kind == "int64"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in _MESSAGES
    }


def read_caffemodel(path: Path) -> list[ForeignLayer]:
    """Read the layers with weights of a .caffemodel, in order. The order of colours stays BGR."""
    net = _parse(path, "NetParameter")
    layers = []
    for layer in [*net.layers, *net.layer]:
        kind = _KINDS.get(layer.type)
        if kind is None or not layer.blobs:
            continue
        weight, *biases = (_read_blob(path, layer.name, blob) for blob in layer.blobs)
        weight = weight.flatten(0, -2) if kind == "fc" else weight
        bias = biases[0].flatten() if biases else None
        layers.append(ForeignLayer(layer.name, weight, bias, layer.convolution_param.group or 1))
    if not layers:
        raise CheckpointError(f"{path} holds no layer with weights: name another .caffemodel")
    return layers


def read_caffe_mean(path: Path) -> Tensor:
    """Read a mean image of Caffe (.binaryproto): float32 (H, W, 3), RGB."""
    image = _read_blob(path, "mean", _parse(path, "BlobProto")).squeeze(0)
    if image.dim() != 3 or len(image) != 3 or image.shape[1] != image.shape[2]:
        raise CheckpointError(
            f"{path}: its mean image is {tuple(image.shape)}, expected (3, side, side)"
        )
    return image.flip(0).permute(1, 2, 0).contiguous()


def _parse(path: Path, message: str) -> Any:
    """Read a file that holds one message of a type in _MESSAGES."""
    content, parsed = read_bytes(path, SIZE_LIMIT), _caffe()[message]()
    try:
        parsed.ParseFromString(content)
    except Exception as error:  # the class of its error differs between builds of protobuf
        raise CheckpointError(
            f"{path} is damaged, or not of Caffe ({error}): get it again"
        ) from None
    return parsed


def _read_blob(path: Path, name: str, blob: Any) -> Tensor:
    data = np.frombuffer(b"".join(blob.data), "<f4") if blob.data else None
    if data is None:
        data = np.frombuffer(b"".join(blob.double_data), "<f8").astype(np.float32)
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if min(shape) < 1 or int(np.prod(shape, dtype=object)) != len(data):
        raise CheckpointError(
            f"{path}: {name} has {len(data):,} numbers, and its shape is {shape}: get it again"
        )
    return torch.from_numpy(data.reshape(shape).astype(np.float32))


def read_onnx(path: Path) -> list[ForeignLayer | ForeignNorm]:
    """Read the convolutions, fully connected layers and batch norms of an ONNX graph, in order.

    Exporters often fold a batch norm into the layer before it; then the graph has no such norm.
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
            raise CheckpointError(f"{path}: its weights are in another file: save both as one file")
        try:
            array = onnx.numpy_helper.to_array(values[name])
        except Exception:
            raise CheckpointError(f"{path}: {name} is damaged: get it again") from None
        return torch.from_numpy(np.array(array, np.float32))

    layers: list[ForeignLayer | ForeignNorm] = []
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            tensors = [one for name in node.input[1:5] if (one := tensor(name)) is not None]
            if len(tensors) != 4:
                raise CheckpointError(
                    f"{path}: the weights of {node.name or 'a batch norm'} are not in the file: "
                    "export it again, in evaluation mode"
                )
            epsilon = {a.name: a.f for a in node.attribute}.get("epsilon", ONNX_EPSILON)
            name = node.input[1].removesuffix(".weight")
            scale, shift, mean, variance = tensors
            layers.append(ForeignNorm(name, scale, shift, mean, variance, epsilon))
            continue
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
            continue
        attributes = {a.name: a.i for a in node.attribute}
        weight = tensor(node.input[1])
        if weight is None:
            raise CheckpointError(
                f"{path}: the weights of {node.name or node.op_type} are computed when it runs, as "
                "in a quantised file: import the fp32 file"
            )
        if node.op_type == "Gemm" and not attributes.get("transB"):
            weight = weight.T.contiguous()
        bias = tensor(node.input[2]) if len(node.input) > 2 else None
        name = node.input[1].removesuffix(".weight").removesuffix("_w_0")
        layers.append(ForeignLayer(name, weight, bias, attributes.get("group", 1)))
    if not any(isinstance(layer, ForeignLayer) for layer in layers):
        raise CheckpointError(
            f"{path} has no convolution or fully connected layer with weights: name another file"
        )
    return layers


def match_layers(
    foreign: Sequence[ForeignLayer | ForeignNorm], model: Net, path: Path, *, bgr: bool
) -> dict[str, Tensor]:
    """The state dict of `model` with the weights of layers and batch norms in its order.

    With `bgr` the input channels of the first layer are reversed. Where a norm was folded into the
    layer before it, the network's norm becomes the identity. Raises CheckpointError, which names
    the first layer that does not fit.
    """
    layers = [layer for layer in foreign if isinstance(layer, ForeignLayer)]
    if len(layers) != len(model.layers):
        raise CheckpointError(
            f"{path} has {len(layers)} layers ({', '.join(layer.name for layer in layers)}) and "
            f"the network {len(model.layers)}: name its own with {option('as')}"
        )
    state_dict: dict[str, Tensor] = {}
    remaining = list(foreign)
    for name, prefix in model.parts.items():
        part = model.part(name)
        if isinstance(part, _BatchNorm):
            norm = remaining[0] if remaining and isinstance(remaining[0], ForeignNorm) else None
            remaining = remaining[1:] if norm else remaining
            weights = _match_norm(part, norm, name, path)
        elif name in model.layers:
            layer = remaining.pop(0)
            if isinstance(layer, ForeignNorm):
                raise CheckpointError(
                    f"{path} has a batch norm {layer.name} before {name}, where the network has "
                    f"none: name another network with {option('as')}"
                )
            reverse_channels = bgr and name == model.layers[0]
            weights = _match_layer(part, layer, name, path, reverse_channels=reverse_channels)
        else:
            continue
        state_dict |= {f"{prefix}.{key}": value for key, value in weights.items()}
    if remaining:
        raise CheckpointError(
            f"{path} has a batch norm {remaining[0].name} after its last layer, and the network "
            f"has none: name another network with {option('as')}"
        )
    return state_dict


def _match_layer(
    part: nn.Module, layer: ForeignLayer, name: str, path: Path, *, reverse_channels: bool
) -> dict[str, Tensor]:
    shape = part.get_parameter("weight").shape
    groups = getattr(part, "groups", 1)
    if layer.weight.shape != shape or layer.groups != groups:
        raise CheckpointError(
            f"{path}: {layer.name} is {tuple(layer.weight.shape)} in {layer.groups} group(s) "
            f"and {name} takes {tuple(shape)} in {groups}: name another network with {option('as')}"
        )
    bias = layer.bias if layer.bias is not None else torch.zeros(shape[0])
    if bias.numel() != shape[0]:
        raise CheckpointError(
            f"{path}: {layer.name} has {bias.numel()} biases, expected {shape[0]}: get it again"
        )
    weight = layer.weight.flip(1) if reverse_channels else layer.weight
    return {"weight": weight, "bias": bias.reshape(-1)}


def _match_norm(
    part: _BatchNorm, norm: ForeignNorm | None, name: str, path: Path
) -> dict[str, Tensor]:
    """The state of a batch norm; without a foreign one, of a norm that changes nothing."""
    channels, eps = part.num_features, part.eps
    if norm is None:
        ones, zeros = torch.ones(channels), torch.zeros(channels)
        norm = ForeignNorm(name, ones, zeros, zeros, ones - eps, eps)
    values = {
        "weight": norm.weight,
        "bias": norm.bias,
        "running_mean": norm.mean,
        "running_var": norm.variance + norm.epsilon - eps,
    }
    for value in values.values():
        if value.shape != (channels,):
            raise CheckpointError(
                f"{path}: {norm.name} has {value.numel()} channels, and {name} has {channels}: "
                f"name another network with {option('as')}"
            )
    return values
