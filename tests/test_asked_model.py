"""`train --model NAME --data FOLDER` without a recipe: it trains at a resolution that the network
takes, or says in one line why it does not."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.choice import DataSummary, choose_recipe
from alexnet.errors import UsageError
from alexnet.models import MODELS, build_model
from conftest import without_report, write_tree
from shell import Cli
from shell import clean_folder as clean_folder  # around every test here
from shell import cli as cli

QUICK = ("--steps", 1, "-b", 4, "-j", 0, "--no-doctor", "--precision", "fp32")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos of 32 pixels a side."""
    return write_tree(tmp_path_factory.mktemp("data") / "small", classes=2, each=6, side=32)


def photos_of(side: int, kind: str = "folder") -> DataSummary:
    return DataSummary("here", kind, ("a", "b"), (90, 90), (side,) * 3, 3)


@pytest.mark.parametrize("model", ["patch-128", "alexnet-28"])
def test_a_light_network_trains(
    model: str, small: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    status, _, err = cli("train", "--data", small, "--model", model, "--run", "r", *QUICK)
    assert status == 0, err
    recipe = json.loads(Path("r/recipe.json").read_text())["recipe"]
    assert recipe["model"] == model
    assert (recipe["whiten"], recipe["freeze"]) == (
        (True, ["conv1"]) if model == "patch-128" else (False, [])
    )
    if model == "patch-128":
        assert recipe["crop"] == 128
        assert len([line for line in err if "enlarged" in line]) == 1


def test_a_resolution_that_was_asked_for_is_kept() -> None:
    fields = {"model": "patch-128", "crop": 96}
    recipe = choose_recipe(photos_of(32), lambda _: 100.0, fields=fields).recipe
    assert (recipe.crop, recipe.size) == (96, 110)


def test_large_images_are_not_enlarged() -> None:
    found = choose_recipe(photos_of(300), lambda _: 100.0, fields={"model": "patch-128"})
    assert found.recipe.crop == 128
    assert "enlarged" not in " ".join(found.reasons)


@pytest.mark.parametrize("kind", ["folder", "digits", "packed"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_gets_a_resolution_that_it_takes(model: str, kind: str) -> None:
    """At whatever pace; only a packed set, which has one size, may be too small for it."""
    sizes = set()
    paces = (0.1, 1e6) if kind == "folder" else (1.0,)  # else there is nothing to choose among
    for side, rate in itertools.product((20, 32, 100, 128, 300), paces):
        try:
            found = choose_recipe(
                photos_of(side, kind), lambda _, rate=rate: rate, fields={"model": model}
            )
        except UsageError as error:
            said = str(error)
        else:
            assert found.recipe.model == model
            assert kind != "packed" or found.recipe.size == side
            sizes.add(found.recipe.crop)
            continue
        assert kind == "packed"
        assert f"model={model!r}" in said
        assert f"packed at {side}" in said
    assert sizes
    for size in sizes:
        with torch.device("meta"):  # refuses a size that does not fit, draws no weights
            build_model(model, 2, channels=3, size=size)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--crop", 64), "patch-128 takes images of 96 pixels a side and more, and 64 were asked"),
        (("--crop", 200, "--size", 100), "crop 200 is larger than size 100"),
        (("--size", 50), "patch-128 takes images of 96 pixels a side and more, and 50 were asked"),
    ],
)
def test_what_was_asked_for_is_named(words: Any, why: str, small: Path, cli: Cli) -> None:
    status, _, err = cli("train", "--data", small, "--model", "patch-128", *words)
    assert status == 2
    assert why in err[-1]
    assert "32 were asked" not in " ".join(err)


def test_a_network_that_the_given_runs_images_are_too_small_for(
    small: Path, trained: Path, cli: Cli
) -> None:
    words = ("train", "--data", small, "--init", trained, "--model", "patch-128")
    status, _, err = cli(*words)
    assert status == 2
    assert err[-1].endswith("the run of --init saw 28: add --crop 128 --size 146")


def test_a_packed_set_that_is_too_small(small: Path, cli: Cli) -> None:
    assert cli("data", "pack", small, "--out", "packed", "--size", 32)[0] == 0
    status, _, err = cli("train", "--data", "packed", "--model", "alexnet-bn")
    assert status == 2
    assert "--model alexnet-bn takes images of 63 pixels a side and more" in err[-1]
    assert "packed at 32: pack it again with --size 224" in err[-1]
