"""The AlexNets of the literature against plain re-implementations and tables written by hand."""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.family import FAMILY
from alexnet.models.layers import Conv, Dropout, Linear, Local, MeanTo, Part, Pool, ResponseNorm
from alexnet.models.net import LayerRow, Net, Spec, named_parts, summarize
from alexnet.models.zoo import MODELS, build_model, find_model, model_spec

Weights = dict[str, Tensor]
Built = Callable[[str], Net]

# Small sizes, so that fc6 is small, on which every rounding down or up still loses or adds pixels.
SIZES = {
    "alexnet-2012": 79,
    "alexnet-2012-code": 70,
    "alexnet-2014": 80,
    "alexnet-bn": 79,
    "alexnet-caffe": 73,
    "alexnet-one-column": 79,
    "caffenet": 73,
}


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    """built(name): the network with ten classes and its first weights. Read only: tests copy it."""

    @functools.cache
    def build(name: str) -> Net:
        torch.manual_seed(7)
        return build_model(name, 10, size=SIZES[name]).eval()

    yield build
    build.cache_clear()


def rows_of(name: str, classes: int = 1000) -> dict[str, LayerRow]:
    preset = FAMILY[name]
    rows = summarize(preset.spec(classes), (preset.channels, preset.size, preset.size))
    return {row.name: row for row in rows}


