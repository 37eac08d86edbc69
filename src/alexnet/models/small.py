"""Networks for small images: ours, those of `seeds/`, and cuda-convnet's for CIFAR-10."""

import math

from alexnet.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    Local,
    Part,
    Pool,
    ReLU,
    ResponseNorm,
)
from alexnet.models.net import Preset, Spec


def cifar_alexnet(classes: int) -> Spec:
    """`seeds/003`: four 3x3 convolutions, five fully connected layers, batch norm after the pool.

    The text prints neither padding nor dropout rate. 32 pixels survive four halvings only with
    "same" padding; 0.3 is the rate of the tutorial whose layers these are. Momentum 0.01 is
    Keras's 0.99 seen from the other side.
    """
    parts: list[Part] = []
    for i, channels in enumerate((64, 128, 256, 512), 1):
        parts += [Conv(f"conv{i}", channels, 3, padding=1), ReLU(), Pool(2, 2), BatchNorm(0.01)]
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
            Pool(3, 2, "same"),
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
        parts += [Pool(3, 2, 1)] if i in (1, 2, 5) else []
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


def _fast(first: list[Part], widths: tuple[int, ...], classes: int) -> Spec:
    """A first layer, then pairs of 3x3 convolutions of one width, the maps
    halved between the two; then the likeliest place of each map, and one fully connected layer.

    Where the 2012 network has two large fully connected layers, most of whose products are for
    maps of 6x6, these maps are pooled to few places, and the time goes into convolutions.
    """
    parts, number = list(first), 2
    for channels in widths:
        parts += [Conv(f"conv{number}", channels, 3, padding=1), Pool(2, 2), BatchNorm(), ReLU()]
        parts += [Conv(f"conv{number + 1}", channels, 3, padding=1), BatchNorm(), ReLU()]
        number += 2
    return [*parts, Pool(3, 3, label="maxpool"), Linear(f"fc{number}", classes)]


def fast_32(classes: int) -> Spec:
    """Seven convolutions and one fully connected layer, for images of 28 to 64 pixels.

    The most accuracy for minutes; its first layer is for `whiten`.
    """
    return _fast([Conv("conv1", 24, 2), ReLU()], (64, 128, 256), classes)


def wide_32(classes: int) -> Spec:
    """`fast-32` with more kernels in the middle; no better in the same twenty minutes."""
    return _fast([Conv("conv1", 24, 2), ReLU()], (64, 256, 256), classes)


def fast_128(classes: int) -> Spec:
    """Seven convolutions and one fully connected layer, for 128-pixel photos."""
    first = [Conv("conv1", 64, 5, 2, 2), Pool(2, 2), BatchNorm(), ReLU()]
    return _fast(first, (128, 256, 384), classes)


def patch_128(classes: int) -> Spec:
    """Seven convolutions and one fully connected layer, for 128-pixel photos in patches of four.

    Its first layer strides over four pixels, as the paper's does, and sees each once; it is for
    `whiten`. In the same time it is more accurate than its predecessor `fast-128`, which takes 2.5
    times as long a step.
    """
    return _fast([Conv("conv1", 96, 4, 4), ReLU()], (64, 128, 256), classes)


def alexnet_2012_32(classes: int) -> Spec:
    """The paper's network for 32-pixel images with a third of its kernels, towers and all.

    Every layer is given signals as large as the paper's: where fewer numbers are summed, weights
    are drawn larger by the root of how many fewer. It takes pixels of 0 to 255 less the mean.
    """
    norm = ResponseNorm(groups=2)

    def std(paper: int, own: int) -> float:
        return 0.01 * math.sqrt(paper / own)

    conv2, middle = std(5 * 5 * 48, 5 * 5 * 16), std(3 * 3 * 192, 3 * 3 * 48)
    return [
        *(Conv("conv1", 32, 5, padding=2, std=std(11 * 11 * 3, 5 * 5 * 3)), ReLU()),
        *(norm, Pool(3, 2), Conv("conv2", 64, 5, padding=2, groups=2, std=conv2, bias=1), ReLU()),
        *(norm, Pool(3, 2), Conv("conv3", 96, 3, padding=1, std=std(256, 64)), ReLU()),
        *(Conv("conv4", 96, 3, padding=1, groups=2, std=middle, bias=1), ReLU()),
        *(Conv("conv5", 64, 3, padding=1, groups=2, std=middle, bias=1), ReLU(), Pool(3, 2)),
        *(Linear("fc6", 512, std=std(9216, 576), bias=1), ReLU(), Dropout(rescale=False)),
        *(Linear("fc7", 512, std=std(4096, 512), bias=1), ReLU(), Dropout(rescale=False)),
        Linear("fc8", classes, std=std(4096, 512)),
    ]


