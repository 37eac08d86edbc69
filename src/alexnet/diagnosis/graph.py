"""The gradient's graph, read to find layers of weights without an activation between them."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from alexnet.diagnosis.tensor_measures import rms

_WEIGHT_NODES = ("ConvolutionBackward", "AddmmBackward", "MmBackward")
_ACTIVATIONS = (
    *("Relu", "Threshold", "LeakyRelu", "Elu", "Celu", "Selu", "Gelu", "Silu", "Mish", "Prelu"),
    *("PreluKernel", "Rrelu", "RreluWithNoise", "Hardswish", "Hardsigmoid", "Hardtanh", "Softplus"),
    *("LogSigmoid", "Tanh", "Sigmoid", "Clamp", "ClampMin", "Maximum", "Where", "Abs", "Exp"),
    *("Softmax", "LogSoftmax", "Sin", "Cos", "Sign", "Softshrink", "Hardshrink", "Pow", "Glu"),
    "NativeLayerNorm",  # divides by a statistic of the image itself
)
# Linear only where one operand is a constant. A sum of two paths is a residual connection.
_TWO_OPERANDS = ("Mul", "Div", "Bmm", "Add", "Sub")


def linear_pairs(loss: Tensor) -> list[tuple[str, str]]:
    """Pairs (earlier, later) of layers with weights and no activation between them, by kind.

    Pooling and normalisation are no activations. Convolutions of one pixel do not count: good
    networks use one after another to widen or narrow. A custom autograd function counts as an
    activation, unless its output is as negative as that of a linear layer.
    """
    pairs = []
    for node in _nodes(loss.grad_fn):
        if kind_of(node) not in _WEIGHT_NODES or not _mixes_pixels(node):
            continue
        pending, visited = [_input_node(node)], set()
        while pending:
            before = pending.pop()
            if before is None or before in visited:
                continue
            visited.add(before)
            kind = kind_of(before)
            inputs = [n for n, _ in before.next_functions if n and not _is_leaf(n)]
            name = kind.removesuffix("Backward")
            is_activation = (
                name in _ACTIVATIONS
                or name.startswith("ScaledDotProduct")
                or (name in _TWO_OPERANDS and len(inputs) > 1)
            )
            if kind in _WEIGHT_NODES:
                if _mixes_pixels(before) and not _is_bottleneck(before, node):
                    pairs.append((kind, kind_of(node)))
            elif is_activation:
                continue
            elif not isinstance(before, BackwardCFunction) or _has_negative_input(node):
                pending += inputs
    return pairs


def _nodes(start: Any) -> Iterator[Any]:
    """Every node of the graph, from the loss to the leaves."""
    pending, visited = [start], set()
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        yield node
        pending += [n for n, _ in node.next_functions]


def kind_of(node: Any) -> str:
    """The operation of a node without its version, as ConvolutionBackward of ...Backward0."""
    return str(type(node).__name__).rstrip("0123456789")


def _is_leaf(node: Any) -> bool:
    return kind_of(node) == "AccumulateGrad"


def _input_node(node: Any) -> Any:
    """The node that computed the input of a layer with weights."""
    operand = 1 if kind_of(node) == "AddmmBackward" else 0
    return node.next_functions[operand][0]


def _mixes_pixels(node: Any) -> bool:
    """Whether it is fully connected, or a convolution of several pixels that is not depthwise."""
    if kind_of(node) != "ConvolutionBackward":
        return True
    weight = node._saved_weight
    depthwise = node._saved_groups > 1 and weight.shape[1] == 1
    return int(weight[0, 0].numel()) > 1 and not depthwise


def _is_bottleneck(before: Any, after: Any) -> bool:
    """Whether two fully connected layers form a product of low rank, as adapters do."""
    if "Convolution" in kind_of(before) or "Convolution" in kind_of(after):
        return False
    width_in, width_between = getattr(before, "_saved_mat2_sym_sizes", (0, 0))
    _, width_out = getattr(after, "_saved_mat2_sym_sizes", (0, 0))
    return int(width_between) < min(int(width_in), int(width_out))


def _has_negative_input(node: Any) -> bool:
    """Whether the input of a layer with weights has values below half of its negative rms."""
    name = "_saved_input" if kind_of(node) == "ConvolutionBackward" else "_saved_mat1"
    saved = getattr(node, name, None)
    if not isinstance(saved, Tensor):
        saved = getattr(node, "_saved_self", None)
    return isinstance(saved, Tensor) and float(saved.detach().min()) < -0.5 * rms(saved)
