"""Networks made for answers alone answer as the networks do."""

import copy

import pytest
import torch
from torch import nn

from alexnet.models import MODELS, build_model
from alexnet.training import Inference
from nets import SIZES, trained_norms


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_answers_are_the_networks(name: str) -> None:
    torch.manual_seed(0)
    net = build_model(name, 7, size=SIZES.get(name)).eval()
    trained_norms(net)
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(2, *net.input_shape).sub_(0.5)
    expected = net(x)
    spread = expected.std()
    exact, quick = Inference(net, "fp32")(x), Inference(net, "bf16")(x)
    assert exact.dtype == quick.dtype == torch.float32
    assert (exact - expected).abs().max() < 1e-4 * max(spread, 1)
    assert (quick - expected).abs().max() < 0.1 * max(spread, 0.1)
    for key, value in net.state_dict().items():  # the network itself is as it was
        assert torch.equal(value, before[key])


def test_batch_norms_are_folded_where_they_follow_a_layer() -> None:
    def norms(net: nn.Module) -> int:
        return sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules())

    net = build_model("alexnet-bn", 5, size=SIZES["alexnet-bn"])
    assert norms(net) > 0
    assert norms(Inference(net, "bf16")) == 0
    after_relu = build_model("cifar-alexnet", 5)
    assert norms(Inference(after_relu, "bf16")) == norms(after_relu)


def test_the_last_layer_stays_float32() -> None:
    net = build_model("mnist-alexnet", 5)
    answers = Inference(net, "bf16")
    *body, last = answers.layers
    assert last == "fc6"
    assert answers.layers[last] is net.part("fc6")
    assert {p.dtype for p in answers.layers[last].parameters()} == {torch.float32}
    assert {p.dtype for name in body for p in answers.layers[name].parameters()} == {torch.bfloat16}
