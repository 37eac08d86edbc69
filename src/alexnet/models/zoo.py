"""The named networks, by name."""

from dataclasses import replace

from alexnet.argument_checks import Range, checked
from alexnet.errors import UsageError, did_you_mean
from alexnet.models.family import FAMILY
from alexnet.models.layers import Conv, Linear, Part
from alexnet.models.net import Net, Preset, Spec, check_fits
from alexnet.models.small import RETIRED, SMALL
from alexnet.options import call
from alexnet.recipe import RETIRED_MODELS, retired_line

MODELS: dict[str, Preset] = dict(sorted({**FAMILY, **SMALL}.items()))


def find_model(name: str) -> Preset:
    """A preset by name, also a retired one; a misspelt name gets the nearest."""
    if name in RETIRED:
        return RETIRED[name]
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}{did_you_mean(name, MODELS, call('recipes'))}")
    return MODELS[name]


def refuse_retired(name: str | None) -> None:
    """UsageError where a new training names a network that another one superseded."""
    if name in RETIRED_MODELS:
        raise UsageError(retired_line(name))


def model_spec(name: str, classes: int, given: tuple[int, ...] | None = None) -> Spec:
    """The specification of a named network, checked against an input (C, H, W) where given."""
    if classes < 2:
        raise UsageError(f"{classes} class cannot be told apart from anything: give at least 2")
    spec = find_model(name).spec(classes)
    if given is not None and min(given) < 1:
        raise UsageError(
            f"an input of {'x'.join(map(str, given))}: every number must be at least 1"
        )
    if given is not None:
        check_fits(name, spec, given)
    return spec


def narrowed(spec: Spec, by: int) -> Spec:
    """The same network with a `by`-th of the units in every layer but the last.

    Weights are drawn as much larger as keeps the size of its signals: sqrt(by) times, but in the
    first layer, whose inputs stay as many.
    """
    sized = [part for part in spec if isinstance(part, Conv | Linear)]
    parts: list[Part] = []
    for part in spec:
        if isinstance(part, Conv | Linear):
            out = part.out if part is sized[-1] else part.out // by
            grows = part is not sized[0] and not isinstance(part.std, str)
            std = part.std * by**0.5 if grows and not isinstance(part.std, str) else part.std
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
    """A named network with fresh weights, drawn from torch's global generator.

    `channels` and `size` (pixels) default to what the network was designed for; `dropout` replaces
    every dropout rate. A size that does not fit is a UsageError that says which do.
    Shapes: (N, channels, size, size) -> logits (N, classes).
    """
    preset = find_model(name)
    channels = preset.channels if channels is None else channels
    size = preset.size if size is None else size
    given = (channels, size, size)
    return Net(model_spec(name, classes, given), given, dropout, preset.keys)
