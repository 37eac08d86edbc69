"""Files of weights: safetensors, and files of torch, read without executing any code."""

import argparse
import io
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.runs.checkpoint import unpack_tensors
from alexnet.support.files import read_bytes

SIZE_LIMIT = 4 * 2**30
"""Largest file of weights that is read, in bytes; the largest AlexNet has 250 million."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file, to the CPU: .safetensors, or a file of `torch.save`.

    A torch file is read with `weights_only`, which builds tensors and executes nothing. Its state
    dict may be the value of `state_dict` or `model`, with options of the training beside it.
    `module.` is removed from the names. Raises CheckpointError where the file is missing, too
    large, damaged, or has no weights.
    """
    return parse_weights(read_bytes(path, SIZE_LIMIT), path)


def parse_weights(data: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict in the content of a file; the suffix of `path` says the format."""
    if path.suffix == ".safetensors":
        return {_unwrapped(name): x for name, x in unpack_tensors(data, path).items()}
    try:
        # torchvision's training scripts save their options as a Namespace of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is no file of weights: it holds more than tensors, or torch did not write it; "
            "save its state dict alone, or name a .safetensors file"
        ) from None
    except Exception as error:  # damaged files raise exceptions of many kinds
        why = " ".join(str(error).split()).partition(". ")[0] or "it is empty"
        raise CheckpointError(
            f"{path} is no file of weights, or damaged ({why}): get it again"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    values = content.items() if isinstance(content, dict) else []
    tensors = {_unwrapped(str(name)): t for name, t in values if isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no state dict: name a file of weights")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: {name} is {tensor.type()}, and weights are plain floats"
            )
    return tensors


def _unwrapped(name: str) -> str:
    """The name of a parameter without DataParallel's prefix. pytorch/examples wraps the whole
    network, or only the features of an AlexNet."""
    return name.removeprefix("module.").replace(".module.", ".")
