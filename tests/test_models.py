"""The networks: counted by hand, and their parts against loops that cannot be wrong."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import alexnet
from alexnet.errors import UsageError
from alexnet.models import (
    FAMILY,
    MODELS,
    RETIRED,
    SMALL,
    Conv,
    Linear,
    Net,
    Pool,
    build_model,
    find_model,
    model_spec,
    response_norm,
    summarize,
)
from nets import SIZES


def conv(given: int, out: int, kernel: int = 3) -> int:
    return given * kernel**2 * out + out


def linear(given: int, out: int) -> int:
    return given * out + out


def norm(channels: int) -> int:
    return 2 * channels


def small(widths: tuple[int, ...], units: int, channels: int, side: int) -> int:
    total, given = 0, channels
    for width in widths:
        total, given = total + conv(given, width) + norm(width), width
    total += linear(given * side**2, units) + norm(units)
    total += linear(units, units) + norm(units)
    return total + linear(units, 10)


def pairs(given: int, widths: tuple[int, ...]) -> list[int]:
    """Two 3x3 convolutions of each width, batch norm after both."""
    counts = []
    for width in widths:
        counts += [conv(given, width) + norm(width), conv(width, width) + norm(width)]
        given = width
    return counts


def local(given: int, out: int, side: int) -> int:
    return side**2 * conv(given, out)


# conv3 and the fully connected layers are the same wherever the paper's widths are.
HEAD = (linear(6 * 6 * 256, 4096), linear(4096, 4096), linear(4096, 1000))
TOWERS = (conv(3, 96, 11), conv(48, 256, 5), conv(256, 384), conv(192, 384), conv(192, 256), *HEAD)
COLUMN = (conv(3, 96, 11), conv(96, 256, 5), conv(256, 384), conv(384, 384), conv(384, 256), *HEAD)

# Written down from the papers', the seeds' and cuda-convnet's own layer lists and from the widths,
# not from the code's tables; with 1000 classes in the family and 10 for small images.
PARAMETERS = {
    "alexnet-2012": TOWERS,
    "alexnet-2012-code": TOWERS,
    "alexnet-caffe": TOWERS,
    "caffenet": TOWERS,
    "alexnet-one-column": COLUMN,
    "alexnet-bn": (*COLUMN, *map(norm, (96, 256, 384, 384, 256, 4096, 4096))),
    "alexnet-2014": (
        *(conv(3, 64, 11), conv(64, 192, 5), conv(192, 384), conv(384, 256), conv(256, 256)),
        *HEAD,
    ),
    "cuda-convnet-18": (
        *(conv(3, 32, 5), conv(32, 32, 5), conv(32, 64, 5), linear(4 * 4 * 64, 10)),
    ),
    "cuda-convnet-13": (
        *(conv(3, 64, 5), conv(64, 64, 5), local(64, 32, 6), local(32, 32, 6)),
        linear(6 * 6 * 32, 10),
    ),
    "cuda-convnet-11": (
        *(conv(3, 64, 5), conv(64, 64, 5), local(64, 64, 6), local(64, 32, 6)),
        linear(6 * 6 * 32, 10),
    ),
    "cifar-alexnet": (
        *(conv(3, 64) + norm(64), conv(64, 128) + norm(128)),
        *(conv(128, 256) + norm(256), conv(256, 512) + norm(512)),
        *(linear(2 * 2 * 512, 128) + norm(128), linear(128, 256) + norm(256)),
        *(linear(256, 512) + norm(512), linear(512, 1024) + norm(1024)),
        linear(1024, 10),
    ),
    "mnist-alexnet": (
        *(conv(1, 64), conv(64, 128), conv(128, 256)),
        *(linear(4 * 4 * 256, 1024), linear(1024, 1024), linear(1024, 10)),
    ),
    "alexnet-2012-32": (
        *(conv(3, 32, 5), conv(16, 64, 5), conv(64, 96), conv(48, 96), conv(48, 64)),
        *(linear(3 * 3 * 64, 512), linear(512, 512), linear(512, 10)),
    ),
    "alexnet-28": (small((32, 64, 96, 96, 96), 256, 1, 4),),
    "alexnet-32": (small((48, 96, 192, 192, 128), 512, 3, 4),),
    "wide-32": (conv(3, 24, 2), *pairs(24, (64, 256, 256)), linear(256, 10)),
    "fast-32": (conv(3, 24, 2), *pairs(24, (64, 128, 256)), linear(256, 10)),
    "fast-128": (conv(3, 64, 5) + norm(64), *pairs(64, (128, 256, 384)), linear(384, 10)),
    "patch-128": (conv(3, 96, 4), *pairs(96, (64, 128, 256)), linear(256, 10)),
    "fashion-alexnet": (small((48, 96, 128, 128, 128), 256, 1, 4),),
}


TOTALS = {
    "alexnet-2012": 60_965_224,
    "alexnet-2012-code": 60_965_224,
    "alexnet-caffe": 60_965_224,
    "caffenet": 60_965_224,
    "alexnet-one-column": 62_378_344,
    "alexnet-bn": 62_397_480,
    "alexnet-2014": 61_100_840,
    "cuda-convnet-18": 89_578,
    "cuda-convnet-13": 1_116_490,
    "cuda-convnet-11": 2_112_970,
    "cifar-alexnet": 2_519_178,
    "mnist-alexnet": 5_624_842,
}


@pytest.mark.parametrize("name", [*MODELS, *RETIRED])
def test_every_model_is_counted(name: str) -> None:
    classes = 1000 if name in FAMILY else 10
    preset = find_model(name)
    rows = summarize(model_spec(name, classes), (preset.channels, preset.size, preset.size))
    assert sum(row.parameters for row in rows) == sum(PARAMETERS[name])
    assert name not in TOTALS or sum(PARAMETERS[name]) == TOTALS[name]


def test_no_model_is_left_out() -> None:
    assert MODELS.keys() == FAMILY.keys() | SMALL.keys()
    assert PARAMETERS.keys() == MODELS.keys() | RETIRED.keys()
    assert PARAMETERS.keys() >= TOTALS.keys()


@pytest.mark.parametrize("name", [*SMALL, *RETIRED])
def test_parameters_and_shapes(name: str) -> None:
    model = build_model(name, 10).eval()
    assert sum(p.numel() for p in model.parameters()) == sum(PARAMETERS[name])
    images = torch.rand(3, *model.input_shape)
    logits, kept = model.activations(images, model.parts)
    assert logits.shape == (3, 10)
    assert logits.dtype == torch.float32
    assert list(kept) == list(model.parts)
    rows = summarize(model_spec(name, 10), model.input_shape)
    assert [row.name for row in rows] == list(model.parts)
    assert [row.shape for row in rows] == [tuple(kept[row.name].shape[1:]) for row in rows]
    torch.testing.assert_close(kept[list(kept)[-1]], logits, rtol=0, atol=0)
    assert build_model(name, 7)(images).shape == (3, 7)


def test_multiply_adds_are_counted() -> None:
    rows = {r.name: r for r in summarize(model_spec("mnist-alexnet", 10), (1, 28, 28))}
    assert rows["conv1"].macs == 28 * 28 * 64 * 9
    assert rows["conv2"].macs == 14 * 14 * 128 * 64 * 9
    assert rows["conv3"].macs == 7 * 7 * 256 * 128 * 9
    assert rows["fc4"].macs == 4096 * 1024
    assert rows["pool1"].macs == rows["relu1"].macs == 0
    assert Conv("c", 6, 3, groups=2).shape((4, 5, 5)) == (6, 3, 3)
    (grouped,) = summarize([Conv("c", 6, 3, groups=2)], (4, 5, 5))
    assert grouped.macs == 6 * 3 * 3 * 2 * 9
    assert grouped.parameters == 6 * 2 * 9 + 6


def test_names_are_the_public_api() -> None:
    model = build_model("alexnet-28", 10).eval()
    layers = {key.partition(".")[0] for key in model.state_dict()}
    assert {"conv1", "conv5", "fc6", "fc7", "fc8", "bn1", "bn7"} <= layers
    assert {"relu1", "pool1", "pool2", "pool5", "drop6", "drop7"} <= set(model.parts)
    with pytest.raises(UsageError, match="no part 'conv9'"):
        model.activations(torch.rand(1, 1, 28, 28), ["conv9"])
    _, kept = model.activations(torch.rand(1, 1, 28, 28), ["conv2"])
    assert list(kept) == ["conv2"]


def test_activations_are_what_the_parts_compute() -> None:
    """conv1's map by torch's own convolution, and forward is the last of the activations."""
    torch.manual_seed(0)
    model = build_model("cifar-alexnet", 10).eval()
    images = torch.rand(2, 3, 32, 32)
    logits, kept = model.activations(images, ["conv1", "relu1"])
    weight, bias = model.conv1.weight, model.conv1.bias
    torch.testing.assert_close(
        kept["conv1"], torch.nn.functional.conv2d(images, weight, bias, padding=1)
    )
    torch.testing.assert_close(kept["relu1"], kept["conv1"].clamp(min=0))
    torch.testing.assert_close(model(images), logits, rtol=0, atol=0)


def naive_same_pool(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """TensorFlow's SAME: ceil(side / stride) windows, the odd padding pixel below and right."""
    side = x.shape[-1]
    out = math.ceil(side / stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    result = np.empty((*x.shape[:2], out, out), x.dtype)
    for i in range(out):
        for j in range(out):
            top, left = i * stride - before, j * stride - before
            rows = slice(max(top, 0), min(top + kernel, side))
            columns = slice(max(left, 0), min(left + kernel, side))
            result[:, :, i, j] = x[:, :, rows, columns].max((2, 3))
    return result


@pytest.mark.parametrize("side", [28, 14, 7, 8, 5, 1])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 1), (2, 3)])
def test_same_pool_is_tensorflows(side: int, kernel: int, stride: int) -> None:
    part = Pool(kernel, stride, "same")
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side)) - 3
    found = part.build((3, side, side))(x)
    expected = naive_same_pool(x.numpy(), kernel, stride)
    assert part.shape((3, side, side)) == expected.shape[1:]
    np.testing.assert_array_equal(found.numpy(), expected)
    if (side, kernel, stride) == (7, 3, 2):
        assert found.shape[-1] == 4


