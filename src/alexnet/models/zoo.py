"""The named networks."""

from collections.abc import Callable

from alexnet.errors import UsageError
from alexnet.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    MaxPool,
    Part,
    ReLU,
    ResponseNorm,
)
from alexnet.models.net import Net, Spec


def cifar_alexnet(classes: int) -> Spec:
    """`seeds/003`: four 3x3 convolutions, five fully connected layers, batch norm after the pool.

    The text prints neither padding nor dropout rate. 32 pixels survive four halvings only with
    "same" padding; 0.3 is the rate of the tutorial whose layers these are. Momentum 0.01 is
    Keras's 0.99 seen from the other side.
    """
    parts: list[Part] = []
    for i, channels in enumerate((64, 128, 256, 512), 1):
        parts += [Conv(f"conv{i}", channels, 3, padding=1), ReLU(), MaxPool(2, 2), BatchNorm(0.01)]
    for i, units in enumerate((128, 256, 512, 1024), 5):
        parts += [Linear(f"fc{i}", units), ReLU(), Dropout(0.3), BatchNorm(0.01)]
    return [*parts, Linear("fc9", classes)]


def mnist_alexnet(classes: int) -> Spec:
    """`seeds/004`: three 3x3 convolutions with pooling, response norm and dropout; 1024 + 1024.

    Its weights were drawn from N(0, 1) and its loss was 1e5; here they are drawn at He's scale.
    TensorFlow's lrn(x, 4, 1.0, 0.001 / 9, 0.75) sums over 2 * 4 + 1 channels and takes alpha as is.
    Keep-probability 0.8 is rate 0.2; the fully connected layers have no dropout there.
    """
    parts: list[Part] = []
    for i, channels in enumerate((64, 128, 256), 1):
        parts += [
            Conv(f"conv{i}", channels, 3, padding=1),
            ReLU(),
            MaxPool(3, 2, "same"),
            ResponseNorm(9, 0.001 / 9, 0.75, 1.0),
            Dropout(0.2),
        ]
    return [
        *parts,
        *(Linear("fc4", 1024), ReLU()),
        *(Linear("fc5", 1024), ReLU()),
        Linear("fc6", classes),
    ]


def _small(widths: tuple[int, int, int, int, int], units: int, classes: int) -> Spec:
    """AlexNet's shape for small images: pool after conv1, conv2 and conv5, then three FC layers.

    Batch norm and ReLU come after the pool, where there is a quarter of the numbers to touch.
    """
    parts: list[Part] = []
    for i, channels in enumerate(widths, 1):
        parts += [Conv(f"conv{i}", channels, 3, padding=1)]
        parts += [MaxPool(3, 2, 1)] if i in (1, 2, 5) else []
        parts += [BatchNorm(), ReLU()]
    for i in (6, 7):
        parts += [Linear(f"fc{i}", units), BatchNorm(), ReLU(), Dropout(0.5)]
    return [*parts, Linear("fc8", classes)]


def alexnet_28(classes: int) -> Spec:
    """Five convolutions, three fully connected layers, for 28-pixel grey images."""
    return _small((32, 64, 96, 96, 96), 256, classes)


def fashion_alexnet(classes: int) -> Spec:
    """`alexnet-28` wider, for 28-pixel images that the narrow one underfits."""
    return _small((48, 96, 128, 128, 128), 256, classes)


def alexnet_32(classes: int) -> Spec:
    """Five convolutions, three fully connected layers, for 32-pixel colour images."""
    return _small((48, 96, 192, 192, 128), 512, classes)


MODELS: dict[str, Callable[[int], Spec]] = {
    "alexnet-28": alexnet_28,
    "alexnet-32": alexnet_32,
    "cifar-alexnet": cifar_alexnet,
    "fashion-alexnet": fashion_alexnet,
    "mnist-alexnet": mnist_alexnet,
}
_INPUT = dict.fromkeys(("alexnet-28", "fashion-alexnet", "mnist-alexnet"), (1, 28))


def model_spec(name: str, classes: int) -> Spec:
    """The specification of a named network."""
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}: there are {', '.join(MODELS)}")
    if classes < 2:
        raise UsageError(f"{classes} class cannot be told apart from anything: give at least 2")
    return MODELS[name](classes)


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
    every dropout rate. Shapes: (N, channels, size, size) -> logits (N, classes).
    """
    spec = model_spec(name, classes)
    native_channels, native_size = _INPUT.get(name, (3, 32))
    channels = native_channels if channels is None else channels
    size = native_size if size is None else size
    return Net(spec, (channels, size, size), dropout)
