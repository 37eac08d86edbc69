"""A first convolution that strides over few channels learns from blocks: the same convolution."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet import build_model, diagnose
from alexnet.models import Conv, Linear, Net, ReLU
from nets import SIZES

sides = st.integers(11, 25)


def plain(part: Conv, layer: nn.Module, x: Tensor) -> Tensor:
    """By torch's own convolution: zeros around, and below and right as far as a last window goes
    that begins inside."""
    pad, step, kernel = part.padding, part.stride, part.kernel
    rooms = [side + 2 * pad - kernel for side in x.shape[2:]]
    below, right = (part.ceil * (step * math.ceil(room / step) - room) for room in rooms)
    x = F.pad(x, (pad, pad + right, pad, pad + below))
    return F.conv2d(x, layer.weight, layer.bias, step, groups=part.groups)


def is_in_blocks(layer: nn.Module, x: Tensor) -> bool:
    node = layer(x).grad_fn
    return node is not None and "Permute" in str(node.next_functions[1][0])


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 11), st.integers(2, 4), st.integers(0, 3), st.booleans(),
       sides, sides)  # fmt: skip
def test_outputs_and_gradients_are_those_of_the_definition(
    channels: int, kernel: int, stride: int, padding: int, ceil: bool, high: int, wide: int
) -> None:
    torch.manual_seed(0)
    part = Conv("conv1", 5, kernel, stride, padding, ceil=ceil)
    conv = part.build((channels, high, wide)).double()
    x = torch.randn(2, channels, high, wide, dtype=torch.double, requires_grad=True)
    assert is_in_blocks(conv, x)
    ours, theirs = conv(x), plain(part, conv, x)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    wanted = (x, conv.weight, conv.bias)
    for a, b in zip(
        torch.autograd.grad(ours, wanted, direction),
        torch.autograd.grad(theirs, wanted, direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_blocks_are_for_training_and_few_channels() -> None:
    part, shape = Conv("conv1", 4, 11, 4, 2), (3, 31, 31)
    x = torch.randn(1, *shape)
    conv = part.build(shape)
    assert is_in_blocks(conv, x)
    with torch.no_grad():
        assert not is_in_blocks(conv, x)
    conv.weight.requires_grad_(False)
    assert not is_in_blocks(conv, x)
    assert not is_in_blocks(part.build((16, 31, 31)), torch.randn(1, 16, 31, 31))
    grouped = Conv("conv1", 4, 11, 4, 2, groups=2).build((4, 31, 31))
    assert not is_in_blocks(grouped, torch.randn(1, 4, 31, 31))


def test_under_autocast_the_products_are_bf16() -> None:
    part = Conv("conv1", 8, 11, 4, 2)
    conv, x = part.build((3, 47, 47)), torch.randn(2, 3, 47, 47)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert (y - plain(part, conv, x)).abs().max() < 0.05


@pytest.mark.parametrize("name", ["alexnet-2014", "alexnet-2012-code"])
def test_exporters_see_a_convolution(name: str) -> None:
    size = SIZES[name]
    program = torch.export.export(build_model(name, 3, size=size), (torch.randn(2, 3, size, size),))
    kinds = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("conv2d" in kind for kind in kinds)
    assert not [kind for kind in kinds if "permute" in kind]


@pytest.mark.parametrize("activation", [True, False])
def test_the_doctor_sees_no_layers_in_a_row(activation: bool) -> None:
    """But where they are."""
    between = [ReLU()] if activation else []
    convs = [[Conv(f"conv{i}", 4, 5, 2, 2), *between] for i in (1, 2, 3)]
    net = Net([part for parts in convs for part in parts] + [Linear("fc4", 3)], (3, 32, 32))
    assert is_in_blocks(net.part("conv1"), torch.randn(2, 3, 32, 32))
    images, labels = torch.randn(32, 3, 32, 32), torch.arange(32) % 3
    found = diagnose(net, [(images, labels)], steps=0)
    names = {verdict.name for verdict in found.verdicts}
    assert ("linear-layers" in names) == (not activation)
