"""Signal propagation: what each layer of a network does to one batch and to its gradient.

Layers are the modules that contain no other modules, in the order in which they are called.
Shapes: N images, K classes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.diagnosis.graph import kind_of, linear_pairs
from alexnet.diagnosis.modes import evaluation_mode, training_mode
from alexnet.diagnosis.tensor_measures import dead_share, image_signal, rms
from alexnet.records import LayerSignals

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits (N, K), labels (N,)) -> a number

SILENT = 0.9  # share of dead inputs above which a layer is not to blame for its dead outputs
RESPONSE_IMAGES = 4  # images on which the response of a single layer is measured
NUDGE = 1.01  # factor by which a layer's input is scaled for that


@dataclass
class LayerSignal:
    """Measurements of one layer on one batch.

    `signal` is 1 - cosine between the outputs for two images, averaged over pairs: how much the
    image still matters; `arrives` is the same of the input. `follows` is the elasticity of the
    output's size with the input's (1 for ReLU and pooling); `responds` is the share of a small
    change of the input that gets through (0 where a layer is saturated). Both are None for layers
    that have weights, take several inputs, or are affine. A `silent` layer gets nothing but zeros.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    rms: float
    gain: float
    signal: float
    zeros: float
    dead: float
    arrives: float | None
    follows: float | None
    responds: float | None
    silent: bool = False
    gradient: float = 0.0
    has_weights: bool = False


@dataclass
class ParameterSignal:
    """rms of a parameter's values and of its gradient; None where no gradient arrives."""

    name: str
    shape: tuple[int, ...]
    trained: bool
    rms: float
    gradient: float | None


@dataclass
class SignalPropagation:
    """All that one batch shows of a network.

    `logits` (N, K) are those of evaluation mode. `linear` are pairs of layers without an activation
    between them; `ends_in` is the operation that computed the logits, such as "Relu".
    """

    layers: list[LayerSignal]
    parameters: list[ParameterSignal]
    logits: Tensor
    loss: float
    linear: list[tuple[str, str]] = field(default_factory=list)
    ends_in: str = ""

    def described(self) -> list[LayerSignals]:
        """The layers as records."""
        return [LayerSignals(**vars(layer)) for layer in self.layers]


