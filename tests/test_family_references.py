"""The AlexNets of the literature against plain re-implementations."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models import FAMILY, Conv, Linear, ResponseNorm, Spec, build_model, summarize
from nets import SIZES, Built, largest
from nets import built as built


def names_of(spec: Spec) -> list[str]:
    return [row.name for row in summarize(spec, (3, 227, 227))]


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
    names = names_of(FAMILY["alexnet-2014"].spec(10))
    assert names[-9:] == [
        *("pool5", "avgpool5", "drop5", "fc6", "relu6", "drop6", "fc7", "relu7", "fc8")
    ]


Weights = dict[str, Tensor]


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
    names = [names_of(spec)[:8] for spec in (one, two)]
    assert names[0] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert names[1] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert one[2] == ResponseNorm(5, 1e-4, 0.75, 1.0, divide=True, groups=1)
    for place in (2, 6):
        one[place], one[place + 1] = one[place + 1], one[place]
    assert one != two

    def without_bias(part: Any) -> Any:
        return replace(part, bias=0.0) if isinstance(part, Conv | Linear) else part

    assert [*map(without_bias, one)] == [*map(without_bias, two)]
    assert FAMILY["alexnet-caffe"].size == FAMILY["caffenet"].size == 227
