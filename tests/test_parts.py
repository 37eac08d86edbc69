"""Rates and freezing by parts of a network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import alexnet
from alexnet.cli import main
from alexnet.errors import UsageError
from alexnet.models import Net
from alexnet.recipe import Recipe
from alexnet.training import build_net, build_optimizer, set_rate
from conftest import read_events
from short_runs import QUICK, model_file, small_net
from short_runs import no_pictures as no_pictures  # around every test here

LAYERS = "conv1, conv2, conv3, fc4, fc5"

# Rates


def rates_at(model: Net, recipe: Recipe, epoch: int, lr: float = 0.02) -> dict[str, float]:
    """The rate of every parameter by name."""
    optimizer = build_optimizer(model, recipe)
    set_rate(optimizer, lr, epoch)
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw"])
def test_biases_learn_at_their_own_rate(opt: Any) -> None:
    for name, rate in rates_at(small_net(), Recipe(opt=opt, bias_lr=2), 0).items():
        assert rate == pytest.approx(0.04 if name.endswith(".bias") else 0.02), name
    assert set(rates_at(small_net(), Recipe(opt=opt), 5).values()) == {0.02}


@pytest.mark.parametrize("decay_biases", [False, True])
def test_decay_does_not_depend_on_how_parts_are_grouped(decay_biases: bool) -> None:
    model = small_net()
    recipe = Recipe(
        weight_decay=0.25, decay_biases=decay_biases, bias_lr=2, part_lr=("conv2=3", "fc5=10")
    )
    groups = build_optimizer(model, recipe).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decays) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        decayed = decay_biases or p.dim() > 1
        assert decays[id(p)] == (0.25 if decayed else 0), name


@pytest.mark.parametrize("reverse", [False, True])
def test_the_factor_of_a_part_that_began_last_holds(reverse: bool) -> None:
    entries = ("fc5=10", "conv1=0.1@67", "conv1=0@72")
    recipe = Recipe(part_lr=entries[::-1] if reverse else entries, bias_lr=2)
    factors = {0: 1.0, 66: 1.0, 67: 0.1, 71: 0.1, 72: 0.0, 90: 0.0}
    for epoch, factor in factors.items():
        for name, rate in rates_at(small_net(), recipe, epoch).items():
            part = {"conv1": factor, "bn1": factor, "fc5": 10.0}.get(name.split(".")[0], 1.0)
            bias = 2 if name.endswith(".bias") else 1
            assert rate == pytest.approx(0.02 * part * bias, abs=1e-12), (epoch, name)


def test_a_rate_can_rise_again_without_a_new_optimizer() -> None:
    model = small_net()
    optimizer = build_optimizer(model, Recipe(part_lr=("conv1=0.5@2", "conv1=3@4")))
    group = next(g for g in optimizer.param_groups if g["params"][0] is model.part("conv1").weight)
    found = []
    for epoch in range(6):
        set_rate(optimizer, 0.1, epoch)
        found.append(group["lr"])
    np.testing.assert_allclose(found, [0.1, 0.1, 0.05, 0.05, 0.3, 0.3])


@pytest.mark.parametrize("trust", [0.0, 0.001])
def test_a_part_whose_rate_becomes_0_stands_still(trust: float) -> None:
    """At once: what momentum it had moves it no more, and it goes on with it if it learns again."""
    recipe = Recipe(momentum=0.9, part_lr=("conv1=0@1", "conv1=1@2"), trust=trust)
    model = small_net()
    optimizer = build_optimizer(model, recipe)
    weights: list[dict[str, Tensor]] = []
    for epoch in (0, 1, 1, 2):
        set_rate(optimizer, 0.1, epoch)
        torch.manual_seed(epoch)
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
        weights.append({k: v.detach().clone() for k, v in model.named_parameters()})
    first, still, again, moved = weights
    for name in first:
        learns = not name.startswith(("conv1", "bn1"))
        for before, after, changes in ((first, still, learns), (still, again, learns)):
            assert torch.equal(before[name], after[name]) != changes, name
        assert not torch.equal(again[name], moved[name]), name


def test_a_part_with_a_rate_has_to_be_there() -> None:
    with pytest.raises(UsageError, match=rf"no layer 'conv9': there are {LAYERS}"):
        build_optimizer(small_net(), Recipe(part_lr=("conv9=2",)))


def test_an_unknown_part_leaves_no_run_behind(
    idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, entry in (("--part-lr", "conv9=2"), ("--freeze", "conv1..conv9")):
        argv = ["train", "digits", "--data", str(idx_folder), "--run", str(tmp_path / "run")]
        assert main([*argv, "--steps", "1", flag, entry]) == 2
        said = capsys.readouterr().err.splitlines()
        assert "no layer 'conv9': there are conv1, conv2" in said[-1]
        assert not (tmp_path / "run").exists()


def test_the_papers_update_with_twice_the_rate_for_biases() -> None:
    """By hand in float64 over a drop of the rate; torch's SGD goes another way from there."""
    model, twin = small_net().double(), small_net().double()
    twin.load_state_dict(model.state_dict())
    recipe = Recipe(momentum=0.9, weight_decay=5e-3, bias_lr=2, part_lr=("fc5=3",))
    optimizer = build_optimizer(model, recipe)
    factor = {
        name: (2 if name.endswith(".bias") else 1) * (3 if name.startswith("fc5") else 1)
        for name, _ in model.named_parameters()
    }
    decay = {name: 5e-3 if p.dim() > 1 else 0.0 for name, p in model.named_parameters()}
    torchs = torch.optim.SGD(
        [
            {"params": [p], "weight_decay": decay[name], "factor": factor[name]}
            for name, p in twin.named_parameters()
        ],
        lr=0.1,
        momentum=0.9,
    )
    random = np.random.default_rng(0)
    w = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    apart = []
    for step in range(12):
        lr = 0.1 if step < 6 else 0.01
        gradients = {name: random.normal(size=value.shape) for name, value in w.items()}
        for net in (model, twin):
            for name, p in net.named_parameters():
                p.grad = torch.from_numpy(gradients[name].copy())
        set_rate(optimizer, lr, 0)
        optimizer.step()
        for group in torchs.param_groups:
            group["lr"] = lr * group["factor"]
        torchs.step()
        for name, g in gradients.items():
            rate = lr * factor[name]
            v[name] = 0.9 * v[name] - decay[name] * rate * w[name] - rate * g
            w[name] = w[name] + v[name]
            found = model.get_parameter(name).detach().numpy()
            np.testing.assert_allclose(found, w[name], rtol=1e-10, atol=1e-12, err_msg=name)
        pairs = zip(model.parameters(), twin.parameters(), strict=True)
        apart.append(min(float((a - b).detach().abs().max()) for a, b in pairs))
    assert max(apart[:6]) < 1e-10
    assert apart[6] > 1e-2


