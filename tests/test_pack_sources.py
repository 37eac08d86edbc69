"""What people give `alexnet data pack`: links, splits in any case, odd names, small images."""

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.data import open_source
from alexnet.errors import DataError
from archives import encode, jpeg, picture, write_files
from packs import looks_finished, manifest, pack
from packs import tree as tree


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    """As subsets of a large set are made; a link that leads back is not followed for ever."""
    tree = write_files(tmp_path / "real", {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2)})
    train = tmp_path / "linked/train"
    train.mkdir(parents=True)
    for name in ("cat", "dog"):
        (train / name).symlink_to(tree / name)
    (tree / "cat/again").symlink_to(train)
    said = manifest(pack(tmp_path / "linked", tmp_path / "out"))
    assert (said["counts"], said["classes"]) == ({"train": 2}, ["cat", "dog"])


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAINING", "testing")])
def test_splits_in_any_case(names: tuple[str, str], tmp_path: Path) -> None:
    """Otherwise test images would be trained on."""
    files = {
        f"{split}/{label}/{i}.jpg": jpeg(10 * i + len(split))
        for split in names
        for label in ("a", "b")
        for i in range(3)
    }
    tree = write_files(tmp_path / "tree", files)
    assert manifest(pack(tree, tmp_path / "out"))["counts"] == {"train": 6, "test": 6}
    assert set(alexnet.data_check(tree).counts) == {"train", "test"}
    assert set(open_source(tree).parts) == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("train/a/1.jpg", "train/b/1.jpg", "holdout/a/1.jpg"), "beside the splits.*holdout/a"),
        (("learn/a/1.jpg", "learn/b/1.jpg", "val/a/1.jpg"), "beside the splits"),
        (("train/a/1.jpg", "train/b/1.jpg", "train/stray.jpg"), "no class folder.*stray.jpg"),
        (("val/a/1.jpg", "val/b/1.jpg"), "no train"),
        (("1.jpg", "2.jpg"), "no class folder"),
    ],
    ids=["beside", "misnamed", "stray", "val alone", "flat"],
)
def test_what_would_be_used_wrongly(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """One line, and `data check` says it too."""
    tree = write_files(tmp_path / "tree", {name: jpeg(i) for i, name in enumerate(files)})
    with pytest.raises(DataError, match=said):
        pack(tree, tmp_path / "out")
    assert re.search(said, alexnet.data_check(tree).note)


@pytest.mark.parametrize("source", ["nothing", "one class", "unknown class", "text"])
def test_sources_that_cannot_be(source: str, tmp_path: Path) -> None:
    files, why = {
        "nothing": ({}, "no such file or folder"),
        "one class": ({"a/1.jpg": b""}, r"one class cannot be classified"),
        "unknown class": (
            {"train/a/1.jpg": b"", "train/b/1.jpg": b"", "val/c/1.jpg": b""},
            "val has the class 'c', which train has not",
        ),
        "text": ({"a/1.txt": b""}, "holds no image"),
    }[source]
    with pytest.raises(DataError, match=why):
        pack(write_files(tmp_path / "source", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_readable_is_said(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"a/1.jpg": b"text", "b/1.jpg": b""})
    with pytest.raises(DataError, match="no training image could be read"):
        pack(tree, tmp_path / "out")
    assert not looks_finished(tmp_path / "out")


def test_a_class_of_which_nothing_could_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2), "bird/1.jpg": b""}
    source = write_files(tmp_path / "set", files)
    words = ["data", "pack", str(source), "--out", str(tmp_path / "out"), "--size", "8"]
    for _ in range(2):  # also of a set that is packed already
        assert main(words) == 0
        assert "no training image of bird: add some and pack again" in capsys.readouterr().out


def test_names_that_are_not_utf8_or_hold_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_files(tmp_path / "tree", {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2)})
    for name in (b"caf\xe9.jpg", b"red\x1b[31m.jpg", b"two\nlines.jpg"):
        with open(os.path.join(os.fsencode(tree), b"a", name), "wb") as file:
            file.write(jpeg(3) if name[0] != ord("r") else b"text")
    assert main(["data", "pack", str(tree), "--out", str(tmp_path / "out"), "--size", "16"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "red\\x1b[31m.jpg" in out
    lines = (tmp_path / "out/all.names.txt").read_bytes().splitlines()
    assert sorted(lines) == [b"a/1.jpg", b"a/caf\\udce9.jpg", b"a/two\\nlines.jpg", b"b/1.jpg"]
    assert main(["data", "check", str(tree)]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_no_image_is_counted(
    tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tree, tmp_path / "source"))
    for name in ("a.txt", "b.txt", "c.csv"):
        (source / name).write_text("x")
    before = manifest(pack(tree, tmp_path / "before"))["others"]
    assert main(["data", "pack", str(source), "--out", str(tmp_path / "out"), "--size", "8"]) == 0
    others = manifest(tmp_path / "out")["others"]
    assert others.get(".txt", 0) == before.get(".txt", 0) + 2
    assert others.get(".csv", 0) == before.get(".csv", 0) + 1
    assert "not read     " in capfd.readouterr().out


def test_the_same_image_in_two_splits_is_said(tmp_path: Path) -> None:
    files = {"train/a/1.jpg": jpeg(1), "train/b/1.jpg": jpeg(2), "val/a/9.jpg": jpeg(1)}
    tree = write_files(tmp_path / "tree", {**files, "val/b/9.jpg": jpeg(3)})
    assert alexnet.data_pack(tree, out=tmp_path / "out", size=8).across == 1


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    """Nobody knows whether 1 is white."""
    data = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(data, "TIFF")
    files = {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2), "b/2.tif": data.getvalue()}
    tree = write_files(tmp_path / "tree", files)
    result = alexnet.data_pack(tree, out=tmp_path / "out", size=8)
    assert [entry.path for entry in result.refused] == ["b/2.tif"]


def test_small_images_keep_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CIFAR-10 at the paper's 256 pixels would be 11.8 GB of enlarged pixels."""
    files = {f"{'cat' if i % 2 else 'dog'}/{i}.png": encode(picture(i, 32, 32), "PNG")
             for i in range(4)}  # fmt: skip
    source = write_files(tmp_path / "set", files)
    result = alexnet.data_pack(source, out=tmp_path / "out")
    assert (result.size, manifest(tmp_path / "out")["size"]) == (32, 32)
    assert "images of 32 x 32 pixels: packing at their own, size=32" in capsys.readouterr().err
    assert alexnet.data_pack(source, out=tmp_path / "large", size=64).size == 64
    said = "most images are enlarged: the shorter side is 32 pixels (median of 4), size=... is 64"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("sides", [(200, 200), (30, 40), (300, 400)])
def test_others_are_packed_as_the_paper_has_it(
    sides: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"{side}-{i}/1.jpg": jpeg(i, side, side) for i, side in enumerate(sides)}
    files[f"{sides[1]}-1/2.jpg"] = b"not an image, and no reason not to look at the others"
    source = write_files(tmp_path / "a", files)
    assert alexnet.data_pack(source, out=tmp_path / "b").size == 256
    assert ("most images are enlarged" in capsys.readouterr().err) == (sides[0] < 256)
