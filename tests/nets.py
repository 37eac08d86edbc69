"""The AlexNets of the literature for tests: small, with first weights; their layers as tables."""

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from alexnet.models import FAMILY, LayerRow, Net, build_model, summarize

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


def trained_norms(net: nn.Module) -> None:
    """Batch norms as after a training: each with its own figures."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, low, high in (("running_mean", -1, 1), ("running_var", 0.5, 2)):
                getattr(module, name).uniform_(low, high)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)


def largest(x: Tensor) -> float:
    return float(x.detach().abs().max())