# Freezing


def test_a_stretch_is_layers_with_what_follows_them() -> None:
    model = small_net()
    assert model.stretch("conv2") == ["conv2", "bn2", "relu2"]
    assert model.stretch("conv1..conv2") == ["conv1", "bn1", "relu1", "conv2", "bn2", "relu2"]
    assert model.stretch("fc4..fc5") == ["fc4", "relu4", "fc5"]
    with pytest.raises(UsageError, match=r"conv3\.\.conv1 runs backwards: write conv1\.\.conv3"):
        model.freeze("conv3..conv1")
    for entry in ("conv9", "conv1..conv9", "bn1"):
        with pytest.raises(UsageError, match=f"no layer .*: there are {LAYERS}"):
            model.freeze(entry)


def test_freezing_everything_is_refused() -> None:
    fields: dict[str, Any] = {"channels": 1, "size": 28, "crop": 28}
    for freeze in (("conv1..fc8",), ("conv1..conv5", "fc6", "fc7..fc8")):
        with pytest.raises(UsageError, match=r"freeze .*fc8 leaves nothing to train: name fewer"):
            build_net(Recipe(freeze=freeze, **fields), 3)
    build_net(Recipe(freeze=("conv1..fc7",), **fields), 3)


def test_what_is_frozen_gets_no_rate_and_its_averages_stay() -> None:
    model = small_net()
    model.freeze("conv1..conv2")
    groups = build_optimizer(model, Recipe(bias_lr=2, part_lr=("conv1=2",))).param_groups
    free = {id(p) for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        assert (id(p) in free) == (name.split(".")[0] in ("conv3", "bn3", "fc4", "fc5")), name
    for mode in (True, False, True):
        model.train(mode)
        modes = [model.part(f"bn{i}").training for i in (1, 2, 3)]
        assert modes == [False, False, mode]


def test_a_frozen_batch_norm_is_fixed_from_the_start() -> None:
    model = small_net()
    model.freeze("conv1")
    model(torch.rand(4, 1, 8, 8))
    assert int(model.get_buffer("bn1.num_batches_tracked")) == 0
    assert int(model.get_buffer("bn2.num_batches_tracked")) == 1


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_frozen_parts_keep_their_bits_through_training(
    opt: str, idx_folder: Path, tmp_path: Path
) -> None:
    """Decay, momentum, validations in between: none touches weights or batch norms' averages."""
    fields = QUICK | {"steps": 4, "opt": opt, "lr": 0.01, "weight_decay": 0.1, "save_every": 1}
    fields |= {"decay_biases": True, "eval_every": 2 / 67}
    alexnet.train("digits", data=idx_folder, run=tmp_path, freeze=("conv1..conv3",), **fields)
    assert [e["step"] for e in read_events(tmp_path) if e["event"] == "val"] == [2, 4]
    before, after = (load_file(model_file(tmp_path, name)) for name in ("step-0", "step-4"))
    frozen = {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    assert {name.split(".")[0] for name in before} > frozen
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (name.split(".")[0] in frozen), name
