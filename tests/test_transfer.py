"""Rates and freezing by parts, starting from given weights, and the mean image of a run."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import alexnet
from alexnet import commands, figures
from alexnet.cli import main
from alexnet.commands import beginning
from alexnet.commands.outset import Given
from alexnet.commands.outset import choose as choose_recipe
from alexnet.data.dataset import open_dataset
from alexnet.engine import train as engine
from alexnet.engine.network import build_net, take_weights
from alexnet.engine.optim import build_optimizer, set_rate
from alexnet.errors import CheckpointError, UsageError
from alexnet.models.layers import BatchNorm, Conv, Linear, ReLU
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.store.weights import read_weights
from conftest import patterns, read_events, without_report, write_idx, write_tree

QUICK: dict[str, Any] = {
    "steps": 2,
    "batch_size": 8,
    "eval_every": 100,
    "log_every": 1,
    "keep": 99,
    "shift": 0,
    "rotate": 0.0,
    "scale": 0.0,
    "precision": "fp32",
    "workers": 0,
}
LAYERS = "conv1, conv2, conv3, fc4, fc5"


@pytest.fixture(autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes longer than these runs, and other tests look at pictures."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        for name in ("draw_confusion", "draw_mistakes"):
            patch.setattr(figures, name, lambda *_: None)
        yield


def small_net() -> Net:
    """Three convolutions with batch norm, two fully connected layers."""
    spec = [
        *(Conv("conv1", 4, 3), BatchNorm(), ReLU()),
        *(Conv("conv2", 5, 3), BatchNorm(), ReLU()),
        *(Conv("conv3", 6, 3), BatchNorm(), ReLU()),
        *(Linear("fc4", 7), ReLU()),
        Linear("fc5", 3),
    ]
    return Net(spec, (1, 8, 8))


def model_file(run: Path, checkpoint: str = "best") -> Path:
    return run / "checkpoints" / checkpoint / "model.safetensors"


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) for k, v in first.items()
    )


def saved(run: Path) -> dict[str, Any]:
    return json.loads((run / "recipe.json").read_text())  # type: ignore[no-any-return]


def cut_at(step: int, monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> None:
    """A training that dies before its update number `step` (from 0)."""

    class Cut(Exception):
        pass

    def dying(model: Any, optimizer: Any, batch: Any, *rest: Any) -> Tensor:
        if batch.step == step:
            raise Cut
        return real(model, optimizer, batch, *rest)

    real = engine.train_step
    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", dying)
        with pytest.raises(Cut):
            commands.train(*args, **options)


def assert_same_end(run: Path, other: Path) -> None:
    """Weights and optimiser to the bit, and the same figures."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, theirs = (r / "checkpoints/last" / name for r in (run, other))
        assert mine.read_bytes() == theirs.read_bytes(), name
    events = [[e for e in read_events(r) if e["event"] == "val"] for r in (run, other)]
    assert events[0] == events[1] != []


