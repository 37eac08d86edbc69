"""The AlexNets of the literature, each written out whole.

They agree on 11x11, 5x5, 3x3, 3x3, 3x3 convolutions and three fully connected layers, and on little
else; `alexnet recipes NAME --diff OTHER` prints what differs.
"""

from alexnet.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    MeanTo,
    Part,
    Pool,
    ReLU,
    ResponseNorm,
)
from alexnet.models.net import Preset, Spec


def alexnet_2012(classes: int) -> Spec:
    """The paper's text: two towers, response norm after ReLU, N(0, 0.01) weights, biases of 1.

    The towers are the two groups of conv2, conv4 and conv5, and of the response norms: kernel maps
    of the other GPU are out of reach everywhere but in conv3 and the fully connected layers.
    """
    norm = ResponseNorm(groups=2)
    return [
        *(Conv("conv1", 96, 11, 4, 2, std=0.01), ReLU(), norm, Pool(3, 2)),
        Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=1),
        *(ReLU(), norm, Pool(3, 2)),
        *(Conv("conv3", 384, 3, padding=1, std=0.01), ReLU()),
        *(Conv("conv4", 384, 3, padding=1, groups=2, std=0.01, bias=1), ReLU()),
        *(Conv("conv5", 256, 3, padding=1, groups=2, std=0.01, bias=1), ReLU(), Pool(3, 2)),
        *(Linear("fc6", 4096, std=0.01, bias=1), ReLU(), Dropout(rescale=False)),
        *(Linear("fc7", 4096, std=0.01, bias=1), ReLU(), Dropout(rescale=False)),
        Linear("fc8", classes, std=0.01),
    ]


def alexnet_2012_code(classes: int) -> Spec:
    """The net that was trained, as its released layer file 145 has it.

    Where the text differs: windows of conv1 round up over the edge, ReLU after norm and pool in
    stage 1, alpha divided by n, a second norm within each map in stage 2, 0.03 in conv3 to conv5.
    """
    norm = ResponseNorm(divide=True, groups=2)
    within = ResponseNorm(5, 1e-3, 0.75, 1.0, divide=True, window="map", label="mapnorm")
    return [
        *(Conv("conv1", 96, 11, 4, std=0.01, ceil=True), norm, Pool(3, 2, ceil=True), ReLU()),
        Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=1),
        *(ReLU(), norm, within, Pool(3, 2, ceil=True)),
        *(Conv("conv3", 384, 3, padding=1, std=0.03), ReLU()),
        *(Conv("conv4", 384, 3, padding=1, groups=2, std=0.03, bias=1), ReLU()),
        Conv("conv5", 256, 3, padding=1, groups=2, std=0.03, bias=1),
        *(Pool(3, 2, ceil=True), ReLU()),
        *(Linear("fc6", 4096, std=0.01, bias=1), ReLU(), Dropout(rescale=False)),
        *(Linear("fc7", 4096, std=0.01, bias=1), ReLU(), Dropout(rescale=False)),
        Linear("fc8", classes, std=0.01),
    ]


def _caffe(classes: int, stage: list[Part], bias: float) -> Spec:
    return [
        *(Conv("conv1", 96, 11, 4, std=0.01), ReLU(), *stage),
        *(Conv("conv2", 256, 5, padding=2, groups=2, std=0.01, bias=bias), ReLU(), *stage),
        *(Conv("conv3", 384, 3, padding=1, std=0.01), ReLU()),
        *(Conv("conv4", 384, 3, padding=1, groups=2, std=0.01, bias=bias), ReLU()),
        Conv("conv5", 256, 3, padding=1, groups=2, std=0.01, bias=bias),
        *(ReLU(), Pool(3, 2, ceil=True)),
        *(Linear("fc6", 4096, std=0.005, bias=bias), ReLU(), Dropout()),
        *(Linear("fc7", 4096, std=0.005, bias=bias), ReLU(), Dropout()),
        Linear("fc8", classes, std=0.01),
    ]


def alexnet_caffe(classes: int) -> Spec:
    """Caffe's bvlc_alexnet: 227 pixels, norm before pool, biases of 0.1 (1 "gave flat loss").

    Its norm runs over all channels, across the two groups, with k = 1 and alpha divided by n.
    """
    norm = ResponseNorm(k=1.0, divide=True)
    return _caffe(classes, [norm, Pool(3, 2, ceil=True)], 0.1)


def caffenet(classes: int) -> Spec:
    """Caffe's bvlc_reference_caffenet: as `alexnet-caffe` with pool before norm and biases of 1."""
    norm = ResponseNorm(k=1.0, divide=True)
    return _caffe(classes, [Pool(3, 2, ceil=True), norm], 1.0)


def alexnet_2014(classes: int) -> Spec:
    """One tower, 64-192-384-256-256, no norm: "One weird trick" as torchvision has it.

    Dropout comes before fc6 and fc7; 6x6 means in front of them let any larger image in. The
    state dict has torchvision's keys, so that its weight file loads as it is.
    """
    return [
        *(Conv("conv1", 64, 11, 4, 2, std="torch"), ReLU(), Pool(3, 2)),
        *(Conv("conv2", 192, 5, padding=2, std="torch"), ReLU(), Pool(3, 2)),
        *(Conv("conv3", 384, 3, padding=1, std="torch"), ReLU()),
        *(Conv("conv4", 256, 3, padding=1, std="torch"), ReLU()),
        *(Conv("conv5", 256, 3, padding=1, std="torch"), ReLU(), Pool(3, 2), MeanTo(6)),
        *(Dropout(), Linear("fc6", 4096, std="torch"), ReLU()),
        *(Dropout(), Linear("fc7", 4096, std="torch"), ReLU()),
        Linear("fc8", classes, std="torch"),
    ]


