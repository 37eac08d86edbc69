"""Weights from elsewhere: a safetensors file, or a torch file read as tensors alone."""

import argparse
import io
import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.files import read_bytes
from alexnet.runs.checkpoint import unpack_tensors

SIZE_LIMIT = 4 * 2**30
"""Largest weight file read, in bytes; the largest AlexNet's takes 250 million."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, on the CPU: .safetensors, or what `torch.save` wrote.

    A torch file is read with `weights_only`, which builds tensors and executes nothing. The state
    dict may lie inside, under `state_dict` or `model`, beside the options it was trained with, and
    `module.` is taken out of its names. Raises CheckpointError for what is missing, too large,
    damaged or anything else.
    """
    return parse_weights(read_bytes(path, SIZE_LIMIT), path)


def parse_weights(data: bytes, path: Path) -> dict[str, Tensor]:
    """The same of the content of a file that is, or would be, at `path`."""
    if path.suffix == ".safetensors":
        return unpack_tensors(data, path)
    try:
        # torchvision's references keep their options as a Namespace, which is a table of values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol: it reads or fails
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
    # pytorch/examples wraps all of a network, or of an AlexNet its features alone.
    named = {_unwrapped(str(k)): v for k, v in tensors if isinstance(v, Tensor)}
    if not named:
        raise CheckpointError(f"{path} holds no state dict: name a file of weights")
    for name, tensor in named.items():
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: {name} is {tensor.type()}, and weights are plain floats"
            )
    return named


def _unwrapped(name: str) -> str:
    return name.removeprefix("module.").replace(".module.", ".")