@pytest.mark.parametrize(
    ("n", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (9, 0.001 / 9, 0.75, 1.0), (3, 0.5, 1.5, 1)]
)
def test_response_norm_is_the_papers(n: int, alpha: float, beta: float, k: float) -> None:
    """b_i = a_i / (k + alpha sum_j a_j^2)^beta, j from max(0, i - n/2) to min(N - 1, i + n/2)."""
    a = np.random.default_rng(0).normal(0, 30, (2, 12, 3, 3))
    expected = np.empty_like(a)
    for i in range(12):
        window = a[:, max(0, i - n // 2) : min(11, i + n // 2) + 1]
        expected[:, i] = a[:, i] / (k + alpha * (window**2).sum(1)) ** beta
    found = response_norm(torch.from_numpy(a), n, alpha, beta, k)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert alexnet.response_norm is response_norm


def test_response_norm_of_the_seed_net() -> None:
    layer = build_model("mnist-alexnet", 10).norm1
    x = torch.randn(1, 64, 2, 2).double() * 50
    torch.testing.assert_close(layer(x), response_norm(x, 9, 0.001 / 9, 0.75, 1.0))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_float32_under_autocast(name: str) -> None:
    model = build_model(name, 10).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits, kept = model.activations(torch.rand(2, *model.input_shape), ["conv1"])
    assert kept["conv1"].dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    # computed in float32 and not only converted: bfloat16 keeps 8 bits
    assert not torch.equal(logits, logits.bfloat16().float())


def spread(layer: torch.nn.Module) -> float:
    return float(layer.weight.detach().std())


def test_initialisation_is_as_specified() -> None:
    torch.manual_seed(0)
    model = Net([Linear("fc1", 500)], (400,))
    assert spread(model.fc1) == pytest.approx(math.sqrt(2 / 400), rel=0.01)
    layer = Conv("conv1", 64, 5, groups=2, bias=1.0).build((32, 9, 9))
    assert spread(layer) == pytest.approx(math.sqrt(2 / (16 * 25)), rel=0.02)
    assert (layer.bias == 1).all()
    assert spread(Conv("c", 64, 5, std=0.01).build((32, 9, 9))) == pytest.approx(0.01, rel=0.02)


def test_dropout_can_be_replaced() -> None:
    rates = {m.p for m in build_model("alexnet-28", dropout=0.25).modules() if hasattr(m, "p")}
    assert rates == {0.25}


def test_too_small_an_input_is_refused() -> None:
    with pytest.raises(UsageError, match=r"16 pixels .* and 15 .*its input has 1\): use crop=16"):
        build_model("cifar-alexnet", 10, size=15)
    assert build_model("cifar-alexnet", 10, size=16).eval()(torch.rand(1, 3, 16, 16)).shape[1] == 10


def test_unknown_model_and_one_class() -> None:
    with pytest.raises(UsageError, match="unknown model 'alexnet'"):
        build_model("alexnet")
    with pytest.raises(UsageError, match="1 class"):
        build_model("alexnet-28", 1)
    with pytest.raises(UsageError, match="input is flattened"):
        Net([Linear("fc1", 4), Conv("conv2", 1, 1)], (3, 2, 2))


class Order(TorchDispatchMode):
    """Keeps the order of max pools and ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kinds = {"relu": "relu", "max_pool2d_with_indices": "pool"}
        if name in kinds:
            self.taken.append(kinds[name])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "pools_first"), [("caffenet", 3), ("cifar-alexnet", 4), ("alexnet-2012-code", 0)]
)
def test_a_training_step_pools_before_relu_to_the_same_bits(name: str, pools_first: int) -> None:
    """A hook on a ReLU keeps the order that the network is written in."""
    size = SIZES.get(name, MODELS[name].size)
    orders, found = [], []
    for watched in (False, True):
        torch.manual_seed(0)
        net = build_model(name, 7, size=size).train()
        x = torch.randn(3, *net.input_shape)
        for part in net.parts:
            if watched and part.startswith("relu"):
                net.part(part).register_forward_hook(lambda *_: None)
        torch.manual_seed(1)
        with Order() as order:
            loss = net(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        orders.append(order.taken)
        found.append([loss, *(p.grad for p in net.parameters())])
    taken, written = orders
    assert written == [n.rstrip("0123456789") for n in net.parts if n[:4] in ("relu", "pool")]
    moved = [pair for pair in zip(written, taken, strict=True) if pair[0] != pair[1]]
    assert moved == [("relu", "pool"), ("pool", "relu")] * pools_first
    for first, then in zip(*found, strict=True):
        assert torch.equal(first, then)
