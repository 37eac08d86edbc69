"""What the recipes for the minutes spent are made of: whitening, mirrored views, their networks."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import alexnet
from alexnet import commands
from alexnet.data import Preprocess, Statistics, loader
from alexnet.errors import UsageError
from alexnet.models import build_model
from alexnet.recipe import Recipe
from alexnet.recipebook import RECIPES, find_recipe
from alexnet.show import runs as show
from alexnet.training import (
    ALONE,
    build_net,
    build_optimizer,
    build_towers,
    predict_views,
    preprocessing,
    step,
    whiten,
)
from conftest import without_report, write_tree


def test_whitened_patches_are_uncorrelated_and_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.training.network.WHITEN_CHUNK", 24)  # the last one is smaller
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 32, 32, generator=generator)
    images = torch.nn.functional.avg_pool2d(images, 3, 1, 1) * 5  # as photos: neighbours alike
    net = build_model("fast-32", 10)
    whiten(net, images)
    conv1 = net.part("conv1")
    assert isinstance(conv1, torch.nn.Conv2d)
    with torch.no_grad():
        found = torch.nn.functional.conv2d(images, conv1.weight, stride=2)
    rows = found.permute(1, 0, 2, 3).flatten(1)
    spread = rows @ rows.T / rows.shape[1]
    own, negated = spread[:12, :12], spread[:12, 12:]
    assert (own - torch.eye(12)).abs().max() < 0.05
    torch.testing.assert_close(negated, -own)
    drawn = build_model("fast-32", 10).part("conv1")(images).permute(1, 0, 2, 3).flatten(1)
    assert torch.corrcoef(drawn).abs().mean() > 2 * torch.corrcoef(rows).abs().mean()  # not by luck


def test_whitening_needs_one_convolution_first() -> None:
    with pytest.raises(UsageError, match=r"whiten needs .* fc1 is not") as caught:
        whiten(_of_products(), torch.zeros(2, 1, 8, 8))
    assert "leave it out" in str(caught.value)


def test_whitening_and_towers_refuse_each_other() -> None:
    """A tower has half of the first layer's filters, and would get the other's."""
    recipe = find_recipe("paper-2012").replace(whiten=True)
    net, team = build_model("alexnet-2012-32", 10), replace(ALONE, towers=2)
    with pytest.raises(UsageError, match=r"towers 2: trust and whiten need whole layers"):
        build_towers(net, recipe, 10, team)


def _of_products() -> Any:
    from alexnet.models import Linear, Net

    return Net([Linear("fc1", 4), Linear("fc2", 3)], (1, 8, 8))


def test_two_views_are_the_image_and_its_mirror() -> None:
    net = build_model("fast-32", 4).eval()
    preprocess = Preprocess(32, 32, 3, Statistics((100.0,) * 3, (50.0,) * 3, ()))
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        _, both = predict_views(net, images, preprocess, 2)
        one, other = (predict_views(net, x, preprocess, 1)[1] for x in (images, images.flip(2)))
    torch.testing.assert_close(both.exp(), (one.exp() + other.exp()) / 2)


def test_a_whitened_run_validates_mirrored_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whitened once, when it begins; frozen; the same to the bit when it is cut. Validation says
    by how many views it is."""
    from alexnet.training import train as engine

    without_report(monkeypatch)
    data = write_tree(tmp_path / "tree", each=20)
    fields: dict[str, Any] = {
        "steps": 12, "batch_size": 8, "precision": "fp32", "eval_every": 1, "workers": 0,
        "doctor": "off", "keep": 9,
    }  # fmt: skip

    def run(name: str) -> Path:
        show.train(alexnet.train("cifar10-fast", data=data, run=tmp_path / name, **fields))
        return tmp_path / name

    def weights(path: Path, which: str) -> Any:
        return alexnet.load(path, which).model.part("conv1").weight

    whole = run("whole")
    said = capsys.readouterr()
    held = [line for line in said.err.splitlines() if "validation: loss" in line]
    assert held
    assert all(line.endswith(", 2 views") for line in held)
    assert " of 2 views at step " in said.out
    assert torch.equal(weights(whole, "step-0"), weights(whole, "last"))
    assert weights(whole, "last").flatten(1).norm(dim=1).std() > 0.1  # not as drawn
    real = engine.train_step

    def dying(model: Any, optimizer: Any, batch: Any, *rest: Any) -> Any:
        if batch.step == 9:
            raise RuntimeError("cut")
        return real(model, optimizer, batch, *rest)

    monkeypatch.setattr(engine, "train_step", dying)
    with pytest.raises(RuntimeError, match="cut"):
        run("cut")
    monkeypatch.setattr(engine, "train_step", real)
    alexnet.train(run=tmp_path / "cut", resume=True)
    files = [tmp_path / n / "checkpoints/last/model.safetensors" for n in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    events = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "val"][-1]
    found = commands.test(whole, split="val", views=2, checkpoint="last")
    assert found["loss"] == pytest.approx(last["loss"], rel=1e-5)
    assert commands.test(whole, split="val", checkpoint="last")["loss"] != found["loss"]