# Sides of the maps and of nothing else: all presets agree on them at their native size.
SIDES = {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13}
SIDES |= {"conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}


def shape_by_hand(name: str, part: str) -> tuple[int, ...]:
    if part[:2] == "fc":
        return (1000 if part == "fc8" else 4096,)
    widths = (64, 192, 384, 256, 256) if name == "alexnet-2014" else (96, 256, 384, 384, 256)
    return (widths[int(part[-1]) - 1], SIDES[part], SIDES[part])


def trunk(name: str) -> Spec:
    """What comes before the fully connected layers."""
    spec = FAMILY[name].spec(10)
    places = [i for i, part in enumerate(spec) if isinstance(part, Linear | Dropout)]
    return spec[: places[0]]


@pytest.mark.parametrize("name", FAMILY)
def test_shapes_at_the_native_size(name: str) -> None:
    rows = rows_of(name)
    assert FAMILY[name].size == (227 if "caffe" in name else 224)
    shape: tuple[int, ...] = ()
    for part, row in rows.items():
        if part in SIDES or part[:2] == "fc":
            shape = shape_by_hand(name, part)
        assert row.shape == shape, part
    assert SIDES.keys() | {"fc6", "fc7", "fc8"} <= rows.keys()


@pytest.mark.parametrize("name", FAMILY)
def test_maps_at_the_native_size_are_those_of_the_table(name: str) -> None:
    rows, size = rows_of(name), FAMILY[name].size
    net = Net(trunk(name), (3, size, size)).eval()
    with torch.no_grad():
        _, kept = net.activations(torch.rand(1, 3, size, size), net.parts)
    assert {part: tuple(x.shape[1:]) for part, x in kept.items()} == {
        part: rows[part].shape for part in kept
    }
    assert kept["pool5"].shape == (1, 256, 6, 6)


@pytest.mark.parametrize("name", FAMILY)
def test_every_part_can_be_looked_at(name: str, built: Built) -> None:
    net, size = built(name), SIZES[name]
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits, kept = net.activations(images, net.parts)
        _, alone = net.activations(images, ["conv5"])
    rows = summarize(model_spec(name, 10), (3, size, size))
    assert [(row.name, row.shape) for row in rows] == [
        (part, tuple(x.shape[1:])) for part, x in kept.items()
    ]
    assert torch.equal(kept["fc8"], logits)
    assert list(alone) == ["conv5"]
    assert torch.equal(alone["conv5"], kept["conv5"])
    assert sum(p.numel() for p in net.parameters()) == sum(row.parameters for row in rows)
    with pytest.raises(UsageError, match="no part 'conv6'"):
        net.activations(images, ["conv6"])


def test_multiply_adds_by_hand() -> None:
    towers, column = rows_of("alexnet-2012"), rows_of("alexnet-one-column")
    assert towers["conv1"].macs == 105_415_200  # 55^2 x 96 x 3 x 11^2
    assert towers["conv2"].macs == 223_948_800  # 27^2 x 256 x 48 x 5^2
    assert towers["conv3"].macs == 149_520_384  # 13^2 x 384 x 256 x 3^2
    assert towers["conv4"].macs == 112_140_288  # 13^2 x 384 x 192 x 3^2
    assert towers["conv5"].macs == 74_760_192  # 13^2 x 256 x 192 x 3^2
    assert towers["fc6"].macs == 37_748_736  # 9216 x 4096
    assert sum(row.macs for row in towers.values()) == 724_406_816
    assert column["conv2"].macs == 447_897_600
    local = summarize(model_spec("cuda-convnet-11", 10), (3, 24, 24))
    assert {row.name: row.macs for row in local}["local3"] == 1_327_104  # 6^2 x 64 x 64 x 3^2


def test_receptive_fields_by_hand() -> None:
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6")
    fields = [rows_of("alexnet-2012")[name].receptive_field for name in names]
    assert fields == [11, 19, 51, 67, 99, 131, 163, 195, 224]
    names = ("conv1", "pool1", "conv2", "mapnorm2", "pool2", "conv3", "conv4", "conv5", "pool5")
    fields = [rows_of("alexnet-2012-code")[name].receptive_field for name in names]
    assert fields == [11, 19, 51, 83, 99, 131, 163, 195, 224]


def test_the_codes_conv1_rounds_up() -> None:
    up = FAMILY["alexnet-2012-code"].spec(10)[0]
    assert isinstance(up, Conv)
    assert (up.kernel, up.stride, up.padding) == (11, 4, 0)
    assert up.shape((3, 224, 224)) == (96, 55, 55)
    assert replace(up, ceil=False).shape((3, 224, 224)) == (96, 54, 54)
    conv = up.build((3, 224, 224))
    images = torch.rand(1, 3, 224, 224)
    over = F.pad(images, (0, 3, 0, 3))  # 54 x 4 + 11 = 227
    expected = F.conv2d(over, conv.weight, conv.bias, stride=4)
    torch.testing.assert_close(conv(images), expected)
    assert up.build((3, 227, 227))(torch.rand(1, 3, 227, 227)).shape[-1] == 55


@pytest.mark.parametrize(("height", "width", "below", "right"), [(4, 5, 1, 0), (5, 4, 0, 1)])
def test_rounding_up_is_by_side(height: int, width: int, below: int, right: int) -> None:
    part = Conv("conv1", 2, 3, 2, padding=1, ceil=True)
    conv = part.build((1, height, width))
    x = torch.rand(1, 1, height, width)
    over = F.pad(x, (1, 1 + right, 1, 1 + below))
    torch.testing.assert_close(conv(x), F.conv2d(over, conv.weight, conv.bias, stride=2))
    assert part.shape((1, height, width)) == (2, 3, 3)


def torchvisions_alexnet(classes: int) -> nn.Module:
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    net.avgpool = nn.AdaptiveAvgPool2d((6, 6))
    net.classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
    return net.eval()


def test_2014_is_torchvisions_and_loads_its_weights() -> None:
    torch.manual_seed(1)
    theirs = torchvisions_alexnet(10)
    weights = theirs.state_dict()
    for size in (224, 80, 300):
        with torch.device("meta"):
            ours = build_model("alexnet-2014", 10, size=size).eval()
        assert list(ours.state_dict()) == list(weights)
        ours.load_state_dict(weights, strict=True, assign=True)
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            maps = theirs.avgpool(theirs.features(images))
            logits, kept = ours.activations(images, ["avgpool5"])
            torch.testing.assert_close(kept["avgpool5"], maps)
            torch.testing.assert_close(logits, theirs.classifier(maps.flatten(1)))


def test_2014_takes_its_dropout_from_the_place_torchvision_has_it() -> None:
    names = [name for name, _ in named_parts(FAMILY["alexnet-2014"].spec(10))]
    assert names[-9:] == [
        *("pool5", "avgpool5", "drop5", "fc6", "relu6", "drop6", "fc7", "relu7", "fc8")
    ]


def across(a: Tensor, alpha: float, k: float) -> Tensor:
    """The equation of section 3.3 with n = 5 and beta = 0.75."""
    sums = [a[:, max(0, i - 2) : i + 3].square().sum(1) for i in range(a.shape[1])]
    return a / (k + alpha * torch.stack(sums, 1)) ** 0.75


def within(a: Tensor, alpha: float, k: float) -> Tensor:
    """The same over 5 x 5 places of one map."""
    rows = []
    for i in range(a.shape[2]):
        near = a[:, :, max(0, i - 2) : i + 3].square().sum(2)
        places = range(a.shape[3])
        rows.append(torch.stack([near[..., max(0, j - 2) : j + 3].sum(2) for j in places], 2))
    return a / (k + alpha * torch.stack(rows, 2)) ** 0.75


def half(w: Weights, name: str, tower: int) -> tuple[Tensor, Tensor]:
    """The weights and biases that are on one of the two GPUs."""
    kept = len(w[f"{name}.bias"]) // 2
    place = slice(tower * kept, (tower + 1) * kept)
    return w[f"{name}.weight"][place], w[f"{name}.bias"][place]


def dense(w: Weights, x: Tensor, scale: float) -> Tensor:
    """fc6 to fc8 at test time; `scale` is what multiplies the hidden layers in place of dropout."""
    for name in ("fc6", "fc7"):
        x = F.linear(x.flatten(1), w[f"{name}.weight"], w[f"{name}.bias"]).relu() * scale
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def two_gpus(w: Weights, images: Tensor) -> tuple[Tensor, Weights]:
    """The paper's figure 2, one tower at a time. Logits and outputs of parts, towers joined."""
    towers, kept = [images, images], {}

    def each(name: str, step: Callable[[Tensor, int], Tensor]) -> None:
        towers[:] = [step(x, i) for i, x in enumerate(towers)]
        kept[name] = torch.cat(towers, 1)

    each("conv1", lambda x, i: F.conv2d(x, *half(w, "conv1", i), stride=4, padding=2))
    each("norm1", lambda x, i: across(x.relu(), 1e-4, 2))
    each("pool1", lambda x, i: F.max_pool2d(x, 3, 2))
    each("conv2", lambda x, i: F.conv2d(x, *half(w, "conv2", i), padding=2))
    each("norm2", lambda x, i: across(x.relu(), 1e-4, 2))
    each("pool2", lambda x, i: F.max_pool2d(x, 3, 2))
    both = kept["pool2"]
    each("conv3", lambda x, i: F.conv2d(both, *half(w, "conv3", i), padding=1))
    each("conv4", lambda x, i: F.conv2d(x.relu(), *half(w, "conv4", i), padding=1))
    each("conv5", lambda x, i: F.conv2d(x.relu(), *half(w, "conv5", i), padding=1))
    each("pool5", lambda x, i: F.max_pool2d(x.relu(), 3, 2))
    return dense(w, kept["pool5"], 0.5), kept


def layer_file_145(w: Weights, images: Tensor) -> tuple[Tensor, Weights]:
    """The same for the 2012 code; at 70 pixels every window that rounds up is one pixel over."""
    towers, kept = [images, images], {}

    def each(name: str, step: Callable[[Tensor, int], Tensor]) -> None:
        towers[:] = [step(x, i) for i, x in enumerate(towers)]
        kept[name] = torch.cat(towers, 1)

    def pool(x: Tensor, tower: int) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)

    over = F.pad(images, (0, 1, 0, 1))
    each("conv1", lambda x, i: F.conv2d(over, *half(w, "conv1", i), stride=4))
    each("norm1", lambda x, i: across(x, 1e-4 / 5, 2))
    each("pool1", pool)
    each("relu1", lambda x, i: x.relu())
    each("conv2", lambda x, i: F.conv2d(x, *half(w, "conv2", i), padding=2))
    each("norm2", lambda x, i: across(x.relu(), 1e-4 / 5, 2))
    each("mapnorm2", lambda x, i: within(x, 1e-3 / 25, 1))
    each("pool2", pool)
    both = kept["pool2"]
    each("conv3", lambda x, i: F.conv2d(both, *half(w, "conv3", i), padding=1))
    each("conv4", lambda x, i: F.conv2d(x.relu(), *half(w, "conv4", i), padding=1))
    each("conv5", lambda x, i: F.conv2d(x.relu(), *half(w, "conv5", i), padding=1))
    each("pool5", pool)
    each("relu5", lambda x, i: x.relu())
    return dense(w, kept["relu5"], 0.5), kept


