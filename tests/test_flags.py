"""Every field of a recipe as the words of a command line, and back."""

import dataclasses
import html
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alexnet.recipe import Recipe, find_recipe
from conftest import write_tree
from shell import Cli
from shell import clean_folder as clean_folder  # around every test here
from shell import cli as cli
from shell import no_pictures as no_pictures

SHORT: dict[str, Any] = {"steps": 1, "batch_size": 8, "workers": 0, "precision": "fp32"}

# Other values than those of `digits`, and of `cifar10-fast`.
GREY: dict[str, Any] = {
    **SHORT, "size": 30, "crop": 26, "orient": "apply", "val_fraction": 0.25,
    "test_fraction": 0.3, "split_seed": 3, "normalize": "mean", "shift": 1, "flip": True,
    "rotate": 3.0, "scale": 0.1, "cutout": 4, "crop_chunk": 2, "mixup": 0.25, "cutmix": 0.5,
    "dropout": 0.25, "epochs": 3.0, "accumulate": 2, "opt": "sgd", "lr": 0.02,
    "lr_batch": 32, "trust": 0.001, "momentum": 0.5, "weight_decay": 0.001,
    "decay_biases": True, "bias_lr": 2.0, "part_lr": ["fc8=10", "conv1=0@1"],
    "freeze": ["conv1"], "class_weights": "balanced", "label_smoothing": 0.1,
    "schedule": "steps", "warmup_epochs": 0.001, "drops": [1.0, 1.5], "lr_factor": 0.2,
    "views": 2, "channels_last": False, "seed": 5, "eval_every": 0.5, "eval_batch": 64,
    "log_every": 3, "save_every": 1, "memory_gib": 1.0,
}  # fmt: skip
COLOURED: dict[str, Any] = {
    **SHORT, "model": "fast-32", "whiten": True, "freeze": ["conv1"], "flip_rule": "random",
    "area": 0.5, "colour": 0.25, "colour_rule": "code", "colour_until": 3.0, "dropout": None,
    "schedule": "plateau", "plateau_patience": 2, "plateau_drops": 1, "early_stop": 4,
    "final_lr": 0.125, "part_lr": [], "decay_biases": False,
}  # fmt: skip
# Of a file that says otherwise; they change no result, or are not for each processor.
REST: dict[str, Any] = {
    **SHORT, "name": "mine", "channels": 1, "compile": False, "precision": "fp32", "keep": 3,
    "bad_images": "skip", "bad_share": 0.25, "wait_for_data": 5.0,
}  # fmt: skip


def words_of(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, "none" if value is None else str(value)]


def train(cli: Cli, recipe: str, data: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's record says of its fields."""
    words = [word for name, value in fields.items() for word in words_of(name, value)]
    status, _, err = cli("train", recipe, "--data", data, "--run", "r", "--no-doctor", *words)
    assert status == 0, err
    recorded: dict[str, Any] = json.loads(Path("r/recipe.json").read_text())["recipe"]
    return recorded


def command_on_page() -> list[str]:
    """The words of the command that makes the run anew."""
    text = Path("r/report.html").read_text().partition("How to reproduce it")[2]
    block = re.search(r"<pre><code>(.*?)</code></pre>", text, re.S)
    assert block
    return shlex.split(html.unescape(block[1]).splitlines()[0])


@pytest.mark.parametrize(("recipe", "fields"), [("digits", GREY), ("cifar10-fast", COLOURED)])
def test_every_field_has_a_flag_that_gives_it_back(
    recipe: str, fields: dict[str, Any], cli: Cli, idx_folder: Path, tmp_path: Path
) -> None:
    """In the run's record, and in the command on its page, which names the recipe."""
    data = idx_folder if recipe == "digits" else write_tree(tmp_path / "tree")
    recorded = train(cli, recipe, data, fields)
    assert {name: recorded[name] for name in fields} == fields
    said = " ".join(command_on_page())
    assert f" train {recipe} --" in said
    named = find_recipe(recipe)
    changed = named.conflicts(Recipe.from_dict(recorded))
    assert len(changed) > 10
    for name in changed:
        assert f" {' '.join(words_of(name, recorded[name]))}" in said, name


@pytest.mark.usefixtures("no_pictures")
def test_fields_that_change_no_result_have_flags(cli: Cli, tree: Path) -> None:
    Path("mine.toml").write_text('model = "alexnet-28"\ncompile = true\nprecision = "bf16"\n')
    recorded = train(cli, "mine.toml", tree, REST)
    assert {name: recorded[name] for name in REST} == REST


def test_every_field_is_tried() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert GREY.keys() | COLOURED.keys() | REST.keys() == fields - {"about", "data"}
