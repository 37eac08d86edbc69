"""Nothing that is called draws from a caller's random generators, or sets their seeds."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import alexnet
from conftest import without_pictures
from old_runs import RUNS, make_data, make_photos
from shell import clean_folder

__all__ = ["clean_folder"]

# Settings that take a second: a network of small kernels, few images, nothing looked into before.
SMALL: dict[str, Any] = {
    "model": "cuda-convnet-18", "size": 20, "crop": 16, "batch_size": 8, "steps": 2,
    "precision": "fp32", "workers": 0, "cutout": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its photos, and what is made of the run."""
    folder = tmp_path_factory.mktemp("place")
    make_data(folder)
    make_photos(folder / "split" / "train")
    shutil.copytree(RUNS / "photos", folder / "run", symlinks=True)
    shutil.copytree(RUNS / "stopped", folder / "stopped", symlinks=True)
    alexnet.export(folder / "run", format="safetensors", out=folder / "weights")
    return folder


def drawn() -> dict[str, Any]:
    """The state of each global generator."""
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),
        "torch": torch.get_rng_state().tolist(),
    }


def examine(place: Path, what: str) -> None:
    data = {} if what == "filters" else {"data": place / "photos"}
    alexnet.inspect(place / "run", what, **data)


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(Exception, match=r"hides the whole|no such"):
        call()


PICTURE = "photos/disc/00.png"
CALLS: dict[str, Callable[[Path, Path], Any]] = {
    "load": lambda at, _: alexnet.load(at / "run"),
    "predict": lambda at, _: alexnet.load(at / "run").predict([at / PICTURE], views=2),
    "test": lambda at, _: alexnet.test(at / "run", data=at / "photos"),
    "int8": lambda at, _: alexnet.test(at / "run", data=at / "photos", engine="int8"),
    "prove": lambda at, _: alexnet.test(at / "run", data=at / "photos", certificate=True),
    "classify": lambda at, _: alexnet.classify(at / "run", [at / PICTURE]),
    "mistakes": lambda at, _: examine(at, "mistakes"),
    "filters": lambda at, _: examine(at, "filters"),
    "export": lambda at, out: alexnet.export(at / "run", format="torch-export", out=out / "m.pt2"),
    "import": lambda at, out: alexnet.import_weights(at / "weights", run=out / "imported"),
    "report": lambda at, _: alexnet.report(at / "run", brief=True),
    "doctor": lambda at, _: alexnet.doctor("photos", data=at / "photos", seconds=2, **SMALL),
    "doctor of a run": lambda at, _: alexnet.doctor(at / "run"),
    "train": lambda at, out: alexnet.train("photos", data=at / "photos", run=out / "run", **SMALL),
    "resume": lambda at, _: alexnet.train(resume=True, run=at / "stopped", data=at / "digits"),
    "check": lambda at, _: alexnet.data_check(at / "photos"),
    "pack": lambda at, out: alexnet.data_pack(at / "photos", out=out / "pack", size=20),
    "refused": lambda at, _: refused(
        lambda: alexnet.train("photos", data=at / "photos", **{**SMALL, "cutout": 99})
    ),
    "no such run": lambda at, _: refused(lambda: alexnet.load(at / "none")),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_callers_draws_are_its_own(
    call: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = drawn()
    CALLS[call](place, tmp_path)
    after = drawn()
    assert [name for name in before if before[name] != after[name]] == []


def test_what_is_computed_does_not_depend_on_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        run = tmp_path / str(seed)
        alexnet.train("photos", data=place / "photos", run=run, doctor="off", **SMALL)
        weights.append((run / "checkpoints/last/model.safetensors").read_bytes())
    assert weights[0] == weights[1]
