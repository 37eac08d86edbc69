"""A small network that learns, and made-up images for it: what the doctor is tried on."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from benchmarks.doctor.faults import Case
from torch import Tensor, nn

from alexnet.models import ResponseNormLayer
from conftest import patterns

# Small enough for a test; the real networks and images are the matrix of benchmarks/doctor.py.


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (given, out) in enumerate(((1, 12), (12, 16), (16, 16)), 1):
        layers[f"conv{i}"] = nn.Conv2d(given, out, 3, padding=1)
        layers[f"relu{i}"] = nn.ReLU()
        if i < 3:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            layers[f"norm{i}"] = ResponseNormLayer(n=5, alpha=1e-3, k=1.0)
    layers["flat"] = nn.Flatten()
    layers["fc4"] = nn.Linear(16 * 49, 48)
    layers["relu4"] = nn.ReLU()
    layers["drop4"] = nn.Dropout(0.3)
    layers["fc5"] = nn.Linear(48, 10)
    net = nn.Sequential(layers)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def drawn_images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    images, labels = patterns(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    x = torch.from_numpy(images).float()[:, None]
    return ((x - 40) / 40)[order], torch.from_numpy(labels).long()[order]


@pytest.fixture(scope="module")
def case() -> Case:
    x, y = drawn_images(600, 0)
    val_x, val_y = drawn_images(200, 1)
    raw = (torch.full((1,), 40.0), torch.full((1,), 40.0))
    return Case(small_net(), x, y, val_x, val_y, rate=0.01, raw=raw)


def said(found: dict[str, Any]) -> list[str]:
    return [v.name for v in found.verdicts if v.severity != "note"]