def one_net(name: str) -> Callable[[Weights, Tensor], tuple[Tensor, Weights]]:
    """alexnet-caffe, caffenet and alexnet-one-column by torch's own response norm."""

    def run(w: Weights, x: Tensor) -> tuple[Tensor, Weights]:
        caffe, kept = name != "alexnet-one-column", {}
        towers = 2 if caffe else 1
        for i, padding in enumerate((0 if caffe else 2, 2, 1, 1, 1), 1):
            groups = towers if i in (2, 4, 5) else 1
            weights = w[f"conv{i}.weight"], w[f"conv{i}.bias"]
            x = F.conv2d(x, *weights, stride=4 if i == 1 else 1, padding=padding, groups=groups)
            kept[f"conv{i}"] = x
            x = x.relu()
            if i < 3 and name != "caffenet":
                x = F.local_response_norm(x, 5, 1e-4 if caffe else 5e-4, 0.75, 1 if caffe else 2)
                kept[f"norm{i}"] = x
            if i in (1, 2, 5):
                x = F.max_pool2d(x, 3, 2, ceil_mode=caffe)
                kept[f"pool{i}"] = x
            if i < 3 and name == "caffenet":
                x = F.local_response_norm(x, 5, 1e-4, 0.75, 1)
                kept[f"norm{i}"] = x
        return dense(w, x, 1.0), kept

    return run


