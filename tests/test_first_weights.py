"""First weights: the distribution, deviation and biases of each network."""

import math

import pytest
import torch

from nets import Built, largest, rows_of
from nets import built as built

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
