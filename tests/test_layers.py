"""Layers against loops: convolutions and pools that round up, dropout, local filters, means."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alexnet.models import FAMILY, Conv, Dropout, Local, MeanTo, Pool


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
