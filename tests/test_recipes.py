"""Recipes: each is listed, survives JSON and trains; names that are wrong get the nearest."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import alexnet
from alexnet.data import open_dataset, training_batches
from alexnet.errors import UsageError
from alexnet.recipe import RECIPES, Recipe
from alexnet.training import build_net, build_optimizer, evaluate, preprocessing, train_step
from conftest import write_tree
from shell import Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures


def test_recipes(cli: Cli) -> None:
    listed = one_object(cli("recipes", "--json")[1])["recipes"]
    assert [r["name"] for r in listed] == list(RECIPES)
    assert all(r["about"] for r in listed)
    status, out, said = cli("recipes")
    assert (status, said) == (0, [])
    assert all(name in out for name in RECIPES)
    for name in RECIPES:
        whole = one_object(cli("recipes", name, "--json")[1])
        assert whole.keys() >= {"model", "parameters", "macs", "layers", "digest"}
        assert whole["parameters"] == sum(row["parameters"] for row in whole["layers"])
        sides = {"channels": whole["channels"], "size": whole["crop"]}
        with torch.device("meta"):
            model = alexnet.build_model(whole["model"], whole["classes"], **sides)
        assert whole["parameters"] == sum(p.numel() for p in model.parameters())
    status, out, _ = cli("recipes", name)
    assert status == 0
    assert f"{whole['parameters']:,} parameters" in out


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert recipe.name == name
    assert recipe.replace(seed=recipe.seed + 1).digest != recipe.digest
    assert recipe.replace(workers=recipe.workers + 1, keep=9).digest == recipe.digest
    assert recipe.conflicts(recipe.replace(lr=9.0, workers=7)) == ["lr"]


# Sixty million weights, written and read, are half a minute.
OF_MILLIONS = [name for name in RECIPES if RECIPES[name]().crop > 200]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in OF_MILLIONS)) for n in RECIPES]
)
def test_recipe_trains_two_steps(name: str, cli: Cli, idx_folder: Path, tmp_path: Path) -> None:
    """Its own size, channels, network, optimiser and augmentation, on data of the right kind."""
    recipe = RECIPES[name]()
    data = idx_folder
    if recipe.channels == 3:
        data = write_tree(tmp_path / "data", classes=6, each=6, side=recipe.size + 4)
    small = ["--steps", 2, "--batch-size", 8, "--eval-batch", 50, "--workers", 0]
    if recipe.crop >= 64:  # a look at these takes ten seconds
        small.append("--no-doctor")
    argv = ["train", name, "--data", data, "--run", "r", *small, "--val-fraction", 0.1, "--json"]
    status, out, said = cli(*argv)
    assert status == 0, said
    result = one_object(out)
    assert result["step"] == 2
    assert np.isfinite(result["loss"])
    saved = json.loads(Path("r/recipe.json").read_text())
    changed = recipe.conflicts(Recipe.from_dict(saved["recipe"]))
    allowed = {"steps", "batch_size", "eval_batch", "val_fraction", "precision", "warmup_epochs"}
    assert set(changed) <= allowed


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "tree"
    return write_tree(folder, classes=6, each=3, side=260)


# What these have, others have too.
ALIKE = ("paper-2010", "caffe", "seed-000", "seed-002", "large-batch")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in OF_MILLIONS]
)
def test_a_large_recipe_learns_from_two_steps(name: str, photos: Path) -> None:
    """The same, of networks too large to be written and read here: nothing is saved."""
    recipe = RECIPES[name]().replace(batch_size=3, workers=0, precision="fp32", warmup_epochs=0)
    data = open_dataset(recipe, photos)
    net = build_net(recipe, len(data.classes))
    optimizer, preprocess = build_optimizer(net, recipe), preprocessing(recipe, data.statistics)
    before = [p.detach().clone() for p in net.parameters()]
    batches = training_batches(data.train, recipe, range(2), 0, torch.device("cpu"))
    sums = torch.zeros(4, dtype=torch.float64)
    losses = [
        train_step(net.train(), optimizer, batch, recipe.lr, recipe, preprocess, sums)
        for batch in batches
    ]
    assert torch.stack(losses).isfinite().all()
    assert all(not torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    found = evaluate(net, data.val, preprocess, len(data.classes), workers=0).figures()
    assert found.n == len(data.val)
    assert np.isfinite(found.loss)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'fashon-mnist': did you mean 'fashion-m"):
        alexnet.train("fashon-mnist")
    with pytest.raises(UsageError, match=r"unknown recipe field 'batchsize'.*'batch_size'"):
        Recipe().replace(batchsize=3)
    with pytest.raises(UsageError, match=r"weight_decay is '1'; it takes float"):
        Recipe(weight_decay="1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"opt is 'rmsprop'.*one of sgd, adam, adamw"):
        Recipe(opt="rmsprop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="flip is 1; it takes bool"):
        Recipe(flip=1)  # type: ignore[arg-type]
