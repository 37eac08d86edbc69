"""What stands between two layers of weights, read from the graph of the gradient."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from alexnet.diagnosis.sizes import rms

_WEIGHT_NODES = ("ConvolutionBackward", "AddmmBackward", "MmBackward")
_ACTIVATIONS = (
    *("Relu", "Threshold", "LeakyRelu", "Elu", "Celu", "Selu", "Gelu", "Silu", "Mish", "Prelu"),
    *("PreluKernel", "Rrelu", "RreluWithNoise", "Hardswish", "Hardsigmoid", "Hardtanh", "Softplus"),
    *("LogSigmoid", "Tanh", "Sigmoid", "Clamp", "ClampMin", "Maximum", "Where", "Abs", "Exp"),
    *("Softmax", "LogSoftmax", "Sin", "Cos", "Sign", "Softshrink", "Hardshrink", "Pow", "Glu"),
    "NativeLayerNorm",  # divides by what the image itself has
)
# Linear only where one side is a constant; a sum of two paths is how a residual network is built.
_TWO_SIDED = ("Mul", "Div", "Bmm", "Add", "Sub")


def linear_pairs(loss: Tensor) -> list[tuple[str, str]]:
    """Layers of weights without an activation between them, (earlier, later) by kind.

    Pooling and normalisation are no activations. Of convolutions only those of more than one pixel
    count: a 1x1 after another is how some good networks widen and narrow. What somebody's own
    function does is not known: it counts as an activation unless what comes out is as negative as
    what a linear layer gives.
    """
    found = []
    for node in _nodes(loss.grad_fn):
        if kind_of(node) not in _WEIGHT_NODES or not _is_wide(node):
            continue
        todo, done = [_input_of(node)], set()
        while todo:
            before = todo.pop()
            if before is None or before in done:
                continue
            done.add(before)
            kind = kind_of(before)
            inputs = [n for n, _ in before.next_functions if n and not _is_leaf(n)]
            name = kind.removesuffix("Backward")
            blocked = (
                name in _ACTIVATIONS
                or name.startswith("ScaledDotProduct")
                or (name in _TWO_SIDED and len(inputs) > 1)
            )
            if kind in _WEIGHT_NODES:
                if _is_wide(before) and not _is_bottleneck(before, node):
                    found.append((kind, kind_of(node)))
            elif blocked:
                continue
            elif not isinstance(before, BackwardCFunction) or _is_negative(node):
                todo += inputs
    return found


def _nodes(start: Any) -> Iterator[Any]:
    todo, done = [start], set()
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        yield node
        todo += [n for n, _ in node.next_functions]


def kind_of(node: Any) -> str:
    return str(type(node).__name__).rstrip("0123456789")


def _is_leaf(node: Any) -> bool:
    return kind_of(node) == "AccumulateGrad"


def _input_of(node: Any) -> Any:
    """The node that made what a layer's weights are multiplied with."""
    place = 1 if kind_of(node) == "AddmmBackward" else 0
    return node.next_functions[place][0]


def _is_wide(node: Any) -> bool:
    if kind_of(node) != "ConvolutionBackward":
        return True
    weight = node._saved_weight
    depthwise = node._saved_groups > 1 and weight.shape[1] == 1
    return int(weight[0, 0].numel()) > 1 and not depthwise


def _is_bottleneck(before: Any, after: Any) -> bool:
    """Whether two fully connected layers make a product of low rank, as adapters are."""
    if "Convolution" in kind_of(before) or "Convolution" in kind_of(after):
        return False
    given, middle = getattr(before, "_saved_mat2_sym_sizes", (0, 0))
    _, out = getattr(after, "_saved_mat2_sym_sizes", (0, 0))
    return int(middle) < min(int(given), int(out))


def _is_negative(node: Any) -> bool:
    name = "_saved_input" if kind_of(node) == "ConvolutionBackward" else "_saved_mat1"
    given = getattr(node, name, None)
    if not isinstance(given, Tensor):
        given = getattr(node, "_saved_self", None)
    return isinstance(given, Tensor) and float(given.detach().min()) < -0.5 * rms(given)
