"""Recipes and networks side by side, and every recipe as a whole."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.cli import main
from alexnet.data import Statistics
from alexnet.errors import UsageError
from alexnet.models import FAMILY, MODELS
from alexnet.recipe import RECIPES, TRAINING, Recipe
from alexnet.training import build_net, build_optimizer, preprocessing, set_rate

IMAGENET = [name for name, make in RECIPES.items() if make().size == 256]

# What the text and the released code of 2012 do differently: FACTS.md, section 3.
PAPER_AND_CODE = {
    "normalize": ("image", "centre"),
    "colour_rule": ("paper", "code"),
    "colour_until": ("0", "67"),
    "epochs": ("90", "91"),
    "bias_lr": ("1", "2"),
    "decay_biases": ("yes", "no"),
    "schedule": ("plateau", "steps"),
    "drops": ("none", "25.0, 51.0, 79.0"),
    "part_lr": ("none", "conv1=0.1@67, conv1=0@72"),
    "stage 1": ("conv1, relu1, norm1, pool1", "conv1, norm1, pool1, relu1"),
    "conv1 padding": ("2", "0"),
    "conv1 ceil": ("no", "yes"),
    "norm1 alpha divided by n": ("no", "yes"),
    "pool1 ceil": ("no", "yes"),
    "stage 2": ("conv2, relu2, norm2, pool2", "conv2, relu2, norm2, mapnorm2, pool2"),
    "norm2 alpha divided by n": ("no", "yes"),
    "pool2 ceil": ("no", "yes"),
    "conv3 initial std": ("0.01", "0.03"),
    "conv4 initial std": ("0.01", "0.03"),
    "conv5 initial std": ("0.01", "0.03"),
    "stage 5": ("conv5, relu5, pool5", "conv5, pool5, relu5"),
    "pool5 ceil": ("no", "yes"),
}

# Fields that runs from before them do not have, and what they mean there.
LATER: dict[str, Any] = {
    "compile": False,
    "flip_rule": "random",
    "normalize": "std",
    "area": 1.0,
    "crop_chunk": 1,
    "colour": 0.0,
    "colour_rule": "paper",
    "colour_until": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "class_weights": "none",
    "accumulate": 1,
    "lr_batch": 0,
    "trust": 0.0,
    "bias_lr": 1.0,
    "part_lr": [],
    "freeze": [],
    "whiten": False,
    "views": 1,
    "orient": "ignore",
    "memory_gib": 2.0,
}


def differences(name: str, other: str, **options: Any) -> list[dict[str, str]]:
    found = alexnet.recipes(name, diff=other, **options)
    assert (found.name, found.other) == (name, other)
    return found.differences  # type: ignore[no-any-return]


def as_table(found: list[dict[str, str]]) -> dict[str, tuple[str, str]]:
    table = {d.what: (d.first, d.second) for d in found}
    assert len(table) == len(found), "nothing is said twice"
    return table


# Differences


def test_the_paper_and_its_code() -> None:
    found = differences("paper-2012", "code-2012")
    table = as_table(found)
    first, second = table.pop("mapnorm2")
    assert first == "none"
    for number in ("n 5", "alpha 0.001", "beta 0.75", "k 1.0", "window map"):
        assert number in second
    assert table == PAPER_AND_CODE
    for d in found:
        assert d.first_source.strip(), d
        assert d.second_source.strip(), d
    sources = {d.what: (d.first_source, d.second_source) for d in found}
    assert sources["conv3 initial std"] == ("paper, section 5", "2012 code, layers/layers-145.cfg")
    assert sources["normalize"][0] == "paper, section 2"


def test_a_comparison_turned_round_is_the_same_with_sides_changed() -> None:
    there, back = differences("paper-2012", "code-2012"), differences("code-2012", "paper-2012")
    assert as_table(back) == {w: (b, a) for w, (a, b) in as_table(there).items()}


def test_the_nets_alone_differ_as_their_recipes_nets_do() -> None:
    """And in how their biases are trained, which is of the recipe that each was trained with."""
    found = differences("alexnet-2012", "alexnet-2012-code")
    table, fields = as_table(found), set(Recipe().to_dict())
    biases = {"biases' learning rate": ("1", "2"), "decay on biases": ("yes", "no")}
    nets = {w for w in PAPER_AND_CODE if w not in fields} | {"mapnorm2"}
    assert set(table) == nets | set(biases)
    assert {w: table[w] for w in biases} == biases
    assert all(d.first_source.startswith("paper, ") for d in found if d.what in biases)
    assert all(d.second_source.startswith("2012 code") for d in found if d.what in biases)
    mixed = as_table(differences("paper-2012", "alexnet-2012-code"))  # a recipe and a net
    assert mixed == table
    # which the nets of small images do not have
    assert not set(biases) & set(as_table(differences("alexnet-2012", "cuda-convnet-18")))


def test_each_net_of_the_literature_has_its_recipe() -> None:
    assert TRAINING.keys() == FAMILY.keys()
    for model, name in TRAINING.items():
        assert RECIPES[name]().model == model or (model, name) == ("caffenet", "caffe")


def test_a_recipes_net_is_compared_as_the_recipe_uses_it(tmp_path: Path) -> None:
    """Its input and dropout, not those that the network was made for."""
    table = as_table(differences("photos", "cifar10"))
    assert table["input"] == ("3 x 64 x 64", "3 x 32 x 32")
    table = as_table(differences("photos", "seed-004"))  # which has no fc8
    assert table["input"] == ("3 x 64 x 64", "1 x 28 x 28")
    std = math.sqrt(2 / (256 * 2 * 2))  # 63 pixels halved four times, pooled by three
    assert f"initial std {std:.4f} (he)" in table["fc8"][0]
    thinned = tmp_path / "thinned.toml"
    thinned.write_text('model = "alexnet-28"\nchannels = 1\nsize = 28\ncrop = 28\ndropout = 0.3\n')
    against = as_table(differences(str(thinned), "alexnet-28"))  # a recipe and its own net
    assert against["drop6 rate"] == ("0.3", "0.5")


def test_the_two_nets_of_caffe_differ_in_order_and_biases_alone() -> None:
    table = as_table(differences("alexnet-caffe", "caffenet"))
    orders = {f"stage {i}": f"conv{i}, relu{i}, {{}}{i}, {{}}{i}" for i in (1, 2)}
    for stage, order in orders.items():
        assert table.pop(stage) == (order.format("norm", "pool"), order.format("pool", "norm"))
    biased = ("conv2", "conv4", "conv5", "fc6", "fc7")
    assert {w: tuple(map(float, v)) for w, v in table.items()} == {
        f"{name} initial bias": (0.1, 1.0) for name in biased
    }


def test_input_and_widths_are_differences() -> None:
    table = as_table(differences("alexnet-2012", "caffenet"))
    assert table["input"] == ("3 x 224 x 224", "3 x 227 x 227")
    assert table["norm1 groups"] == ("2", "1")
    assert float(table["norm1 k"][0]) == 2
    assert float(table["norm1 k"][1]) == 1
    widths = as_table(differences("cuda-convnet-11", "cuda-convnet-13"))
    assert widths["local3 out"] == ("64", "32")


@pytest.mark.parametrize("name", [*MODELS, *RECIPES])
def test_nothing_differs_from_itself(name: str) -> None:
    assert differences(name, name) == []


@pytest.mark.parametrize("other", sorted(MODELS))
def test_any_two_nets_can_be_compared(other: str) -> None:
    """With every difference told apart, and a source for each where a preset has any."""
    for name in ("alexnet-2012", "alexnet-28"):
        found = differences(name, other)
        as_table(found)
        assert bool(found) == (name != other)
        for d in found:
            assert d.first != d.second, d
            assert d.first_source, d
            assert d.second_source, d


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [("paper-2021", "paper-2012"), ("cafenet", "caffenet"), ("alexnet-28x", "alexnet-28")],
)
def test_misspelt_names_get_the_nearest(name: str, meant: str) -> None:
    for call in (
        lambda: alexnet.recipes(name),
        lambda: alexnet.recipes(name, diff="digits"),
        lambda: alexnet.recipes("digits", diff=name),
    ):
        with pytest.raises(UsageError, match=f"{name!r}: did you mean {meant!r}") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_without_a_name_everything_is_listed() -> None:
    found = alexnet.recipes()
    assert [row.name for row in found.recipes] == list(RECIPES)
    assert [row.name for row in found.models] == list(MODELS)
    for row in (*found.recipes, *found.models):
        assert row.about.endswith((".", "error.", ":")) or len(row.about) > 10, row
        assert "\n" not in row.about


# Recipes


@pytest.mark.parametrize("name", RECIPES)
def test_a_digest_is_of_what_is_used(name: str) -> None:
    """Written out: fields that came later count once they are used; others always, but six."""
    recipe = RECIPES[name]()
    values = recipe.to_dict()
    unused = {k for k, v in LATER.items() if values[k] == v}
    old = {k: v for k, v in values.items() if k not in unused}
    assert Recipe.from_dict(old).digest == recipe.digest, "as a run from before would have it"
    free = ("about", "keep", "workers", "bad_images", "bad_share", "wait_for_data")
    counted = {k: v for k, v in old.items() if k not in free}
    text = json.dumps(counted, sort_keys=True).encode()
    assert recipe.digest == hashlib.sha256(text).hexdigest()[:16]


def test_every_later_field_counts_once_it_is_used() -> None:
    used: dict[str, Any] = {
        "compile": True,
        "flip_rule": "alternate",
        "normalize": "mean",
        "area": 0.5,
        "crop_chunk": 2,
        "colour": 0.1,
        "colour_rule": "code",
        "colour_until": 3.0,
        "mixup": 0.5,
        "cutmix": 0.5,
        "class_weights": "balanced",
        "accumulate": 2,
        "lr_batch": 256,
        "trust": 0.001,
        "bias_lr": 2.0,
        "part_lr": ["fc8=10"],
        "freeze": ["conv1"],
        "whiten": True,
        "views": 2,
        "orient": "apply",
        "memory_gib": 0.5,
    }
    assert used.keys() == LATER.keys()
    digests = {Recipe().digest} | {Recipe().replace(**{k: v}).digest for k, v in used.items()}
    assert len(digests) == 1 + len(used)
    plain = Recipe()
    for name, value in used.items():
        assert plain.conflicts(plain.replace(**{name: value})) == [name]


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_recipe_builds_and_fits_on_the_meta_device(name: str) -> None:
    recipe = RECIPES[name]()
    with torch.device("meta"):
        model = build_net(recipe, 1000)
        optimizer = build_optimizer(model, recipe)
        x = torch.empty(2, recipe.channels, recipe.crop, recipe.crop)
        for name_of_part in model.parts:  # by hand: autocast does not know this device
            part = model.part(name_of_part)
            x = part(x.flatten(1) if isinstance(part, torch.nn.Linear) else x)
    assert x.shape == (2, 1000)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    set_rate(optimizer, recipe.lr, 0)
    doubled = name in ("code-2012", "caffe", "one-weird-trick-2014")
    rates = {group["lr"] for group in optimizer.param_groups}
    assert rates == ({recipe.lr, 2 * recipe.lr} if doubled else {recipe.lr})


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_recipes_images_fit_its_net(name: str) -> None:
    recipe = RECIPES[name]()
    mean_image = torch.zeros(recipe.size, recipe.size, 3)
    preprocess = preprocessing(recipe, Statistics((0.0,) * 3, (1.0,) * 3, (), mean_image))
    views = preprocess.views(torch.zeros(1, recipe.size, recipe.size, 3, dtype=torch.uint8), 10)
    assert views.shape == (10, 1, 3, recipe.crop, recipe.crop)
    assert recipe.data == "", "named with --data"


def test_there_are_the_imagenet_recipes_one_expects() -> None:
    expected = {"paper-2012", "paper-2010", "code-2012", "caffe", "one-weird-trick-2014"}
    assert expected <= set(IMAGENET)


# The command line


def test_the_command_line_prints_differences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "paper-2012", "--diff", "code-2012"]) == 0
    said = capsys.readouterr().out
    for what, (first, second) in PAPER_AND_CODE.items():
        assert f"{what}\n    paper-2012: {first}  [" in said
        assert f"\n    code-2012: {second}  [" in said
    assert f"{len(PAPER_AND_CODE) + 1} differences between paper-2012 and code-2012" in said


def test_the_command_line_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["recipes", "alexnet-caffe", "--diff", "caffenet", "--classes", "7"]
    assert main([*argv, "--json"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    found = json.loads(said)
    assert found == alexnet.recipes("alexnet-caffe", diff="caffenet", classes=7)
    assert len(found["differences"]) == 7
    assert main(["recipes", "caffenet", "--diff", "caffenet"]) == 0
    assert capsys.readouterr().out == "0 differences between caffenet and caffenet\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["recipes", "--diff", "digits"], "--diff needs two"),
        (["recipes", "digits", "--diff", "digit"], "did you mean 'digits'"),
    ],
)
def test_the_command_line_refuses_in_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
