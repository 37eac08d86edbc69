"""Networks that others superseded: no new training takes them, and runs that have them go on."""

import json
from pathlib import Path

import pytest

import alexnet
from alexnet.errors import UsageError
from alexnet.models import MODELS, RETIRED, find_model
from conftest import without_pictures

RECIPE = """
name = "old"
model = "{model}"
channels = 1
size = {side}
crop = {side}
steps = {steps}
batch_size = 8
eval_every = 99
log_every = 1
precision = "fp32"
workers = 0
keep = 2
"""


@pytest.mark.parametrize("name", sorted(RETIRED))
def test_a_new_training_is_refused_with_the_way_out(name: str, idx_folder: Path) -> None:
    assert name not in MODELS
    for words, options in ((name, {}), ("digits", {"model": name})):
        with pytest.raises(UsageError, match=rf"{name} is retired.*model='") as raised:
            alexnet.train(words, data=idx_folder, **options)
        successor = str(raised.value).partition("model='")[2].partition("'")[0]
        assert successor in MODELS
        assert find_model(successor).channels == RETIRED[name].channels
    assert find_model(name) is RETIRED[name]
    assert alexnet.recipes(name).about == RETIRED[name].about


@pytest.mark.parametrize(("name", "side"), [("wide-32", 28), ("fast-128", 96)])
def test_a_run_loads_is_tested_and_goes_on(
    name: str, side: int, idx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted at a checkpoint has the weights of one that never was."""
    without_pictures(monkeypatch)
    recipe, whole, run = tmp_path / "old.toml", tmp_path / "whole", tmp_path / "run"
    recipe.write_text(RECIPE.format(model=name, side=side, steps=4))
    alexnet.train(str(recipe), data=idx_folder, run=whole, save_every=2)
    alexnet.train(str(recipe), data=idx_folder, run=run, save_every=2)
    last = run / "checkpoints/last"
    first = next(p for p in sorted((run / "checkpoints").glob("step-*")) if p != last.resolve())
    last.unlink()
    last.symlink_to(first.name)
    alexnet.train(resume=True, run=run)
    tested = [alexnet.test(one, data=idx_folder) for one in (whole, run)]
    assert tested[0].loss == tested[1].loss
    assert json.loads((run / "recipe.json").read_text())["recipe"]["model"] == name
    assert alexnet.load(run).model is not None
