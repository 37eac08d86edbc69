"""`diagnose` on other people's networks, loaders, losses and optimisers."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.doctor.faults import Case
from torch import Tensor, nn

from alexnet import diagnose
from alexnet.errors import UsageError
from patients import case as case
from patients import drawn_images, said, small_net

Loader = list[tuple[Tensor, Tensor]]


def adam(net: nn.Module, rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)


# Healthy networks that look odd


class Block(nn.Module):
    """A transformer's block whose branches begin near zero (LayerScale)."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale1 = nn.Parameter(torch.full((width,), scale))
        self.scale2 = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.scale1 * self.attention(y, y, y, need_weights=False)[0]
        found: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return found


class Transformer(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 7, 7)
        self.token = nn.Parameter(torch.randn(1, 1, 32) * 0.02)
        self.place = nn.Parameter(torch.randn(1, 17, 32) * 0.02)
        self.blocks = nn.Sequential(Block(32, scale), Block(32, scale))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        found: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return found


class Residual(nn.Module):
    """A branch whose last norm begins at zero, and a module of no effect behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16))
        self.drop = nn.Identity()
        self.act = nn.ReLU()
        self.head = nn.Linear(16, 10)
        nn.init.zeros_(self.branch[1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(x + self.drop(self.branch(x)))
        found: Tensor = self.head(x.mean((2, 3)))
        return found


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.45) / 0.225


def adapters() -> nn.Module:
    """Fully connected layers each made of two of low rank, and depthwise strips."""
    low = [nn.Sequential(nn.Linear(256, 8, bias=False), nn.Linear(8, 256)) for _ in range(2)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 16, (1, 7), padding=(0, 3), groups=16),
        nn.Conv2d(16, 16, (7, 1), padding=(3, 0), groups=16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), low[0], nn.ReLU(), low[1], nn.ReLU(),
        nn.Linear(256, 10),
    )  # fmt: skip


def zero_head() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(net[1].weight)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize(
    ("build", "rate"),
    [
        (lambda: Transformer(1e-5), 3e-3),
        (lambda: Transformer(1.0), 1e-3),
        (Residual, 3e-3),
        (lambda: nn.Sequential(Scaled(), small_net()), 1e-3),
        (adapters, 1e-3),
        (zero_head, 1e-3),
    ],
    ids=["layerscale", "transformer", "residual", "normalize-inside", "adapters", "zero-head"],
)
def test_healthy_networks(build: Callable[[], nn.Module], rate: float, case: Case) -> None:
    torch.manual_seed(0)
    net = build()
    assert said(diagnose(net, case.batches(), adam(net, rate), steps=12)) == []


def test_a_rate_that_a_warm_up_leads_to(case: Case) -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 100))
    assert optimizer.param_groups[0]["lr"] == 0
    assert said(diagnose(net, case.batches(), optimizer, steps=12)) == []
    assert optimizer.param_groups[0]["lr"] == 0


def test_a_loss_of_ones_own(case: Case) -> None:
    def likelihood(p: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(p.clamp(min=1e-9).log(), y)

    net = nn.Sequential(small_net(), nn.Softmax(1))
    found = diagnose(net, case.batches(), adam(net), loss=likelihood, steps=12)
    assert said(found) == []
    single = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    pairs = [(x, y % 2) for x, y in case.batches()]
    with pytest.raises(UsageError, match="one output"):
        diagnose(
            single, pairs, loss=lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y * 1.0)
        )


# Healthy data that looks odd


def test_sorted_validation(case: Case) -> None:
    """As folders are read: class after class, so that a look sees the first ones alone."""
    order = case.val_y.argsort()
    x, y = case.val_x[order].repeat(9, 1, 1, 1), case.val_y[order]
    y = y.repeat_interleave(9)
    x = case.val_x[order].repeat_interleave(9, 0)
    val = list(zip(x.split(50), y.split(50), strict=True))[:10]
    assert len(torch.cat([labels for _, labels in val]).unique()) < 5
    assert said(diagnose(case.model, case.batches(), val_loader=val, steps=6)) == []


def test_a_constant_channel(case: Case) -> None:
    def with_alpha(batches: Loader) -> Loader:
        return [(torch.cat([x, torch.ones_like(x)], 1), y) for x, y in batches]

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1352, 10))
    given = with_alpha(case.batches()), with_alpha(case.val_batches())
    found = diagnose(net, given[0], val_loader=given[1], steps=6)
    assert said(found) == []


def test_classes_that_pixels_do_not_tell() -> None:
    """Gratings of two directions and any phase: nothing for a linear probe on pixels."""
    chance = torch.Generator().manual_seed(0)
    phase = 6.28 * torch.rand(1000, 1, 1, generator=chance)
    y = torch.randint(2, (1000,), generator=chance)
    wave = torch.sin(torch.arange(28) * 1.3 + phase).expand(-1, 28, -1)
    x = torch.where(y[:, None, None] == 0, wave, wave.transpose(1, 2))[:, None]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    net.append(nn.Linear(8, 2))
    found = diagnose(net, list(zip(x.split(50), y.split(50), strict=True)), adam(net, 1e-2))
    assert "labels-unrelated" not in said(found)
    shuffled = y[torch.randperm(1000, generator=chance)]
    found = diagnose(net, list(zip(x.split(50), shuffled.split(50), strict=True)))
    assert said(found)[:1] == ["labels-unrelated"]


# Faults


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (nn.Sigmoid(), "activation-on-logits"),
        (nn.Tanh(), "activation-on-logits"),
        (nn.Softmax(0), "softmax-twice"),
    ],
    ids=["sigmoid", "tanh", "softmax over the batch"],
)
def test_what_stands_behind_the_logits(end: nn.Module, name: str, case: Case) -> None:
    net = nn.Sequential(small_net(), end)
    assert said(diagnose(net, case.batches(), steps=6))[:1] == [name]


def changed(case: Case, **what: Any) -> Case:
    import dataclasses

    return dataclasses.replace(case, **what)


def test_labels_of_validation(case: Case) -> None:
    """Shuffled; classes numbered in another order; images that are not numbers."""
    chance = torch.Generator().manual_seed(0)
    order = torch.randperm(len(case.val_y), generator=chance)
    names = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    broken = case.val_x.clone()
    broken[::3, :, 3, 3] = float("nan")
    for odd, expected in (
        (changed(case, val_y=case.val_y[order]), "splits-shifted"),
        (changed(case, val_y=names[case.val_y]), "splits-shifted"),
        (changed(case, val_x=broken), "not-finite-input"),
        (case, None),
    ):
        found = diagnose(case.model, case.batches(), val_loader=odd.val_batches(), steps=6)
        assert said(found)[:1] == ([expected] if expected else [])


# What is refused, in one line


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1)[:, :10], x


@pytest.mark.parametrize(
    ("loader", "said_so"),
    [
        ([{"image": torch.zeros(4, 1, 28, 28)}], "dict"),
        ([(torch.zeros(4, 784), torch.zeros(4).long())], r"\(4, 784\)"),
        ([(torch.zeros(4, 5, 1, 28, 28), torch.zeros(4).long())], "N, C, H, W"),
        ([(torch.zeros(4, 1, 28, 28).byte(), torch.zeros(4).long())], "uint8"),
        ([(torch.zeros(4, 1, 28, 28), torch.zeros(4, 10))], "one-hot"),
        ([(torch.zeros(4, 1, 28, 28), torch.zeros(4))], "float32"),
    ],
    ids=["dict", "flat", "crops", "bytes", "one-hot", "float labels"],
)
def test_what_is_no_batch(loader: Any, said_so: str) -> None:
    with pytest.raises(UsageError, match=said_so):
        diagnose(small_net(), loader)


def test_what_is_no_network(case: Case) -> None:
    with pytest.raises(UsageError, match="tuple"):
        diagnose(Pair(), case.batches())
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(UsageError, match="one batch"):
        diagnose(lazy, case.batches())


def test_column_labels_and_more_than_a_pair(case: Case) -> None:
    loader = [(x, y[:, None], "names") for x, y in case.batches()]
    assert said(diagnose(case.model, loader, steps=6)) == []


# Nothing is left changed


def test_odd_optimisers_are_taken_back() -> None:
    """float32 momentum of bfloat16 weights, gradients of what nobody holds, a closure, chance."""
    x, y = drawn_images(200, 0)
    net = small_net().to(torch.bfloat16)
    held = [p for n, p in net.named_parameters() if not n.startswith("conv1")]
    optimizer = torch.optim.SGD(held, 0.01, momentum=0.9)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    for p in held:
        optimizer.state[p]["momentum_buffer"] = torch.full_like(p, 1 / 3, dtype=torch.float32)
    group = optimizer.param_groups[0]
    states, gradients = copy.deepcopy(optimizer.state_dict()), [p.grad for p in net.parameters()]
    random.seed(1)
    np.random.seed(1)

    class Drawing(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            random.random()
            np.random.rand()
            return super().__iter__()

    batches = Drawing(zip(x.bfloat16().split(50), y.split(50), strict=True))
    diagnose(net, batches, optimizer, steps=3)
    after = optimizer.state_dict()
    assert optimizer.param_groups[0] is group
    assert after["param_groups"] == states["param_groups"]
    for key, state in states["state"].items():
        now = after["state"][key]["momentum_buffer"]
        assert now.dtype == torch.float32
        assert torch.equal(now, state["momentum_buffer"])
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        assert p.grad is gradient
        assert bool((gradient == 1).all())
    drawn = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    assert drawn == (random.random(), np.random.rand())


def test_an_optimiser_with_a_closure(case: Case) -> None:
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    diagnose(net, case.batches(), torch.optim.LBFGS(net.parameters(), 0.1), steps=3)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