def largest(x: Tensor) -> float:
    return float(x.detach().abs().max())


@pytest.mark.parametrize(
    ("name", "reference", "last"),
    [
        ("alexnet-2012", two_gpus, 1),
        ("alexnet-2012-code", layer_file_145, 2),
        ("alexnet-caffe", one_net("alexnet-caffe"), 2),
        ("caffenet", one_net("caffenet"), 2),
        ("alexnet-one-column", one_net("alexnet-one-column"), 1),
    ],
)
def test_logits_and_gradients_are_the_references(
    name: str,
    reference: Callable[[Weights, Tensor], tuple[Tensor, Weights]],
    last: int,
    built: Built,
) -> None:
    # In float64: in float32 a rounding may choose another pixel of a pool, and all behind it.
    net = copy.deepcopy(built(name)).double()
    torch.manual_seed(3)
    with torch.no_grad():
        for p in net.parameters():  # biases that are all alike would hide an exchange
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.1)
    weights = dict(net.named_parameters())
    # far from zero, where the norms have much to divide by
    images = torch.randn(2, 3, SIZES[name], SIZES[name], dtype=torch.float64) * 300
    expected, parts = reference(weights, images)
    logits, kept = net.activations(images, parts)
    assert kept["pool5"].shape[1:] == (256, last, last)
    for part, x in parts.items():
        assert largest(kept[part] - x) < 1e-6 * largest(x), part
    assert largest(logits - expected) < 1e-6 * largest(expected)
    direction = torch.randn_like(logits)
    ours, theirs = (
        torch.autograd.grad(out, list(weights.values()), direction) for out in (logits, expected)
    )
    for key, mine, other in zip(weights, ours, theirs, strict=True):
        assert largest(other) > 0, key
        assert largest(mine - other) < 1e-6 * largest(other), key


