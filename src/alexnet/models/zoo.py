"""The named networks, by name."""

from dataclasses import replace

from alexnet.errors import UsageError, did_you_mean
from alexnet.models.family import FAMILY
from alexnet.models.layers import Conv, Linear, Part
from alexnet.models.net import Net, Preset, Spec, check_fits
from alexnet.models.small import RETIRED, SMALL
from alexnet.recipe import RETIRED_MODELS, retired_line
from alexnet.support.argument_checks import Range, checked
from alexnet.support.options import call

MODELS: dict[str, Preset] = dict(sorted({**FAMILY, **SMALL}.items()))


def find_model(name: str) -> Preset:
    """Return a preset by name, also a retired one. Raises UsageError with the nearest name."""
    if name in RETIRED:
        return RETIRED[name]
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}{did_you_mean(name, MODELS, call('recipes'))}")
    return MODELS[name]


def refuse_retired(name: str | None) -> None:
    """Raise UsageError for a retired network, which a new training cannot use."""
    if name in RETIRED_MODELS:
        raise UsageError(retired_line(name))


def model_spec(name: str, classes: int, in_shape: tuple[int, ...] | None = None) -> Spec:
    """Return the specification of a named network, checked against an input shape (C, H, W)."""
    if classes < 2:
        raise UsageError(f"{classes} class cannot be told apart from anything: give at least 2")
    spec = find_model(name).spec(classes)
    if in_shape is not None and min(in_shape) < 1:
        raise UsageError(
            f"an input of {'x'.join(map(str, in_shape))}: every number must be at least 1"
        )
    if in_shape is not None:
        check_fits(name, spec, in_shape)
    return spec


def narrowed(spec: Spec, by: int) -> Spec:
    """Divide the units of every layer but the last by `by`.

    Initial weights become sqrt(by) times larger, which keeps the size of the signals, except in the
    first layer, whose number of inputs does not change.
    """
    layers = [part for part in spec if isinstance(part, Conv | Linear)]
    parts: list[Part] = []
    for part in spec:
        if isinstance(part, Conv | Linear):
            out = part.out if part is layers[-1] else part.out // by
            is_scaled = part is not layers[0] and not isinstance(part.std, str)
            std = part.std * by**0.5 if is_scaled and not isinstance(part.std, str) else part.std
            part = replace(part, out=out, std=std)
        parts.append(part)
    return parts


@checked(
    classes=Range(high=10**6),
    channels=Range(high=4096),
    size=Range(high=4096),
    dropout=Range(low=0, below=1),
)
def build_model(
    name: str,
    classes: int = 1000,
    *,
    channels: int | None = None,
    size: int | None = None,
    dropout: float | None = None,
) -> Net:
    """Build a named network with initial weights from torch's global generator.

    `channels` and `size` (pixels) default to the input that the network was designed for. `dropout`
    replaces every dropout rate. Raises UsageError, naming a size that fits, for a size too small.
    Shapes: (N, channels, size, size) -> logits (N, classes).
    """
    preset = find_model(name)
    channels = preset.channels if channels is None else channels
    size = preset.size if size is None else size
    input_shape = (channels, size, size)
    return Net(model_spec(name, classes, input_shape), input_shape, dropout, preset.keys)
