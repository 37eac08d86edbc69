"""What the recipes for the minutes spent are made of: whitening, mirrored views, their networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import is_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import alexnet
from alexnet.data import Batch, DeviceSplit, Preprocess, Statistics
from alexnet.errors import UsageError
from alexnet.models import Linear, Net, build_model
from alexnet.recipe import RECIPES, Recipe, find_recipe
from alexnet.training import (
    ALONE,
    build_net,
    build_optimizer,
    build_towers,
    predict_views,
    preprocessing,
    train_step,
    whiten,
)
from conftest import read_events, without_report, write_tree
from shell import Cli
from shell import cli as cli
from short_runs import cut_at, model_file


def test_whitened_patches_are_uncorrelated_and_of_one_size() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 32, 32, generator=generator)
    images = torch.nn.functional.avg_pool2d(images, 3, 1, 1) * 5  # as photos: neighbours alike
    net = build_model("fast-32", 10)
    whiten(net, images, chunk=24)  # the last one is smaller
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
        whiten(Net([Linear("fc1", 4), Linear("fc2", 3)], (1, 8, 8)), torch.zeros(2, 1, 8, 8))
    assert "leave it out" in str(caught.value)


def test_whitening_and_towers_refuse_each_other() -> None:
    """A tower has half of the first layer's filters, and would get the other's."""
    recipe = find_recipe("paper-2012").replace(whiten=True)
    net, team = build_model("alexnet-2012-32", 10), replace(ALONE, towers=2)
    with pytest.raises(UsageError, match=r"towers 2: trust and whiten need whole layers"):
        build_towers(net, recipe, 10, team)


def test_two_views_are_the_image_and_its_mirror() -> None:
    net = build_model("fast-32", 4).eval()
    preprocess = Preprocess(32, 32, 3, Statistics((100.0,) * 3, (50.0,) * 3, ()))
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        _, both = predict_views(net, images, preprocess, 2)
        one, other = (predict_views(net, x, preprocess, 1)[1] for x in (images, images.flip(2)))
    torch.testing.assert_close(both.exp(), (one.exp() + other.exp()) / 2)


def test_a_whitened_run_validates_mirrored_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """Whitened once, when it begins; frozen; the same to the bit when it is cut. Validation says
    by how many views it is."""
    without_report(monkeypatch)
    data = write_tree(tmp_path / "tree", each=15)
    fields: dict[str, Any] = {
        "steps": 8, "batch_size": 8, "precision": "fp32", "eval_every": 1, "workers": 0,
        "doctor": "off", "keep": 9, "log_every": 1,
    }  # fmt: skip
    flags = [word for key, v in fields.items() for word in (f"--{key.replace('_', '-')}", v)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, out, err = cli("train", "cifar10-fast", "--data", data, "--run", whole, *flags)
    assert status == 0, err
    said = [line for line in err if "validation: loss" in line]
    assert said
    assert all(line.endswith(", 2 views") for line in said)
    assert " of 2 views at step " in out
    first, last = (
        load_file(model_file(whole, name))["conv1.weight"] for name in ("step-0", "last")
    )
    assert torch.equal(first, last)
    assert last.flatten(1).norm(dim=1).std() > 0.1  # not as drawn
    cut_at(7, "cifar10-fast", data=data, run=cut, **fields)
    alexnet.train(run=cut, resume=True)
    assert model_file(whole, "last").read_bytes() == model_file(cut, "last").read_bytes()
    valued = [event for event in read_events(whole) if event["event"] == "val"][-1]
    found = alexnet.test(whole, split="val", views=2, checkpoint="last")
    assert found.loss == pytest.approx(valued["loss"], rel=1e-5)
    assert alexnet.test(whole, split="val", checkpoint="last").loss != found.loss


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


class Unwaiting(TorchFunctionMode):
    """Refuses tensors that are made of numbers on the device, which wait for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor:
            device = torch.device(kwargs.get("device") or "cpu")
            assert device.type == "cpu", "torch.tensor() waits for the device"
        assert func is not torch.Tensor.new_tensor, "new_tensor() waits for the device"
        return func(*args, **kwargs)


class Apart(TorchDispatchMode):
    """Refuses what would make a GPU's step wait for what it did before: copies there that are not
    told to take their turn, and indices that lie on the processor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [a for a in tree_leaves((args, kwargs)) if is_tensor(a)]
        if func is torch.ops.aten._fused_sgd_.default:  # which has no form without numbers
            assert {t.device.type for t in given} == {"meta"}
            return None
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        here = [a for a in given if a.device.type == "cpu"]
        if here and is_tensor(found) and found.device.type != "cpu":
            if name in ("_to_copy", "copy_"):
                third = args[2] if len(args) > 2 else False
                assert (kwargs or {}).get("non_blocking", third), f"{name} waits for the device"
            else:
                assert all(a.dim() == 0 for a in here), f"{name} of two devices"
        return found


@pytest.mark.parametrize("name", [*RECIPES, "everything"])
def test_a_step_on_another_device_has_all_there_and_waits_for_nothing(name: str) -> None:
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
    for group in optimizer.param_groups:
        group["fused"] = False  # Adam's has no form without numbers
    images = torch.zeros(12, size, size, channels, dtype=torch.uint8, device=device)
    labels = torch.zeros(12, dtype=torch.int64, device=device)
    kept, ids = DeviceSplit(images, labels), np.arange(8)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    weight = torch.ones(10, device=device) if recipe.class_weights == "balanced" else None
    with Unwaiting(), Apart():
        of_all = torch.zeros(8, dtype=torch.int64)
        batch = Batch(0, 0, ids, *kept.take(ids), of_all=of_all)
        loss = train_step(net, optimizer, batch, 0.01, recipe, preprocess, sums, weight)
    assert loss.device == device
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.device == device for p in trained)