def test_caffes_two_differ_in_order_and_biases_alone() -> None:
    one, two = (list(FAMILY[name].spec(10)) for name in ("alexnet-caffe", "caffenet"))
    names = [[name for name, _ in named_parts(spec)][:8] for spec in (one, two)]
    assert names[0] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert names[1] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert one[2] == ResponseNorm(5, 1e-4, 0.75, 1.0, divide=True, groups=1)
    for place in (2, 6):
        one[place], one[place + 1] = one[place + 1], one[place]
    assert one != two

    def without_bias(part: Part) -> Part:
        return replace(part, bias=0.0) if isinstance(part, Conv | Linear) else part

    assert [*map(without_bias, one)] == [*map(without_bias, two)]
    assert FAMILY["alexnet-caffe"].size == FAMILY["caffenet"].size == 227


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
ONES = (0, 1, 0, 1, 1, 1, 1, 0)
TENTHS = (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)
CAFFES = (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
NORMAL = {
    "alexnet-2012": ((0.01,) * 8, ONES),
    "alexnet-2012-code": ((0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), ONES),
    "alexnet-caffe": (CAFFES, TENTHS),
    "caffenet": (CAFFES, ONES),
    "alexnet-one-column": ((0.01,) * 8, (0, 1, 0, 1, 1, 0, 0, 0)),
}


@pytest.mark.parametrize("name", NORMAL)
def test_first_weights_are_normal(name: str, built: Built) -> None:
    rows = rows_of(name)
    for layer, std, bias in zip(LAYERS, *NORMAL[name], strict=True):
        part = built(name).part(layer)
        weight = part.weight.detach().double()
        room = 5 / math.sqrt(weight.numel())
        assert abs(weight.mean()) < room * std, layer
        assert float(weight.std()) == pytest.approx(std, rel=room), layer
        # 68.27 % of a normal distribution is within one deviation, 57.7 % of a uniform one
        assert float((weight.abs() < std).double().mean()) == pytest.approx(0.6827, abs=room)
        assert (part.bias == torch.tensor(float(bias))).all(), layer
        assert (rows[layer].distribution, rows[layer].std, rows[layer].bias) == (
            *("normal", std, bias),
        )


def test_first_weights_of_2014_are_uniform(built: Built) -> None:
    rows = rows_of("alexnet-2014")
    inputs = (363, 1600, 1728, 3456, 2304, 9216, 4096, 4096)
    for layer, count in zip(LAYERS, inputs, strict=True):
        part, bound = built("alexnet-2014").part(layer), 1 / math.sqrt(count)
        weight = part.weight.detach().double()
        room = 5 / math.sqrt(weight.numel())
        assert largest(weight) == pytest.approx(bound, rel=room)
        assert largest(weight) <= bound * (1 + 1e-6)
        assert abs(weight.mean()) < room * bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=room)
        assert float((weight.abs() < bound / 2).double().mean()) == pytest.approx(0.5, abs=room)
        assert 0.5 * bound < largest(part.bias) <= bound * (1 + 1e-6)
        assert rows[layer].distribution == "uniform"
        assert rows[layer].std == pytest.approx(bound / math.sqrt(3))
        assert rows[layer].bias is None


def test_first_weights_of_bn_are_hes(built: Built) -> None:
    rows = rows_of("alexnet-bn")
    inputs = (363, 2400, 2304, 3456, 3456, 256, 4096, 4096)  # fc6 of 1 x 1 maps here
    for layer, count in zip(LAYERS, inputs, strict=True):
        part = built("alexnet-bn").part(layer)
        room = 5 / math.sqrt(part.weight.numel())
        assert float(part.weight.detach().std()) == pytest.approx(math.sqrt(2 / count), rel=room)
        assert not part.bias.any()
    assert rows["fc6"].std == pytest.approx(math.sqrt(2 / 9216))


