"""A convolution over blocks is the convolution."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.diagnosis.graph import linear_pairs
from alexnet.models.strided import StridedConv
from alexnet.models.zoo import build_model

around = st.tuples(*(st.integers(0, 3),) * 4)


def plain(conv: StridedConv, x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, conv.around), conv.weight, conv.bias, conv.stride, 0, 1, conv.groups)


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 11), st.integers(2, 4), around,
       st.integers(11, 25), st.integers(11, 25))  # fmt: skip
def test_outputs_and_gradients_are_those_of_the_definition(
    channels: int, kernel: int, stride: int, pads: tuple[int, int, int, int], high: int, wide: int
) -> None:
    torch.manual_seed(0)
    conv = StridedConv(channels, 5, kernel, stride, pads, 1).double()
    assert conv.in_blocks
    x = torch.randn(2, channels, high, wide, dtype=torch.double, requires_grad=True)
    ours, theirs = conv(x), plain(conv, x)
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
    def is_in_blocks(conv: nn.Module, x: Tensor) -> bool:
        node = conv(x).grad_fn
        return node is not None and "Permute" in str(node.next_functions[1][0])

    x = torch.randn(1, 3, 31, 31)
    conv = StridedConv(3, 4, 11, 4, (2, 2, 2, 2), 1)
    assert is_in_blocks(conv, x)
    with torch.no_grad():
        assert not is_in_blocks(conv, x)
    conv.weight.requires_grad_(False)
    assert not is_in_blocks(conv, x)
    assert not StridedConv(16, 4, 11, 4, (2, 2, 2, 2), 1).in_blocks
    assert not StridedConv(4, 4, 11, 4, (2, 2, 2, 2), 2).in_blocks


def test_under_autocast_the_products_are_bf16() -> None:
    conv = StridedConv(3, 8, 11, 4, (2, 2, 2, 2), 1)
    x = torch.randn(2, 3, 47, 47)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert (y - plain(conv, x)).abs().max() < 0.05


@pytest.mark.parametrize("name", ["alexnet-2014", "alexnet-2012-code"])
def test_exporters_see_a_convolution(name: str) -> None:
    net = build_model(name, 3)
    program = torch.export.export(net, (torch.randn(2, 3, 224, 224),))
    kinds = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [kind for kind in kinds if "permute" in kind]


def test_the_doctor_sees_no_layers_in_a_row() -> None:
    net = nn.Sequential(StridedConv(3, 4, 5, 2, (2, 2, 2, 2), 1), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(4 * 8 * 8, 3))
    assert not linear_pairs(net(torch.randn(4, 3, 16, 16)).square().sum())
