"""Training from a packed set: the same weights as from its source, and damage is named."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alexnet
from alexnet.cli import main
from alexnet.data import open_dataset
from alexnet.errors import DataError
from alexnet.recipe import find_recipe
from archives import encode, pack_in_blocks, picture, write_files
from conftest import without_pictures
from packs import manifest, pack
from shell import forget_after

FIELDS: dict[str, Any] = {
    **{"size": 36, "crop": 32, "steps": 6, "batch_size": 8, "eval_every": 1.0, "save_every": 3},
    **{"model": "cuda-convnet-18", "dropout": None},
    **{"precision": "fp32", "workers": 2, "cutout": 4, "log_every": 2, "eval_batch": 16},
    "doctor": "off",
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


@pytest.fixture(scope="module")
def same_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNGs and JPEGs of the stored size in three parts: nothing is resized, encoded or moved."""
    files = {}
    for split, count in (("train", 10), ("val", 5), ("test", 5)):
        for c in "abc":
            for i in range(count):
                image = picture(1000 * "abc".index(c) + 10 * len(files) + i, 36, 36)
                files[f"{split}/{c}/{i:02}.png"] = encode(image, "PNG")
    return write_files(tmp_path_factory.mktemp("same") / "tree", files)


@pytest.fixture(scope="module")
def sets(same_size: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    made = {
        e: pack_in_blocks(same_size, root / e, size=36, encoding=e, block=8)
        for e in ("raw", "jpeg")
    }
    return {"tree": same_size, **made}


def weights(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints/last"
    return {n: (folder / f"{n}.safetensors").read_bytes() for n in ("model", "optimizer")}


def train(data: Path, run: Path, **fields: Any) -> Path:
    alexnet.train("photos", data=data, run=run, **FIELDS | fields)
    return run


@pytest.fixture(scope="module")
def run_on(
    sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """run_on("raw"): a finished run on one of the sets. Read only: tests copy it."""

    @cache
    def run(kind: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            without_pictures(patch)
            workers = 0 if kind == "raw" else 2
            return train(sets[kind], tmp_path_factory.mktemp("runs") / kind, workers=workers)

    return run


def test_the_same_weights_as_from_the_tree(run_on: Callable[[str], Path]) -> None:
    """Sorted alike, split alike: the runs are the same bit for bit."""
    assert weights(run_on("raw")) == weights(run_on("tree"))


def test_the_same_weights_from_jpegs_kept_as_they_are(tmp_path: Path) -> None:
    files = {
        # Colours at full size: of smaller ones reading back makes the quick enlargement.
        f"{split}/{c}/{i:02}.jpg": encode(
            picture(70 * i + ord(c) + len(split), 36, 36), quality=90, subsampling="4:4:4"
        )
        for split, count in (("train", 10), ("val", 3), ("test", 4))
        for c in "abc"
        for i in range(count)
    }
    tree = write_files(tmp_path / "tree", files)
    out = pack(tree, tmp_path / "packed", size=36, encoding="jpeg")
    expected = weights(train(tree, tmp_path / "run-1"))
    assert weights(train(out, tmp_path / "run-2")) == expected


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_exact_resume(encoding: str, run_on: Callable[[str], Path], tmp_path: Path) -> None:
    whole = run_on(encoding)
    cut = Path(shutil.copytree(whole, tmp_path / "cut", symlinks=True))
    forget_after(cut, 3)
    assert weights(cut) != weights(whole)
    alexnet.train(resume=True, run=cut)
    assert weights(cut) == weights(whole)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_ten_views(encoding: str, run_on: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_on(encoding), tmp_path / "run", symlinks=True))
    result = alexnet.test(run, views=10)
    assert [(row.class_name, row.n) for row in result.per_class] == [(c, 5) for c in "abc"]
    assert np.isfinite(result.loss)
    assert result.views == 10


def test_another_size_is_refused_with_both_numbers(
    sets: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "photos", "--data", str(sets["raw"]), "--run", str(tmp_path / "run")]
    assert main([*words, "--size", "72", "--crop", "64"]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "packed at 36 pixels" in line
    assert "--size 36" in line
    assert "the recipe stores 72" in line


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_damaged_payload_is_named(encoding: str, sets: dict[str, Path], tmp_path: Path) -> None:
    """Cut by a byte, and removed."""
    names = sorted(manifest(sets[encoding])["payload"])
    assert len(names) >= 10
    copy = Path(shutil.copytree(sets[encoding], tmp_path / "copy"))
    for name in names:
        os.truncate(copy / name, (copy / name).stat().st_size - 1)
        for _ in ("cut", "removed"):
            with pytest.raises(DataError, match=f"{name}: missing or cut"):
                train(copy, tmp_path / "run")
            (copy / name).unlink(missing_ok=True)
        shutil.copy(sets[encoding] / name, copy / name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"size": 36}'])
def test_a_damaged_manifest_is_one_line(
    content: bytes, sets: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sets["raw"], copy)
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        train(copy, tmp_path / "run")


def test_the_test_slice_is_not_measured(tmp_path: Path) -> None:
    files = {
        f"{c}/{i:02}.png": encode(picture(100 * ord(c) + i, 36, 36), "PNG")
        for c in "ab"
        for i in range(10)
    }
    out = pack(write_files(tmp_path / "tree", files), tmp_path / "out", size=36)
    dataset = open_dataset(find_recipe("photos").replace(size=36, crop=32), out)
    train = dataset.split("train")
    seen = train.read(np.arange(len(train)))
    np.testing.assert_allclose(dataset.statistics.mean, seen.reshape(-1, 3).mean(0), rtol=1e-9)