def test_the_papers_dropout_does_not_rescale() -> None:
    torch.manual_seed(0)
    layer = Dropout(0.5, rescale=False).build((100_000,))
    x = torch.rand(1, 100_000) + 1
    dropped = layer(x)
    kept = dropped != 0
    assert torch.equal(dropped[kept], x[kept])
    assert float(kept.double().mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(layer.eval()(x), x * 0.5)


def test_another_rate_of_the_papers_dropout() -> None:
    torch.manual_seed(0)
    layer = Dropout(0.2, rescale=False).build((100_000,))
    x = torch.rand(1, 100_000) + 1
    dropped = layer(x)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept])
    assert float(kept.double().mean()) == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(layer.eval()(x), x * 0.8)


def test_todays_dropout_does_rescale() -> None:
    torch.manual_seed(0)
    layer = Dropout(0.2).build((1000,))
    x = torch.rand(1, 1000) + 1
    dropped = layer(x)
    kept = dropped != 0
    assert 0.7 < float(kept.double().mean()) < 0.9
    torch.testing.assert_close(dropped[kept], x[kept] / 0.8)
    assert torch.equal(layer.eval()(x), x)


def test_which_nets_have_which_dropout() -> None:
    rescaled = {
        name: {part.rescale for part in preset.spec(10) if isinstance(part, Dropout)}
        for name, preset in FAMILY.items()
    }
    papers = {"alexnet-2012", "alexnet-2012-code"}
    assert rescaled == {name: {name not in papers} for name in FAMILY}


@pytest.mark.parametrize("padding", [0, 1])
def test_local_is_a_loop_over_places(padding: int) -> None:
    torch.manual_seed(0)
    part = Local("local1", 4, 3, padding=padding, bias=0.5)
    layer = part.build((2, 5, 6))
    rows, columns = 3 + 2 * padding, 4 + 2 * padding
    assert part.shape((2, 5, 6)) == (4, rows, columns)
    assert (layer.bias == 0.5).all()
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 2, 5, 6)
    around = F.pad(x, (padding,) * 4)
    found = layer(x)
    assert found.shape == (3, 4, rows, columns)
    for place, (i, j) in enumerate(itertools.product(range(rows), range(columns))):
        filters = layer.weight[place].T.reshape(4, 2, 3, 3)
        window = around[:, :, i : i + 3, j : j + 3]
        expected = (window[:, None] * filters).sum((2, 3, 4)) + layer.bias[:, i, j]
        torch.testing.assert_close(found[:, :, i, j], expected)


