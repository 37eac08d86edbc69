"""One batch forward and backward through any network: what each layer does to it.

Layers are the modules without modules in them, in the order in which they are called. Shapes: N
images, K classes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from alexnet.diagnosis.graph import kind_of, linear_pairs
from alexnet.diagnosis.sizes import dead_share, image_signal, rms
from alexnet.runs.records import LayerSignals

Loss = Callable[[Tensor, Tensor], Tensor]

ALL = 0.9  # share of the inputs that are 0, beyond which what follows is not to blame
TRIED = 4  # images on which a layer is tried by itself
NUDGE = 1.01  # by which a layer's input is scaled to see how its output follows


@dataclass
class LayerSignal:
    """`signal` is 1 - cosine between the outputs for two different images, on average: how much the
    image still matters; `arrives` is the same of the input. `follows` is the elasticity of the
    output's size with the input's, 1 for ReLU and pooling; `responds` is how much of a small change
    of the input gets through, 0 where a layer is saturated. None for layers with weights, of more
    than one input, or affine ones. `silent` is a layer that is given nothing but zeros."""

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
class Parameter:
    """rms of the values and of the loss's gradient, None where none arrives."""

    name: str
    shape: tuple[int, ...]
    trained: bool
    rms: float
    gradient: float | None


@dataclass
class SignalPropagation:
    """All that one batch shows. logits (N, K) as evaluation sees them; `ends_in` is the operation
    that made them, by its gradient's name."""

    layers: list[LayerSignal]
    parameters: list[Parameter]
    logits: Tensor
    loss: float
    linear: list[tuple[str, str]] = field(default_factory=list)
    ends_in: str = ""

    def described(self) -> list[LayerSignals]:
        """The layers as a record has them."""
        return [LayerSignals(**vars(layer)) for layer in self.layers]


def measure_signals(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> SignalPropagation:
    """Runs x (N, ...) and labels y (N,) through the network; weights stay, gradients are cleared.

    Activations are those of evaluation, batch norm as in training, since at the beginning its
    running figures are not of this data; gradients are those of training.
    """
    layers: list[LayerSignal] = []
    seen: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    given: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.pop(module, None)
        alone = len(inputs) == 1 and not kwargs and isinstance(inputs[0], Tensor)
        if alone and inputs[0].is_floating_point():
            given[module] = inputs[0].detach().clone()  # some layers work in place

    def record_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        name = names.get(module) or type(module).__name__
        seen[name] = seen.get(name, 0) + 1
        if seen[name] == 1 and output.dim() > 1 and ".parametrizations." not in f".{name}":
            layers.append(_describe(module, name, given.pop(module, None), output))

    with evaluating(model, norms=True), torch.no_grad(), _hooked(model, record_output, before):
        model(x.clone())
    with evaluating(model), torch.no_grad():
        logits = model(x.clone()).float()
    at = {layer.name: layer for layer in layers}
    gradients: dict[str, float] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = names.get(module) or type(module).__name__

        def note(gradient: Tensor) -> None:
            gradients.setdefault(name, rms(gradient))

        if isinstance(output, Tensor) and output.requires_grad and name in at:
            output.register_hook(note)  # type: ignore[no-untyped-call]

    model.zero_grad(set_to_none=True)
    with training(model), torch.enable_grad(), _hooked(model, keep):
        made = model(x.clone())
        total = loss(made.float(), y)
        linear = linear_pairs(total)
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients.items():
        at[name].gradient = gradient
    parameters = [
        Parameter(
            name,
            tuple(p.shape),
            p.requires_grad,
            rms(p),
            None if p.grad is None else rms(p.grad),
        )
        for name, p in model.named_parameters()
    ]
    model.zero_grad(set_to_none=True)
    ends_in = kind_of(made.grad_fn).removesuffix("Backward") if made.grad_fn else ""
    return SignalPropagation(layers, parameters, logits, float(total.detach()), linear, ends_in)


def switched_off(model: nn.Module, x: Tensor) -> dict[str, float]:
    """The share of dead units of every layer without weights that is given something."""
    names = {module: name for name, module in model.named_modules()}
    shares: dict[str, float] = {}

    def record_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        bare = not any(True for _ in module.parameters(recurse=False))
        seen = [dead_share(t) for t in (*inputs, output) if isinstance(t, Tensor) and t.dim() > 1]
        if bare and len(seen) == 2 and seen[0] <= ALL:
            shares.setdefault(names.get(module, ""), seen[1])

    with evaluating(model, norms=True), torch.no_grad(), _hooked(model, record_output):
        model(x.clone())
    return shares


def _describe(module: nn.Module, name: str, given: Tensor | None, output: Tensor) -> LayerSignal:
    out = output.detach().float().clone()
    before = rms(given) if given is not None else 0.0
    weights = any(True for _ in module.parameters(recurse=False))
    follows, responds = None, None
    if not weights and given is not None and before > 0:
        follows, responds = _tried(module, given, out, before)
    return LayerSignal(
        name,
        type(module).__name__,
        tuple(out.shape[1:]),
        float(out.mean()),
        rms(out),
        rms(out) / before if before > 0 else 0.0,
        image_signal(out),
        float((out == 0).float().mean()),
        dead_share(out),
        None if given is None else image_signal(given),
        follows,
        responds,
        silent=given is not None and dead_share(given) > ALL,
        has_weights=weights,
    )


def _tried(
    module: nn.Module, given: Tensor, out: Tensor, size: float
) -> tuple[float | None, float | None]:
    """How a layer's output follows the size of its input, and a small change of it; of a few
    images."""
    given, out = given[:TRIED], out[:TRIED]
    change = torch.randn_like(given) * (size * (NUDGE - 1))
    try:
        if not torch.equal(module.forward(given.clone()).float(), out):
            return None, None  # by chance, as in dropout
        larger, other = (module.forward(x).float() for x in (given * NUDGE, given + change))
        double, triple = (module.forward(given * times).float() for times in (2, 3))
    except Exception:  # somebody's layer may want to be called as the network calls it
        return None, None
    follows = None
    # Affine, as a normalisation by constants: its output may well shrink where the input grows.
    steps = double - out, triple - double
    straight = rms(steps[0] - steps[1]) < 1e-3 * rms(steps[0])
    if straight and rms(double - 2 * out) > 1e-3 * rms(out):
        return None, None
    if rms(larger) > 0 and rms(out) > 0:
        follows = math.log(rms(larger) / rms(out)) / math.log(NUDGE)
    return follows, rms(other - out) / rms(change)


@contextmanager
def _hooked(
    model: nn.Module, look: Callable[..., None], before: Callable[..., None] | None = None
) -> Iterator[None]:
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(look) for module in leaves]
    if before is not None:
        handles += [m.register_forward_pre_hook(before, with_kwargs=True) for m in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Each module is afterwards in training or evaluation as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def evaluating(model: nn.Module, *, norms: bool = False) -> Iterator[None]:
    """In evaluation mode; with `norms`, batch norms as in training. All modes come back after."""
    with modes_kept(model):
        model.eval()
        for module in model.modules() if norms else ():
            if isinstance(module, _BatchNorm):
                module.train()
        yield


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """In training mode, as `model.train()` leaves it; all modes come back after."""
    with modes_kept(model):
        model.train()
        yield


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy: what `diagnose` takes where no loss is given."""
    return F.cross_entropy(logits, labels)