@pytest.mark.parametrize("name", ["cifar10-fast", "imagenette"])
def test_fast_recipes_have_no_residual_and_fit(name: str) -> None:
    recipe = find_recipe(name)
    net = build_model(recipe.model, 10, size=recipe.crop)
    assert net(torch.zeros(2, 3, recipe.crop, recipe.crop)).shape == (2, 10)
    kinds = {type(m).__name__ for m in net.modules() if not list(m.children())}
    assert kinds <= {"Conv2d", "StridedConv", "MaxPool2d", "BatchNorm2d", "ReLU", "Linear"}


EVERYTHING = Recipe(
    model="fast-32", precision="fp32", opt="adamw", flip=True, flip_rule="alternate", area=0.5,
    colour=0.1, cutout=8, rotate=5, scale=0.1, mixup=1, class_weights="balanced",
)  # fmt: skip


class Unwaiting(TorchDispatchMode):
    """Refuses what would make a GPU's step wait for what it did before: copies there that are not
    told to take their turn, and indices that lie on the processor."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        make = torch.tensor

        def tensor(*values: Any, device: Any = None, **how: Any) -> Any:
            assert torch.device(device or "cpu").type == "cpu", (
                "torch.tensor() waits for the device"
            )
            return make(*values, **how)

        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch.Tensor, "new_tensor", None)  # calls neither

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name, given = func.overloadpacket.__name__, [a for a in tree_leaves(args) if is_tensor(a)]
        here = [a for a in given if a.device.type == "cpu"]
        if here and is_tensor(found) and found.device.type != "cpu":
            if name in ("_to_copy", "copy_"):
                third = args[2] if len(args) > 2 else False
                assert (kwargs or {}).get("non_blocking", third), f"{name} waits for the device"
            else:
                assert all(a.dim() == 0 for a in here), f"{name} of two devices"
        return found


@pytest.mark.parametrize("name", [*RECIPES, "everything"])
def test_a_step_on_another_device_has_all_there_and_waits_for_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's `meta` device, as on a GPU, tensors of two devices do not mix; and since its
    tensors have no numbers, whatever asks for one, which on a GPU would wait for it, is refused."""
    device = torch.device("meta")
    recipe = EVERYTHING if name == "everything" else find_recipe(name).replace(precision="fp32")
    size, channels = recipe.size, recipe.channels
    even = tuple(tuple(float(i == j) for j in range(channels)) for i in range(channels))
    statistics = Statistics(
        (128.0,) * channels, (64.0,) * channels, even, torch.zeros(size, size, channels)
    )
    preprocess = preprocessing(recipe, statistics)
    with device:
        net = build_net(recipe, 10)
    optimizer = build_optimizer(net, recipe)

    def update(weights: Any, gradients: Any, *rest: Any, **more: Any) -> None:
        assert {t.device for t in [*weights, *gradients]} == {device}

    monkeypatch.setattr(torch, "_fused_sgd_", update)  # which has no form without numbers
    for group in optimizer.param_groups:
        group["fused"] = False  # Adam's neither
    monkeypatch.setattr(step, "autocast", lambda *_: contextlib.nullcontext())
    images = torch.zeros(12, size, size, channels, dtype=torch.uint8, device=device)
    labels = torch.zeros(12, dtype=torch.int64, device=device)
    kept, ids = loader.Kept(images, labels), np.arange(8)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    weight = torch.ones(10, device=device) if recipe.class_weights == "balanced" else None
    with Unwaiting(monkeypatch):
        of_all = torch.zeros(8, dtype=torch.int64)
        batch = loader.Batch(0, 0, ids, *kept.take(ids), of_all=of_all)
        loss = step.train_step(net, optimizer, batch, 0.01, recipe, preprocess, sums, weight)
    assert loss.device == device
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.device == device for p in trained)
