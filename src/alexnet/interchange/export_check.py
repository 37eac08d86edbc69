"""The check of an export: its outputs compared with those of the network itself."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.errors import Differs
from alexnet.interchange.end_to_end import Function
from alexnet.interchange.optional_packages import missing_package
from alexnet.records import ExportComparison

BATCHES = (1, 5, 64)  # batch sizes of the comparison
TOLERANCE = 1e-5  # relative to the largest output, or to 1 where that is larger


class OnnxNet:
    """An ONNX file in onnxruntime, on the CPU, called like the module that it came from."""

    def __init__(self, content: bytes, source: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise missing_package("onnxruntime") from None
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
        outputs: Any = self.session.run(None, {name: np.ascontiguousarray(inputs.numpy())})[0]
        return torch.from_numpy(outputs)


@torch.inference_mode()
def check_export(
    network: Function, export: Function, inputs: Tensor, source: str
) -> ExportComparison:
    """Compare an export with its network on batches of 1, 5 and 64 inputs.

    Raises Differs where a difference is above TOLERANCE, or where the five best
    classes differ; classes whose outputs differ by less than the tolerance may change places.
    `source` names the export in messages.
    """
    difference = largest = 0.0
    for n in BATCHES:
        batch = inputs[torch.arange(n) % len(inputs)]
        expected, outputs = network(batch), export(batch)
        if outputs.shape != expected.shape:
            raise Differs(
                f"{source}: outputs {tuple(outputs.shape)}, expected {tuple(expected.shape)}"
            )
        difference = max(difference, float((outputs - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
        bound = TOLERANCE * max(largest, 1.0)
        k = min(5, expected.shape[1])
        best = expected.topk(k).values
        ranked = expected.gather(1, outputs.topk(k).indices)
        if not difference <= bound or not ((ranked - best).abs() <= 2 * bound).all():
            raise Differs(
                f"{source} is not what the network computes: {difference:.1e} apart on a batch of "
                f"{n}, at most {bound:.1e} allowed; nothing was written"
            )
    return ExportComparison(batches=BATCHES, largest_difference=difference, largest_output=largest)
