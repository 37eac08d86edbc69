"""Optimisers against their recurrences in numpy, and their state by name."""

from typing import Any

import numpy as np
import pytest
import torch

from alexnet.models import build_model
from alexnet.recipe import Recipe
from alexnet.training import Lars, PaperSGD, build_optimizer, load_optimizer, optimizer_tensors


def test_paper_sgd_is_the_papers_recurrence() -> None:
    """v <- 0.9 v - decay lr w - lr g; w <- w + v over a drop of lr, in numpy's float64."""
    random = np.random.default_rng(0)
    w, grads = random.normal(size=(7, 5)), random.normal(size=(40, 7, 5))
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    twin = torch.nn.Parameter(torch.from_numpy(w.copy()))
    paper = PaperSGD([parameter], 0.1, 0.9, 5e-4)
    torchs = torch.optim.SGD([twin], 0.1, momentum=0.9, weight_decay=5e-4)
    v, differences = np.zeros_like(w), []
    for step, g in enumerate(grads):
        lr = 0.1 if step < 20 else 0.01
        v = 0.9 * v - 5e-4 * lr * w - lr * g
        w = w + v
        for optimizer, p in ((paper, parameter), (torchs, twin)):
            optimizer.param_groups[0]["lr"] = lr
            p.grad = torch.from_numpy(g.copy())
            optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12)
        differences.append(float((parameter - twin).detach().abs().max()))
    assert max(differences[:20]) < 1e-12  # with one rate the two are the same
    assert differences[20] > 1e-2


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_paper_sgd_in_any_layout(momentum: float, layout: torch.memory_format) -> None:
    """In float32, over rates up, down and 0, with gradients laid out otherwise than the weights,
    and the velocity of the checkpoint is the recurrence's own."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 5, 3, 3, generator=generator).to(memory_format=layout).requires_grad_()
    paper = PaperSGD([weight], 1.0, momentum, 5e-3)
    w, v = weight.detach().double().clone(), torch.zeros(9, 5, 3, 3).double()
    for lr in np.repeat([0.01, 0.001, 0.0, 0.02], 25):
        paper.param_groups[0]["lr"] = float(lr)
        weight.grad = torch.randn(9, 5, 3, 3, generator=generator)
        v = momentum * v - lr * (weight.grad.double() + 5e-3 * w)
        w = w + v
        paper.step()
    torch.testing.assert_close(weight.detach().double(), w, rtol=0, atol=1e-5)
    if momentum:
        kept = paper.state[weight]["velocity"]
        torch.testing.assert_close(kept.double(), v, rtol=0, atol=1e-6)


@pytest.mark.parametrize("trust", [0.0, 0.02])
@pytest.mark.parametrize("lr", [0.1, 1e-6])
def test_the_update_with_gradients_scaled_before_is_the_papers(lr: float, trust: float) -> None:
    """As where a device's kernel would round a small rate, such as a GPU's."""

    def trained(exact: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=generator))
        groups, rule = [{"params": [weight]}], (lr, 0.9, 5e-3)
        made = (
            Lars(groups, *rule, trust, exact=exact)
            if trust
            else PaperSGD(groups, *rule, exact=exact)
        )
        for _ in range(5):
            weight.grad = torch.randn(7, 5, generator=generator)
            before = weight.grad.clone()
            made.step()
            if not trust:
                assert torch.equal(weight.grad, before)
        return weight.detach(), made.state[weight]["velocity"]

    for ours, theirs in zip(trained(()), trained(("cpu",)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-12)


def test_vectors_are_not_decayed_unless_asked() -> None:
    model = build_model("alexnet-28", 10)
    for decay_biases in (False, True):
        recipe = Recipe(weight_decay=0.5, decay_biases=decay_biases, channels=1)
        decays = {
            id(p): group["weight_decay"]
            for group in build_optimizer(model, recipe).param_groups
            for p in group["params"]
        }
        assert len(decays) == len(list(model.parameters()))
        for name, p in model.named_parameters():
            vector = name.endswith("bias") or name.startswith("bn")
            assert decays[id(p)] == (0.0 if vector and not decay_biases else 0.5), name


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw"])
def test_optimizer_state_travels_by_name(opt: str) -> None:
    def steps(model: Any, optimizer: Any, n: int, seed: int) -> None:
        for i in range(n):
            generator = torch.Generator().manual_seed(seed + i)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    recipe = Recipe(opt=opt, lr=0.01)  # type: ignore[arg-type]
    model, other = build_model("cifar-alexnet", 3), build_model("cifar-alexnet", 3)
    optimizer = build_optimizer(model, recipe)
    steps(model, optimizer, 2, 0)
    saved = {k: v.clone() for k, v in optimizer_tensors(optimizer, model).items()}
    assert any(key.startswith("conv1.weight/") for key in saved)
    other.load_state_dict(model.state_dict())
    again = build_optimizer(other, recipe)
    load_optimizer(again, other, saved)
    steps(model, optimizer, 2, 9)
    steps(other, again, 2, 9)
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_lars_is_its_equation() -> None:
    """Algorithm 1 in numpy, ten steps; the bias by the plain rule."""
    torch.manual_seed(0)
    w, b = (torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(4)))
    groups = [
        {"params": [w], "weight_decay": 0.1},
        {"params": [b], "weight_decay": 0.0},
    ]
    optimizer = Lars(groups, 0.5, 0.9, 0.0, 0.01)
    own, velocity = w.detach().double().numpy().copy(), np.zeros((4, 3))
    bias, slow = b.detach().double().numpy().copy(), np.zeros(4)
    for step in range(10):
        w.grad, b.grad = torch.randn(4, 3) * 10.0 ** (step % 3), torch.ones(4)
        g = w.grad.double().numpy().copy()
        optimizer.step()
        size, slope = np.linalg.norm(own), np.linalg.norm(g)
        local = 0.01 * size / (slope + 0.1 * size)
        velocity = 0.9 * velocity - 0.5 * local * (g + 0.1 * own)
        own = own + velocity
        slow = 0.9 * slow - 0.5
        bias = bias + slow
        assert np.allclose(w.detach().numpy(), own, rtol=1e-5)
        assert np.allclose(b.detach().numpy(), bias, rtol=1e-5)


def test_lars_moves_weights_of_zero_and_survives_no_gradient() -> None:
    w = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = Lars([{"params": [w], "weight_decay": 0.1}], 0.5, 0.9, 0.0, 0.01)
    for gradient in (torch.ones(2, 2), torch.zeros(2, 2)):
        w.grad = gradient
        optimizer.step()
        assert w.isfinite().all()
    assert w.abs().sum() > 0
