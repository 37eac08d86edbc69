"""Training from the weights of another run: what is taken, what is made anew and who decides."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import alexnet
from alexnet.data import open_dataset
from alexnet.errors import CheckpointError, UsageError
from alexnet.recipe import Recipe
from alexnet.training import take_weights
from conftest import patterns, read_events, write_tree
from short_runs import QUICK, model_file, same_bits, saved, small_net
from short_runs import no_pictures as no_pictures  # around every test here


def test_a_run_gives_every_tensor_to_the_same_classes(
    trained: Path, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    alexnet.train("digits", data=idx_folder, run=run, init=trained, seed=5, **QUICK)
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
    alexnet.train(
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
    alexnet.train("photos", data=tree, run=run, init=trained, cutout=0, **QUICK)
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
    alexnet.train("photos", data=data, run=run, init=trained, cutout=0, **QUICK)
    theirs, ours = load_file(model_file(trained)), load_file(model_file(run, "step-0"))
    for name in ours:
        assert ours[name].shape == theirs[name].shape
        assert torch.equal(ours[name], theirs[name]) == (name not in ("fc8.weight", "fc8.bias"))
    said = " ".join(capsys.readouterr().err.split())
    assert "fc8 of the given weights is not taken: 'class-0' is not among its classes" in said
    assert f"{len(theirs) - 2} tensors taken; made anew: fc8.weight, fc8.bias" in said


def test_classes_in_another_order_get_a_new_head(
    trained: Path, idx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    shutil.copytree(trained, first, symlinks=True)
    record = saved(first)
    record["data"]["classes"].reverse()
    (first / "recipe.json").write_text(json.dumps(record))
    alexnet.train("digits", data=idx_folder, run=run, init=first, **QUICK | {"steps": 1})
    assert "fc8 of the given weights is not taken: its classes are in" in capsys.readouterr().err
    theirs, ours = load_file(model_file(trained)), load_file(model_file(run, "step-0"))
    taken = {name for name, value in ours.items() if torch.equal(value, theirs[name])}
    assert ours.keys() - taken == {"fc8.weight", "fc8.bias"}


@pytest.mark.parametrize("there", [True, False], ids=["another-shape", "missing"])
def test_what_is_made_anew_is_not_frozen(there: bool) -> None:
    """It would stay as it was drawn."""
    model, weights = small_net(), dict(small_net().state_dict())
    model.freeze("conv1..conv2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    del weights["conv1.weight"]
    if there:
        weights["conv1.weight"] = torch.zeros(4, 3, 3, 3)
    with pytest.raises(CheckpointError, match=r"w: conv1.weight is frozen, .*out of freeze="):
        take_weights(model, weights, "w")
    assert same_bits(model.state_dict(), before)
    model = small_net()
    model.freeze("conv2..conv3")
    assert "conv1.weight" in " ".join(take_weights(model, weights, "w").initialised)


def test_colour_weights_on_grey_images_cannot_be_frozen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first layer is made anew for one channel; frozen, it is refused and no run is left."""
    data, first, run = write_tree(tmp_path / "data"), tmp_path / "first", tmp_path / "run"
    fields = QUICK | {"data": data, "batch_size": 4, "cutout": 0, "crop": 32, "size": 32}
    alexnet.train("photos", run=first, model="cifar-alexnet", **fields)
    fields |= {"init": first, "channels": 1}
    alexnet.train("photos", run=tmp_path / "grey", **fields)
    assert "made anew: conv1.weight ((64, 1, 3, 3), (64, 3, 3, 3) in" in capsys.readouterr().err
    with pytest.raises(
        CheckpointError,
        match=r"conv1.weight is frozen, and the file does not have it in the shape \(64, 1",
    ):
        alexnet.train("photos", run=run, freeze=("conv1",), **fields)
    assert not run.exists()


def test_explicit_fields_win_over_the_runs(trained: Path, tree: Path, tmp_path: Path) -> None:
    """Of images stored at another size the run's statistics say nothing."""
    run, fields = tmp_path / "run", QUICK | {"size": 32, "normalize": "mean"}
    alexnet.train("photos", data=tree, run=run, init=trained, cutout=0, **fields)
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
    alexnet.train("photos", data=tree, run=run, init=trained, cutout=0, **fields)
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
    alexnet.train("digits", run=first, **fields, normalize="image")
    alexnet.train("digits", run=run, init=first, **fields)  # shift, rotate and scale are 0 here
    assert saved(run)["recipe"]["normalize"] == "image"


def test_colour_noise_after_a_run_that_had_none(tree: Path, tmp_path: Path) -> None:
    first, run = tmp_path / "first", tmp_path / "run"
    fields = QUICK | {"steps": 1, "batch_size": 4, "data": tree}
    alexnet.train("cifar10", run=first, **fields)
    alexnet.train("cifar10", run=run, init=first, colour=0.1, **fields)
    assert np.shape(saved(run)["data"]["covariance"]) == (3, 3)


def test_init_and_whiten_do_not_go_together(trained: Path, tree: Path, tmp_path: Path) -> None:
    fields = QUICK | {"whiten": True}
    with pytest.raises(UsageError, match=r"whiten=True .*init=.*leave one out"):
        alexnet.train("photos", data=tree, run=tmp_path / "run", init=trained, **fields)
    assert not (tmp_path / "run").exists()


def test_init_and_resume_do_not_go_together(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"init=.*resume=True .*leave one out"):
        alexnet.train(resume=True, run=trained, init=trained)


@pytest.mark.parametrize("init", ["no such folder", "a folder that is no run"])
def test_init_from_a_folder_that_is_no_run(init: str, idx_folder: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / init, tmp_path / "run"
    if init != "no such folder":
        folder.mkdir()
    with pytest.raises(CheckpointError, match=r"no such folder|no run directory"):
        alexnet.train("digits", data=idx_folder, run=run, init=folder, **QUICK)
    assert not run.exists()
