"""Weights from elsewhere: a safetensors file, or a torch file read as tensors alone."""

import io
import pickle
from pathlib import Path

import torch
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.files import read_bytes
from alexnet.store.checkpoint import unpack_tensors

SIZE_LIMIT = 4 * 2**30
"""Largest weight file read, in bytes; the largest AlexNet's takes 250 million."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, on the CPU: .safetensors, or what `torch.save` wrote.

    A torch file is read with `weights_only`, which builds tensors and executes nothing. The state
    dict may lie inside, under `state_dict` or `model`, and its names may start with `module.`.
    Raises CheckpointError for what is missing, too large, damaged or anything else.
    """
    data = read_bytes(path, SIZE_LIMIT)
    if path.suffix == ".safetensors":
        return unpack_tensors(data, path)
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is no file of weights: it holds more than tensors, or torch did not write it; "
            "save its state dict alone, or name a .safetensors file"
        ) from None
    # A damaged file raises nearly anything.
    except Exception as error:
        why = " ".join(str(error).split()).partition(". ")[0] or "it is empty"
        raise CheckpointError(
            f"{path} is no file of weights, or damaged ({why}): get it again"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors = found.items() if isinstance(found, dict) else []
    named = {str(k).removeprefix("module."): v for k, v in tensors if isinstance(v, Tensor)}
    if not named:
        raise CheckpointError(f"{path} holds no state dict: name a file of weights")
    for name, tensor in named.items():
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: {name} is {tensor.type()}, and weights are plain floats"
            )
    return named