def measure_signals(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> SignalPropagation:
    """Runs images x (N, ...) and labels y (N,) through the network, forward and backward.

    Activations are those of evaluation mode, but batch norms use the batch: at the start of a
    training their running statistics are not of this data. Gradients are those of training mode.
    Weights stay as they are, gradients are cleared.
    """
    layers = _measure_layers(model, x)
    with evaluation_mode(model), torch.no_grad():
        logits = model(x.clone()).float()
    names = {module: name for name, module in model.named_modules()}
    by_name = {layer.name: layer for layer in layers}
    gradients: dict[str, float] = {}

    def record_gradient(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = names.get(module) or type(module).__name__

        def record(gradient: Tensor) -> None:
            gradients.setdefault(name, rms(gradient))

        if isinstance(output, Tensor) and output.requires_grad and name in by_name:
            output.register_hook(record)  # type: ignore[no-untyped-call]

    model.zero_grad(set_to_none=True)
    with training_mode(model), torch.enable_grad(), _hooked(model, record_gradient):
        training_logits = model(x.clone())
        total = loss(training_logits.float(), y)
        linear = linear_pairs(total)
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients.items():
        by_name[name].gradient = gradient
    parameters = [
        ParameterSignal(
            name,
            tuple(p.shape),
            p.requires_grad,
            rms(p),
            None if p.grad is None else rms(p.grad),
        )
        for name, p in model.named_parameters()
    ]
    model.zero_grad(set_to_none=True)
    last = training_logits.grad_fn
    ends_in = kind_of(last).removesuffix("Backward") if last else ""
    return SignalPropagation(layers, parameters, logits, float(total.detach()), linear, ends_in)


def _measure_layers(model: nn.Module, x: Tensor) -> list[LayerSignal]:
    """Every layer at its first call, in the order of calls."""
    layers: list[LayerSignal] = []
    calls: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}
    layer_inputs: dict[nn.Module, Tensor] = {}

    def record_input(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layer_inputs.pop(module, None)
        is_single = len(inputs) == 1 and not kwargs and isinstance(inputs[0], Tensor)
        if is_single and inputs[0].is_floating_point():
            layer_inputs[module] = inputs[0].detach().clone()  # some layers work in place

    def record_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        name = names.get(module) or type(module).__name__
        calls[name] = calls.get(name, 0) + 1
        if calls[name] == 1 and output.dim() > 1 and ".parametrizations." not in f".{name}":
            layers.append(_measure_layer(module, name, layer_inputs.pop(module, None), output))

    in_evaluation = evaluation_mode(model, batch_norm_trains=True)
    with in_evaluation, torch.no_grad(), _hooked(model, record_output, record_input):
        model(x.clone())
    return layers


def dead_activations(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Share of dead units of every layer that has no weights and whose input is not dead."""
    names = {module: name for name, module in model.named_modules()}
    shares: dict[str, float] = {}

    def record_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor) and t.dim() > 1]
        if not _has_weights(module) and len(tensors) == 2:
            dead_inputs, dead_outputs = map(dead_share, tensors)
            if dead_inputs <= SILENT:
                shares.setdefault(names.get(module, ""), dead_outputs)

    in_evaluation = evaluation_mode(model, batch_norm_trains=True)
    with in_evaluation, torch.no_grad(), _hooked(model, record_output):
        model(x.clone())
    return shares


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _measure_layer(
    module: nn.Module, name: str, layer_input: Tensor | None, output: Tensor
) -> LayerSignal:
    out = output.detach().float().clone()
    input_rms = rms(layer_input) if layer_input is not None else 0.0
    has_weights = _has_weights(module)
    follows, responds = None, None
    if not has_weights and layer_input is not None and input_rms > 0:
        follows, responds = _measure_response(module, layer_input, out, input_rms)
    return LayerSignal(
        name,
        type(module).__name__,
        tuple(out.shape[1:]),
        mean=float(out.mean()),
        rms=rms(out),
        gain=rms(out) / input_rms if input_rms > 0 else 0.0,
        signal=image_signal(out),
        zeros=float((out == 0).float().mean()),
        dead=dead_share(out),
        arrives=None if layer_input is None else image_signal(layer_input),
        follows=follows,
        responds=responds,
        silent=layer_input is not None and dead_share(layer_input) > SILENT,
        has_weights=has_weights,
    )


def _measure_response(
    module: nn.Module, layer_input: Tensor, out: Tensor, input_rms: float
) -> tuple[float | None, float | None]:
    """`follows` and `responds` of a layer, measured on its first few images."""
    layer_input, out = layer_input[:RESPONSE_IMAGES], out[:RESPONSE_IMAGES]
    change = torch.randn_like(layer_input) * (input_rms * (NUDGE - 1))
    try:
        if not torch.equal(module.forward(layer_input.clone()).float(), out):
            return None, None  # the layer draws random numbers, as dropout does
        larger, changed = (
            module.forward(x).float() for x in (layer_input * NUDGE, layer_input + change)
        )
        double, triple = (module.forward(layer_input * factor).float() for factor in (2, 3))
    except Exception:  # a stranger's layer may work only as the network calls it
        return None, None
    # An affine layer, such as a normalisation by constants, may well give smaller outputs for
    # larger inputs.
    growth = double - out, triple - double
    is_straight = rms(growth[0] - growth[1]) < 1e-3 * rms(growth[0])
    if is_straight and rms(double - 2 * out) > 1e-3 * rms(out):
        return None, None
    follows = None
    if rms(larger) > 0 and rms(out) > 0:
        follows = math.log(rms(larger) / rms(out)) / math.log(NUDGE)
    return follows, rms(changed - out) / rms(change)


@contextmanager
def _hooked(
    model: nn.Module,
    after_forward: Callable[..., None],
    before_forward: Callable[..., None] | None = None,
) -> Iterator[None]:
    """Hooks on every layer, removed afterwards."""
    layers = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [layer.register_forward_hook(after_forward) for layer in layers]
    if before_forward is not None:
        handles += [
            layer.register_forward_pre_hook(before_forward, with_kwargs=True) for layer in layers
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy: the loss that `diagnose` uses unless it gets another."""
    return F.cross_entropy(logits, labels)