# Rates of parts


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
    commands.train("digits", data=idx_folder, run=tmp_path, freeze=("conv1..conv3",), **fields)
    assert [e["step"] for e in read_events(tmp_path) if e["event"] == "val"] == [2, 4]
    before, after = (load_file(model_file(tmp_path, name)) for name in ("step-0", "step-4"))
    frozen = {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    assert {name.split(".")[0] for name in before} > frozen
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (name.split(".")[0] in frozen), name


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_frozen_weights_keep_their_bits_through_training(
    opt: str, idx_folder: Path, tmp_path: Path
) -> None:
    fields = QUICK | {"opt": opt, "lr": 0.01, "weight_decay": 0.1, "decay_biases": True}
    commands.train("digits", data=idx_folder, run=tmp_path, freeze=("conv1..conv3",), **fields)
    before, after = (load_file(model_file(tmp_path, name)) for name in ("step-0", "step-2"))
    for name, value in before.items():
        if name.endswith((".weight", ".bias")):
            stays = name.split(".")[0] in {f"{k}{i}" for k in ("conv", "bn") for i in (1, 2, 3)}
            assert torch.equal(value, after[name]) == stays, name


# --init from a run


def test_a_run_gives_every_tensor_to_the_same_classes(
    trained: Path, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    commands.train("digits", data=idx_folder, run=run, init=trained, seed=5, **QUICK)
    theirs = load_file(model_file(trained))
    said = " ".join(capsys.readouterr().err.split())
    assert f"{len(theirs)} tensors taken" in said
    assert "made anew" not in said
    assert same_bits(load_file(model_file(run, "step-0")), theirs)
    assert not same_bits(load_file(model_file(run, "step-2")), theirs)
    images = [image[..., None] for image in patterns(20, seed=3)[0]]
    old, new = alexnet.load(trained), alexnet.load(run, "step-0")
    np.testing.assert_array_equal(new.predict(images), old.predict(images))
    content = model_file(trained).read_bytes()
    assert saved(run)["init"] == {
        "path": str(trained),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert "init" not in saved(trained)


def test_the_first_validation_is_what_the_run_had(
    trained: Path, idx_folder: Path, tmp_path: Path
) -> None:
    """All that may move is frozen but a head whose rate is as good as nothing."""
    fields = QUICK | {"steps": 1, "lr": 1e-30, "dropout": 0.0}
    run = tmp_path / "run"
    commands.train(
        "digits", data=idx_folder, run=run, init=trained, freeze=("conv1..fc7",), **fields
    )
    first = next(e for e in read_events(run) if e["event"] == "val")
    best = int(os.readlink(trained / "checkpoints/best").removeprefix("step-"))
    had = next(e for e in read_events(trained) if e["event"] == "val" and e["step"] == best)
    assert first["top1"] == had["top1"]
    assert first["loss"] == pytest.approx(had["loss"], rel=1e-5)


def test_another_number_of_classes_gets_a_new_head(
    trained: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And model, size, crop, channels and statistics are the run's, not the recipe's."""
    run = tmp_path / "run"
    commands.train("photos", data=tree, run=run, init=trained, cutout=0, **QUICK)
    theirs, ours = load_file(model_file(trained)), load_file(model_file(run, "step-0"))
    head = {"fc8.weight", "fc8.bias"}
    assert ours.keys() == theirs.keys()
    assert ours["fc8.weight"].shape == (3, theirs["fc8.weight"].shape[1])
    for name in ours.keys() - head:
        assert torch.equal(ours[name], theirs[name]), name
    said = " ".join(capsys.readouterr().err.split())
    assert f"{len(theirs) - 2} tensors taken; made anew: fc8.weight ((3, 256), (10, 256)" in said
    made, given = saved(run), saved(trained)
    for name in ("model", "channels", "size", "crop", "normalize"):
        assert made["recipe"][name] == given["recipe"][name] != "photos", name
    assert (made["data"]["mean"], made["data"]["std"]) == (
        given["data"]["mean"],
        given["data"]["std"],
    )
    assert len(made["data"]["classes"]) == 3


def test_as_many_other_classes_get_a_new_head(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten folders are not ten digits, though their last layers have one shape."""
    data, run = write_tree(tmp_path / "data", classes=10, each=6), tmp_path / "run"
    commands.train("photos", data=data, run=run, init=trained, cutout=0, **QUICK)
    theirs, ours = load_file(model_file(trained)), load_file(model_file(run, "step-0"))
    for name in ours:
        assert ours[name].shape == theirs[name].shape
        assert torch.equal(ours[name], theirs[name]) == (name not in ("fc8.weight", "fc8.bias"))
    said = " ".join(capsys.readouterr().err.split())
    assert "fc8 of the given weights is not taken: 'class-0' is not among its classes" in said
    assert f"{len(theirs) - 2} tensors taken; made anew: fc8.weight, fc8.bias" in said


def test_classes_in_another_order_get_a_new_head(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(model="alexnet-28", channels=1, size=28, crop=28)
    weights = {"fc7.bias": torch.ones(3), "fc8.bias": torch.ones(3), "fc8.weight": torch.ones(3, 2)}
    given = Given(weights, classes=("a", "b", "c"))
    assert given.for_classes(recipe, ["a", "b", "c"]) is weights
    assert given.for_classes(recipe, ["a", "b"]) is weights  # its shape says it
    assert Given(weights).for_classes(recipe, ["a", "c", "b"]) is weights  # a file has no names
    assert capsys.readouterr().err == ""
    kept = given.for_classes(recipe, ["a", "c", "b"])
    assert kept is not None
    assert list(kept) == ["fc7.bias"]
    assert "fc8 of the given weights is not taken: its classes are in" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False], ids=["another-shape", "missing"])
def test_what_is_made_anew_is_not_frozen(there: bool) -> None:
    """It would stay as it was drawn."""
    model, weights = small_net(), dict(small_net().state_dict())
    model.freeze("conv1..conv2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    del weights["conv1.weight"]
    if there:
        weights["conv1.weight"] = torch.zeros(4, 3, 3, 3)
    with pytest.raises(CheckpointError, match=r"w: conv1.weight is frozen .*out of --freeze"):
        take_weights(model, weights, "w")
    assert same_bits(model.state_dict(), before)
    model = small_net()
    model.freeze("conv2..conv3")
    assert "conv1.weight" in " ".join(take_weights(model, weights, "w").remade)


def test_colour_weights_on_grey_images_cannot_be_frozen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first layer is made anew for one channel; frozen, it is refused and no run is left."""
    data, first, run = write_tree(tmp_path / "data"), tmp_path / "first", tmp_path / "run"
    fields = QUICK | {"data": data, "batch_size": 4, "cutout": 0, "crop": 32, "size": 32}
    commands.train("photos", run=first, model="cifar-alexnet", **fields)
    fields |= {"init": first, "channels": 1}
    commands.train("photos", run=tmp_path / "grey", **fields)
    assert "made anew: conv1.weight ((64, 1, 3, 3), (64, 3, 3, 3) in" in capsys.readouterr().err
    with pytest.raises(
        CheckpointError, match=r"conv1.weight is frozen and is not there in \(64, 1"
    ):
        commands.train("photos", run=run, freeze=("conv1",), **fields)
    assert not run.exists()


def test_explicit_fields_win_over_the_runs(trained: Path, tree: Path, tmp_path: Path) -> None:
    """Of images stored at another size the run's statistics say nothing."""
    run, fields = tmp_path / "run", QUICK | {"size": 32, "normalize": "mean"}
    commands.train("photos", data=tree, run=run, init=trained, cutout=0, **fields)
    made, given = saved(run), saved(trained)
    assert made["recipe"]["size"] == 32
    assert made["recipe"]["normalize"] == "mean"
    for name in ("model", "channels", "crop"):
        assert made["recipe"][name] == given["recipe"][name], name
    recipe = Recipe.from_dict(made["recipe"])
    pixels = open_dataset(recipe, tree).train.read(np.arange(made["data"]["counts"]["train"]))
    assert made["data"]["mean"] == pytest.approx([pixels.mean()])
    assert abs(given["data"]["mean"][0] - pixels.mean()) > 1


def test_an_explicit_model_wins(trained: Path, tree: Path, tmp_path: Path) -> None:
    """fc7 and fc8's inputs are as wide in `fashion-alexnet`: that much fits."""
    run = tmp_path / "run"
    fields = QUICK | {"model": "fashion-alexnet"}
    commands.train("photos", data=tree, run=run, init=trained, cutout=0, **fields)
    assert saved(run)["recipe"]["model"] == "fashion-alexnet"
    theirs, ours = load_file(model_file(trained)), load_file(model_file(run, "step-0"))
    for name in ours:
        fits = ours[name].shape == theirs[name].shape
        assert fits == name.startswith(("fc7", "bn6", "bn7", "fc6.bias")) or "num_" in name, name
        if fits:
            assert torch.equal(ours[name], theirs[name]), name


def test_explicit_fields_win_where_the_runs_and_the_recipes_contradict(
    idx_folder: Path, tmp_path: Path
) -> None:
    """`digits` moves pixels and the run subtracts a mean image, but not in what is asked for."""
    first, run = tmp_path / "first", tmp_path / "run"
    fields = QUICK | {"steps": 1, "data": idx_folder}
    commands.train("digits", run=first, **fields, normalize="image")
    commands.train("digits", run=run, init=first, **fields)  # shift, rotate and scale are 0 here
    assert saved(run)["recipe"]["normalize"] == "image"


def test_colour_noise_after_a_run_that_had_none(tree: Path, tmp_path: Path) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    fields = QUICK | {"steps": 1, "batch_size": 4, "data": tree}
    commands.train("cifar10", run=first, **fields)
    commands.train("cifar10", run=run, init=first, colour=0.1, **fields)
    assert np.shape(saved(run)["data"]["covariance"]) == (3, 3)


# --init from a file


def given_weights() -> dict[str, Tensor]:
    """Weights as `digits` wants them for ten classes, of another seed."""
    recipe = Recipe(model="alexnet-28", channels=1, size=28, crop=28, seed=77)
    return {k: v.clone().contiguous() for k, v in build_net(recipe, 10).state_dict().items()}


def test_weights_from_a_safetensors_file(idx_folder: Path, tmp_path: Path) -> None:
    weights, run = given_weights(), tmp_path / "run"
    save_file(weights, tmp_path / "w.safetensors")
    fields = QUICK | {"init": tmp_path / "w.safetensors"}
    commands.train("digits", data=idx_folder, run=run, **fields)
    assert same_bits(load_file(model_file(run, "step-0")), weights)
    content = (tmp_path / "w.safetensors").read_bytes()
    expected = {"path": str(fields["init"]), "sha256": hashlib.sha256(content).hexdigest()}
    assert saved(run)["init"] == expected


def test_weights_from_a_torch_file_in_its_usual_shapes(tmp_path: Path) -> None:
    weights = given_weights()
    parallel = {f"module.{k}": v for k, v in weights.items()}
    shapes: list[Any] = [
        weights,
        parallel,
        {"state_dict": weights, "epoch": 90, "arch": "alexnet"},
        {"state_dict": parallel, "best_acc1": 0.5},
        {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    ]
    for i, shape in enumerate(shapes):
        for legacy in (False, True):
            path = tmp_path / f"{i}.pth"
            torch.save(shape, path, _use_new_zipfile_serialization=not legacy)
            assert same_bits(read_weights(path), weights), (i, legacy)


def test_weights_with_torchvisions_names_expect_its_normalisation(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the recipe is chosen and nobody says otherwise."""
    monkeypatch.setattr(beginning, "measure_pace", lambda *_: 10.0)

    def normalize(**fields: Any) -> str:
        found = choose_recipe(None, tree, "w.pth", None, Given({}), fields)["recipe"]
        return str(found["normalize"])

    assert normalize(model="alexnet-2014") == "torchvision"
    assert normalize(model="alexnet-2014", normalize="mean") == "mean"
    assert normalize(model="alexnet-28") == "std"


def test_a_run_from_a_torch_file_starts_there(idx_folder: Path, tmp_path: Path) -> None:
    weights, run = given_weights(), tmp_path / "run"
    wrapped = {"state_dict": {f"module.{k}": v for k, v in weights.items()}}
    torch.save(wrapped, tmp_path / "w.pth")
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run), "--steps", "1"]
    assert main([*argv, "--init", str(tmp_path / "w.pth"), "--batch-size", "8"]) == 0
    assert same_bits(load_file(model_file(run, "step-0")), weights)


class Program:
    """What unpickles by running a command; here it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("how", ["pickle", "torch", "legacy"])
def test_a_pickle_that_is_a_program_is_not_run(
    how: str, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, marker = tmp_path / "w.pt", tmp_path / "executed"
    content = {"conv1.weight": torch.zeros(32, 1, 3, 3), "more": Program(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Program(marker), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    run = tmp_path / "run"
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run)]
    assert main([*argv, "--steps", "1", "--init", str(path)]) == 2
    said = capsys.readouterr().err
    assert not marker.exists()
    assert "is no file of weights" in said
    assert said.count("\n") == 1
    assert not run.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists(), "it would have run"


def damaged(kind: str, folder: Path) -> Path:
    """A weight file of each bad kind."""
    weights = given_weights()
    path = folder / ("w.safetensors" if kind == "cut safetensors" else "w.pth")
    if kind == "cut safetensors":
        save_file(weights, path)
    elif kind == "no number":
        weights["fc7.weight"][3, 5] = float("nan")
        torch.save(weights, path)
    elif kind == "infinite":
        weights["bn2.running_var"][0] = float("inf")
        torch.save(weights, path)
    elif kind == "another net":
        torch.save({f"features.{k}": v for k, v in weights.items()}, path)
    elif kind == "biases alone":
        torch.save({k: v for k, v in weights.items() if v.dim() == 1}, path)
    elif kind == "no tensors":
        torch.save({"epoch": 3, "state_dict": {"lr": 0.1}}, path)
    elif kind == "a list":
        torch.save(list(weights.values()), path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"<html>404: not found</html>\n" * 40)
    elif kind != "missing":
        torch.save(weights, path)
    if kind.startswith("cut"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "is missing"),
        ("cut safetensors", "is damaged"),
        ("cut torch", "is no file of weights"),
        ("empty", "is no file of weights"),
        ("text", "is no file of weights"),
        ("no tensors", "holds no state dict"),
        ("a list", "holds no state dict"),
        ("another net", "no weight fits"),
        ("biases alone", "no weight fits"),
        ("no number", "fc7.weight holds numbers that are not finite"),
        ("infinite", "bn2.running_var holds numbers that are not finite"),
    ],
)
def test_files_that_are_no_weights_are_refused_in_one_line(
    kind: str, words: str, tmp_path: Path
) -> None:
    """Read and put into the network, which is all that `train` does with them."""
    path = damaged(kind, tmp_path)
    model = build_net(Recipe(model="alexnet-28", channels=1, size=28, crop=28), 10)

    def start() -> None:
        take_weights(model, read_weights(path), str(path))

    with pytest.raises(CheckpointError) as caught:
        start()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("kind", ["missing", "another net", "no number"])
def test_the_command_line_refuses_bad_weights_and_leaves_no_run(
    kind: str, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = damaged(kind, tmp_path), tmp_path / "run"
    argv = ["train", "digits", "--data", str(idx_folder), "--run", str(run), "--steps", "1"]
    assert main([*argv, "--init", str(path), "--batch-size", "8"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("alexnet: ")] == said[-1:]
    assert not run.exists()


def test_a_refused_network_is_left_as_it_was() -> None:
    model = small_net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bad = {k: torch.full_like(v, 2) for k, v in before.items()}
    bad["fc5.bias"][0] = float("nan")
    with pytest.raises(CheckpointError):
        take_weights(model, bad, "bad")
    assert same_bits(model.state_dict(), before)


def test_what_became_of_each_tensor_is_said() -> None:
    model = small_net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    given = {k: torch.full_like(v, 3) for k, v in before.items() if not k.startswith("fc4")}
    given |= {"fc5.weight": torch.zeros(9, 7), "fc6.weight": torch.zeros(2, 2)}
    taken = take_weights(model, given, "there")
    assert taken.remade == ["fc4.weight", "fc4.bias", "fc5.weight ((3, 7), (9, 7) in the file)"]
    assert taken.left == ["fc6.weight"]
    assert sorted(taken.taken) == sorted(before.keys() - {"fc4.weight", "fc4.bias", "fc5.weight"})
    for name, value in model.state_dict().items():
        assert torch.equal(value, given[name] if name in taken.taken else before[name]), name
    said = str(taken)
    assert said.startswith(f"{len(taken.taken)} tensors taken; made anew: fc4.weight, fc4.bias")
    assert said.endswith("; left in the file: fc6.weight")


def test_init_and_whiten_do_not_go_together(trained: Path, tree: Path, tmp_path: Path) -> None:
    fields = QUICK | {"whiten": True}
    with pytest.raises(UsageError, match=r"--whiten .*--init .*leave one out"):
        commands.train("photos", data=tree, run=tmp_path / "run", init=trained, **fields)
    assert not (tmp_path / "run").exists()


def test_init_and_resume_do_not_go_together(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"--init .*--resume .*leave one out"):
        commands.train(resume=True, run=trained, init=trained)


@pytest.mark.parametrize("init", ["no such folder", "a folder that is no run"])
def test_init_from_a_folder_that_is_no_run(init: str, idx_folder: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / init, tmp_path / "run"
    if init != "no such folder":
        folder.mkdir()
    with pytest.raises(CheckpointError, match=r"no such folder|no run directory"):
        commands.train("digits", data=idx_folder, run=run, init=folder, **QUICK)
    assert not run.exists()


# Cut and continued


@pytest.mark.parametrize("freeze", [(), ("conv1..conv2",)])
def test_a_run_from_given_weights_goes_on_without_them(
    freeze: tuple[str, ...], idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With validations on both sides of the cut."""
    path = tmp_path / "w.safetensors"
    save_file(given_weights(), path)
    fields = QUICK | {"steps": 5, "save_every": 1, "init": path, "data": idx_folder}
    fields |= {"freeze": freeze, "part_lr": ("fc8=10",), "bias_lr": 2.0, "eval_every": 2 / 67}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    commands.train("digits", run=whole, **fields)
    cut_at(3, monkeypatch, "digits", run=cut, **fields)
    path.unlink()
    commands.train(resume=True, run=cut)
    assert [e["step"] for e in read_events(cut) if e["event"] == "resume"] == [3]
    assert_same_end(cut, whole)


# The mean image of a run

CUT_OUT = QUICK | {"steps": 4, "save_every": 1, "crop": 24, "normalize": "image", "flip": True}


@pytest.fixture(scope="module")
def meant(idx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that subtracts the mean image. Read only: tests copy it."""
    run = tmp_path_factory.mktemp("runs") / "meant"
    commands.train("digits", data=idx_folder, run=run, **CUT_OUT)
    return run


def test_a_run_keeps_its_mean_image(meant: Path, idx_folder: Path) -> None:
    image = load_file(meant / "mean.safetensors")["mean"]
    data = open_dataset(Recipe.from_dict(saved(meant)["recipe"]), idx_folder)
    pixels = data.train.read(np.arange(len(data.train))).astype(np.float64)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), pixels.mean(0).astype(np.float32))
    digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16]
    assert saved(meant)["data"]["mean_image"] == digest


def test_a_run_with_a_mean_image_is_resumed_to_the_bit(
    meant: Path, idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at(2, monkeypatch, "digits", data=idx_folder, run=tmp_path / "cut", **CUT_OUT)
    commands.train(resume=True, run=tmp_path / "cut")
    assert_same_end(tmp_path / "cut", meant)


def test_a_run_with_a_mean_image_predicts_with_it(
    meant: Path, idx_folder: Path, tmp_path: Path
) -> None:
    """The centre of (image - mean image), through the network by hand."""
    run = Path(shutil.copytree(meant, tmp_path / "run", symlinks=True))
    result = commands.test(run, views=10)
    assert result["n"] == 200
    predictor = alexnet.load(run)
    image = load_file(run / "mean.safetensors")["mean"]
    images = patterns(12, seed=2)[0]
    x = torch.from_numpy(images).float() - image[..., 0]
    with torch.no_grad():
        expected = predictor.model(x[:, None, 2:26, 2:26]).softmax(1)
    found = predictor.predict([image[..., None] for image in images])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", ["changed", "missing", "cut"])
def test_a_changed_mean_image_is_refused(how: str, meant: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(meant, tmp_path / "run", symlinks=True))
    path = run / "mean.safetensors"
    image = load_file(path)["mean"]
    if how == "changed":
        image[3, 4, 0] += 1e-3
        save_file({"mean": image}, path)
        words = "the mean image in .*restore its copy"
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        words = "mean.safetensors is damaged"
    else:
        path.unlink()
        words = "mean.safetensors is missing"
    for call in (
        lambda: alexnet.load(run),
        lambda: commands.test(run),
        lambda: commands.train(resume=True, run=run),
        lambda: commands.train("digits", run=tmp_path / "next", init=run),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "next").exists()


def test_a_mean_image_is_handed_on(meant: Path, tmp_path: Path) -> None:
    """Other, darker images: still what the weights were trained with."""
    data, run = tmp_path / "data", tmp_path / "run"
    images, labels = patterns(120, seed=8)
    write_idx(data, "train", images // 2, labels)
    write_idx(data, "t10k", images[:40] // 2, labels[:40])
    recipe = Recipe(batch_size=8, schedule="constant", workers=0, precision="fp32")
    commands.train(recipe, data=data, run=run, init=meant, steps=1)
    assert (run / "mean.safetensors").read_bytes() == (meant / "mean.safetensors").read_bytes()
    assert saved(run)["data"]["mean_image"] == saved(meant)["data"]["mean_image"]
    assert saved(run)["recipe"]["normalize"] == "image"
    alexnet.load(run)
