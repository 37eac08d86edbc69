"""A network as others are to have it: with its preprocessing and softmax, on torch or ONNX."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data.augment import Preprocess
from alexnet.errors import Differs, Unavailable
from alexnet.models.net import Net

BATCHES = (1, 5, 64)  # sizes at which an export is held against its network
TOLERANCE = 1e-5  # of the largest output, or of 1

Function = Callable[[Tensor], Tensor]


class Chain(nn.Module):
    """Stored images to probabilities: uint8 (N, size, size, C) -> float32 (N, K)."""

    def __init__(self, model: Net, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.crop, self.edge = preprocess.crop, (preprocess.size - preprocess.crop) // 2
        # At one place every rule is a factor and a term, which a black and a white image tell.
        black = torch.zeros(1, preprocess.size, preprocess.size, preprocess.channels)
        term = preprocess.views(black, 1)[0].contiguous()
        self.term: Tensor
        self.factor: Tensor
        self.register_buffer("term", term)
        white = preprocess.views(black + 255, 1)[0].contiguous()
        self.register_buffer("factor", (white - term) / 255)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(1)

    def logits(self, images: Tensor) -> Tensor:
        inside = slice(self.edge, self.edge + self.crop)
        crops = images[:, inside, inside].permute(0, 3, 1, 2).float()
        logits: Tensor = self.model(crops * self.factor + self.term)
        return logits


class OnnxNet:
    """An ONNX file in onnxruntime, on the CPU; called like the module that it came from."""

    def __init__(self, content: bytes, source: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise missing("onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of its own for each fault
            why = " ".join(str(error).split())[:200]
            raise Differs(
                f"{source} does not run in onnxruntime ({why}): export it again"
            ) from None

    def __call__(self, inputs: Tensor) -> Tensor:
        name = self.session.get_inputs()[0].name
        found: Any = self.session.run(None, {name: np.ascontiguousarray(inputs.numpy())})[0]
        return torch.from_numpy(found)


def missing(package: str, extra: str = "onnx") -> Unavailable:
    """The one line about a package that is not installed."""
    return Unavailable(
        f"this needs {package}, which is not installed: pip install 'alexnet[{extra}]'"
    )


@torch.inference_mode()
def check_export(
    network: Function, export: Function, inputs: Tensor, source: str
) -> dict[str, Any]:
    """Holds an export against its network on batches of 1, 5 and 64 inputs.

    Returns the batches, the largest difference and the largest output. Raises Differs where they
    are further apart than TOLERANCE, or rank other classes first. A class may change places with
    one whose output is within that tolerance.
    """
    apart = largest = 0.0
    for n in BATCHES:
        batch = inputs[torch.arange(n) % len(inputs)]
        wanted, found = network(batch), export(batch)
        if found.shape != wanted.shape:
            raise Differs(f"{source}: outputs {tuple(found.shape)}, not {tuple(wanted.shape)}")
        apart = max(apart, float((found - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
        bound = TOLERANCE * max(largest, 1.0)
        k = min(5, wanted.shape[1])
        best = wanted.topk(k).values
        ranked = wanted.gather(1, found.topk(k).indices)
        if not apart <= bound or not ((ranked - best).abs() <= 2 * bound).all():
            raise Differs(
                f"{source} is not what the network computes: {apart:.1e} apart on a batch of {n}, "
                f"at most {bound:.1e} allowed; nothing was written"
            )
    return {"batches": list(BATCHES), "largest_difference": apart, "largest_output": largest}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of exporters and quantisers: operators of torchvision that they miss,
    names that are to change, advice. What they make is measured instead."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
