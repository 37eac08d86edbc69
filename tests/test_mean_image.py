"""The mean image of a run: kept, resumed, predicted with, verified and handed on."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import alexnet
from alexnet.data import open_dataset
from alexnet.errors import CheckpointError
from alexnet.recipe import Recipe
from conftest import patterns, write_idx
from short_runs import QUICK, assert_same_end, cut_at, saved
from short_runs import no_pictures as no_pictures  # around every test here

CUT_OUT = QUICK | {"steps": 4, "save_every": 1, "crop": 24, "normalize": "image", "flip": True}


@pytest.fixture(scope="module")
def meant(idx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that subtracts the mean image. Read only: tests copy it."""
    run = tmp_path_factory.mktemp("runs") / "meant"
    alexnet.train("digits", data=idx_folder, run=run, **CUT_OUT)
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
    meant: Path, idx_folder: Path, tmp_path: Path
) -> None:
    cut_at(3, "digits", data=idx_folder, run=tmp_path / "cut", **CUT_OUT)
    alexnet.train(resume=True, run=tmp_path / "cut")
    assert_same_end(tmp_path / "cut", meant)


def test_a_run_with_a_mean_image_predicts_with_it(
    meant: Path, idx_folder: Path, tmp_path: Path
) -> None:
    """The centre of (image - mean image), through the network by hand."""
    run = Path(shutil.copytree(meant, tmp_path / "run", symlinks=True))
    result = alexnet.test(run, views=10)
    assert result.n == 200
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
        lambda: alexnet.test(run),
        lambda: alexnet.train(resume=True, run=run),
        lambda: alexnet.train("digits", run=tmp_path / "next", init=run),
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
    alexnet.train(recipe, data=data, run=run, init=meant, steps=1)
    assert (run / "mean.safetensors").read_bytes() == (meant / "mean.safetensors").read_bytes()
    assert saved(run)["data"]["mean_image"] == saved(meant)["data"]["mean_image"]
    assert saved(run)["recipe"]["normalize"] == "image"
    alexnet.load(run)