def test_local_starts_as_asked() -> None:
    torch.manual_seed(0)
    layer = Local("local3", 64, 3, padding=1, std=0.04).build((64, 6, 6))
    assert float(layer.weight.detach().std()) == pytest.approx(0.04, rel=0.01)
    assert not layer.bias.any()
    he = Local("local3", 64, 3, padding=1).build((64, 6, 6))
    assert float(he.weight.detach().std()) == pytest.approx(math.sqrt(2 / 576), rel=0.01)


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(("side", "out"), [(6, 3), (7, 3), (16, 8), (3, 1), (4, 2)])
def test_pools_that_round_up_leave_out_what_is_outside(kind: str, side: int, out: int) -> None:
    part = Pool(3, 2, kind="mean" if kind == "mean" else "max", ceil=True)
    x = np.random.default_rng(side).normal(size=(2, 3, side, side)) - 3
    expected = np.empty((2, 3, out, out))
    for i, j in itertools.product(range(out), range(out)):
        inside = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[:, :, i, j] = inside.mean((2, 3)) if kind == "mean" else inside.max((2, 3))
    found = part.build((3, side, side))(torch.from_numpy(x))
    assert part.shape((3, side, side)) == (3, out, out)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_mean_to_a_side() -> None:
    x = torch.rand(1, 2, 13, 13)
    found = MeanTo(6).build((2, 13, 13))(x)
    for i, j in itertools.product(range(6), range(6)):
        rows, columns = (slice(13 * p // 6, math.ceil(13 * (p + 1) / 6)) for p in (i, j))
        torch.testing.assert_close(found[:, :, i, j], x[:, :, rows, columns].mean((2, 3)))
    small = torch.rand(1, 2, 6, 6)
    assert torch.equal(MeanTo(6).build((2, 6, 6))(small), small)


def test_grey_images_any_classes_and_the_smallest_size() -> None:
    net = build_model("alexnet-2012", 3, channels=1, size=63).eval()
    assert net.input_shape == (1, 63, 63)
    assert net.conv1.weight.shape == (96, 1, 11, 11)
    with torch.no_grad():
        assert net(torch.rand(2, 1, 63, 63)).shape == (2, 3)
        # 65 pixels make the same maps, so that the same net takes them
        logits, kept = net.activations(torch.rand(2, 1, 65, 65), ["pool5"])
    assert kept["pool5"].shape == (2, 256, 1, 1)
    assert logits.shape == (2, 3)
    with torch.device("meta"):
        larger = build_model("alexnet-2012", 17, channels=4, size=65)
    assert larger.fc8.weight.shape == (17, 4096)
    assert larger.conv1.weight.shape == (96, 4, 11, 11)
    assert larger.fc6.weight.shape == (4096, 256)


def test_too_small_an_image_is_refused_with_the_size_that_fits() -> None:
    with pytest.raises(UsageError, match=r"63 pixels.* 62 were asked .*--crop 63"):
        build_model("alexnet-2012", 10, size=62)
    with pytest.raises(UsageError, match=r"--crop 63"):
        build_model("alexnet-2012", 10, size=4)
    # 3 places before the last pool, 6 and 12 before the others, which round up: 11 x 4 + 11
    with pytest.raises(UsageError, match=r"alexnet-caffe takes images of 55 pixels.*--crop 55"):
        build_model("alexnet-caffe", 10, size=32)
    # and three fewer where conv1 rounds up as well
    with pytest.raises(UsageError, match=r"--crop 52"):
        build_model("alexnet-2012-code", 10, size=51)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("cafenet", "caffenet"),
        ("alexnet-one-colum", "alexnet-one-column"),
        ("alexnet-2012-cod", "alexnet-2012-code"),
        ("cuda-convnet-1", "cuda-convnet-1[138]"),
    ],
)
def test_a_misspelt_model_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"unknown model '{wrong}': did you mean '{right}'"):
        find_model(wrong)
    with pytest.raises(UsageError, match="unknown model 'zzz'"):
        build_model("zzz")


def test_every_preset_says_what_it_is_and_whose_choices_it_has() -> None:
    kinds = {"sizes", "padding", "order", "norm", "pool", "dropout", "init", "biases"}
    for name, preset in FAMILY.items():
        assert MODELS[name] is preset
        assert len(preset.about) > 20
        assert preset.sources.keys() == kinds | {"groups"}
        assert all(preset.sources.values())


def test_logits_are_float32_under_autocast(built: Built) -> None:
    net = built("alexnet-2012")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits, kept = net.activations(torch.rand(2, 3, 79, 79), ["conv1", "norm1", "pool5"])
    assert {x.dtype for x in kept.values()} == {torch.bfloat16}
    assert logits.dtype == torch.float32
    # computed in float32 and not only converted: bfloat16 keeps 8 bits
    assert not torch.equal(logits, logits.bfloat16().float())


@pytest.mark.parametrize("given", [{"channels": 0}, {"size": 0}, {"size": -3}])
def test_inputs_of_nothing_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        build_model("alexnet-2012", **given)