def cuda_convnet_18(classes: int) -> Spec:
    """cuda-convnet's net for CIFAR-10 with 18 % error: three 5x5 convolutions, norms within maps.

    Source: example-layers/layers-18pct.cfg and its parameters. `rnorm` there is over a square of
    one map, and its scale 5e-5 is divided by the square's nine numbers.
    """
    norm = ResponseNorm(3, 5e-5, 0.75, 1.0, divide=True, window="map")
    mean = Pool(3, 2, kind="mean", ceil=True)
    return [
        Conv("conv1", 32, 5, padding=2, std=1e-4),
        *(Pool(3, 2, ceil=True), ReLU(), norm),
        *(Conv("conv2", 32, 5, padding=2, std=0.01), ReLU(), mean, norm),
        *(Conv("conv3", 64, 5, padding=2, std=0.01), ReLU(), mean),
        Linear("fc10", classes, std=0.01),
    ]


def _conv_local(norm: list[Part], local3: int, classes: int) -> Spec:
    return [
        Conv("conv1", 64, 5, padding=2, std=1e-4),
        *(ReLU(), Pool(3, 2, ceil=True), *norm),
        Conv("conv2", 64, 5, padding=2, std=0.01),
        *(ReLU(), *norm, Pool(3, 2, ceil=True)),
        *(Local("local3", local3, 3, padding=1, std=0.04), ReLU()),
        *(Local("local4", 32, 3, padding=1, std=0.04), ReLU()),
        Linear("fc10", classes, std=0.01),
    ]


def cuda_convnet_13(classes: int) -> Spec:
    """cuda-convnet's net for CIFAR-10 with 13 % error: two convolutions, two unshared layers.

    Source: example-layers/layers-conv-local-13pct.cfg; 24-pixel crops of 32.
    """
    return _conv_local([], 32, classes)


def cuda_convnet_11(classes: int) -> Spec:
    """cuda-convnet's net for CIFAR-10 with 11 % error: that of 13 % with response norm.

    Source: example-layers/layers-conv-local-11pct.cfg (`cmrnorm` over nine channels, scale 0.001
    divided by nine); paper, section 3.3, quotes the pair as 13 % and 11 %. local3 is wider too.
    """
    return _conv_local([ResponseNorm(9, 0.001, 0.75, 1.0, divide=True)], 64, classes)


_OURS = dict.fromkeys(("sizes", "padding", "order", "norm", "pool", "dropout", "init"), "ours")
_TOWERS = {**_OURS, "groups": "paper, section 3.5", "norm": "paper, section 3.3"}
_SEED_3 = {
    "sizes": "seeds/003, model summary",
    "order": "seeds/003, model summary",
    "pool": "seeds/003",
    "padding": "not printed in seeds/003; the sizes need it",
    "dropout": "place: seeds/003; rate: the tutorial it follows",
    "init": "Keras has Glorot's rule; He's here",
}
_SEED_4 = {
    **dict.fromkeys(("sizes", "order", "padding", "pool", "dropout", "norm"), "seeds/004"),
    "init": "N(0, 1) in seeds/004, whose loss was 1e5; He's here",
}
_CUDA = dict.fromkeys((*_OURS,), "cuda-convnet, example-layers")

SMALL = {
    "alexnet-2012-32": Preset(alexnet_2012_32, 32, 3, sources=_TOWERS),
    "alexnet-28": Preset(alexnet_28, 28, 1, sources=_OURS),
    "alexnet-32": Preset(alexnet_32, 32, 3, sources=_OURS),
    "cifar-alexnet": Preset(cifar_alexnet, 32, 3, sources=_SEED_3),
    "cuda-convnet-11": Preset(cuda_convnet_11, 24, 3, sources=_CUDA),
    "cuda-convnet-13": Preset(cuda_convnet_13, 24, 3, sources=_CUDA),
    "cuda-convnet-18": Preset(cuda_convnet_18, 32, 3, sources=_CUDA),
    "fashion-alexnet": Preset(fashion_alexnet, 28, 1, sources=_OURS),
    "fast-32": Preset(fast_32, 32, 3, sources=_OURS),
    "mnist-alexnet": Preset(mnist_alexnet, 28, 1, sources=_SEED_4),
    "patch-128": Preset(patch_128, 128, 3, sources=_OURS),
}

# Superseded (see `alexnet.recipe.RETIRED_MODELS`): runs that have them load, test and continue.
RETIRED = {
    "fast-128": Preset(fast_128, 128, 3, sources=_OURS),
    "wide-32": Preset(wide_32, 32, 3, sources=_OURS),
}