def alexnet_one_column(classes: int) -> Spec:
    """`seeds/000`: the paper's widths in one column, no groups, biases of the FC layers 0.

    What its text leaves open is the paper's. Dropout divides by the keeping rate in training, as
    TensorFlow's does, and its norm takes alpha as it stands.
    """
    norm = ResponseNorm()
    return [
        *(Conv("conv1", 96, 11, 4, 2, std=0.01), ReLU(), norm, Pool(3, 2)),
        *(Conv("conv2", 256, 5, padding=2, std=0.01, bias=1), ReLU(), norm, Pool(3, 2)),
        *(Conv("conv3", 384, 3, padding=1, std=0.01), ReLU()),
        *(Conv("conv4", 384, 3, padding=1, std=0.01, bias=1), ReLU()),
        *(Conv("conv5", 256, 3, padding=1, std=0.01, bias=1), ReLU(), Pool(3, 2)),
        *(Linear("fc6", 4096, std=0.01), ReLU(), Dropout()),
        *(Linear("fc7", 4096, std=0.01), ReLU(), Dropout()),
        Linear("fc8", classes, std=0.01),
    ]


def alexnet_bn(classes: int) -> Spec:
    """`seeds/002`: one column, with batch norm before each ReLU in the place of response norm.

    Its text prints no widths: they are the paper's. Weights start at He's scale, biases at 0.
    """
    parts: list[Part] = []
    sizes = ((96, 11, 4, 2), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
    for i, (out, kernel, stride, padding) in enumerate(sizes, 1):
        parts += [Conv(f"conv{i}", out, kernel, stride, padding), BatchNorm(), ReLU()]
        parts += [Pool(3, 2)] if i in (1, 2, 5) else []
    for i in (6, 7):
        parts += [Linear(f"fc{i}", 4096), BatchNorm(), ReLU(), Dropout()]
    return [*parts, Linear("fc8", classes)]


_KINDS = ("sizes", "groups", "padding", "order", "norm", "pool", "dropout", "init", "biases")
_PAPER = {
    "sizes": "paper, section 3.5",
    "groups": "paper, section 3.5 and figure 2",
    "padding": "not in the paper; 55x55 (figure 2) needs 2 at 224 pixels",
    "order": "paper, sections 3.3 to 3.5",
    "norm": "paper, section 3.3",
    "pool": "paper, section 3.4",
    "dropout": "paper, section 4.2",
    "init": "paper, section 5",
    "biases": "paper, section 5: one update for all",
}
_CODE = dict.fromkeys(_KINDS, "2012 code, layers/layers-145.cfg")
_BVLC = dict.fromkeys(_KINDS, "Caffe, models/bvlc_alexnet/train_val.prototxt")
_REFERENCE = dict.fromkeys(_KINDS, "Caffe, models/bvlc_reference_caffenet/train_val.prototxt")
_TORCHVISION = {
    **dict.fromkeys(_KINDS, "torchvision, models/alexnet.py"),
    "sizes": "Krizhevsky 2014 (arXiv 1404.5997), as in torchvision",
    "init": "torch's default",
    "biases": "cuda-convnet2, layers/layer-params-223-ce2-1gpu.cfg",
}
_SEED_0 = {
    **_PAPER,
    "sizes": "seeds/000 and the paper, section 3.5",
    "groups": "seeds/000",
    "dropout": "seeds/001; TensorFlow's rule",
    "init": "std: seeds/001; biases of 0 in the FC layers: seeds/000; else the paper, section 5",
}
_SEED_2 = {
    **_PAPER,
    **dict.fromkeys(("groups", "order"), "seeds/002"),
    "init": "He's; ours",
    "biases": "ours",
}

# The places of the parts in torchvision's two Sequentials.
_TORCHVISION_KEYS = {
    **{f"conv{i}": f"features.{place}" for i, place in enumerate((0, 3, 6, 8, 10), 1)},
    **{f"fc{i}": f"classifier.{place}" for i, place in enumerate((1, 4, 6), 6)},
}

FAMILY = {
    "alexnet-2012": Preset(alexnet_2012, 224, classes=1000, sources=_PAPER),
    "alexnet-2012-code": Preset(alexnet_2012_code, 224, classes=1000, sources=_CODE),
    "alexnet-2014": Preset(
        alexnet_2014, 224, classes=1000, sources=_TORCHVISION, keys=_TORCHVISION_KEYS
    ),
    "alexnet-bn": Preset(alexnet_bn, 224, classes=1000, sources=_SEED_2),
    "alexnet-caffe": Preset(alexnet_caffe, 227, classes=1000, sources=_BVLC),
    "alexnet-one-column": Preset(alexnet_one_column, 224, classes=1000, sources=_SEED_0),
    "caffenet": Preset(caffenet, 227, classes=1000, sources=_REFERENCE),
}
