"""ILSVRC's own archives: labels by name, corrected images, titles, and the official counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet import commands
from alexnet.cli import main
from alexnet.data.arrange import arrange
from alexnet.data.ilsvrc import OFFICIAL
from archives import TITLES, WNIDS, encode, jpeg, write_tar
from conftest import without_report
from official import INDEX, KINDS, NAMES, content, labels_by_name, wanted, write_official


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_joined_by_name(kind: str, tmp_path: Path) -> None:
    assert [INDEX[wnid] + 1 for wnid in WNIDS] != [1, 2, 3, 4]  # or the test would show nothing
    found = arrange(write_official(tmp_path, kind))
    assert found.classes == tuple(sorted(WNIDS))
    assert found.titles == TITLES
    assert found.kind == kind.replace("ILSVRC", "ILSVRC-")
    assert {s: labels_by_name(found, s) for s in ("train", "val", "test")} == wanted(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_archives(kind: str, tmp_path: Path) -> None:
    found = arrange(write_official(tmp_path, kind))
    for files in found.parts.values():
        for i in range(len(files)):
            assert files.read(i) == content(Path(files.name(i)).name)


def test_corrected_images_of_2010_replace_the_broken_ones(tmp_path: Path) -> None:
    root = write_official(tmp_path, "ILSVRC2010")
    train, val = f"{WNIDS[1]}_8.JPEG", "ILSVRC2010_val_00000002.JPEG"
    patches = {f"patch_images/train/{train}": jpeg(777), f"patch_images/val/{val}": jpeg(778)}
    patches["patch_images/train/n09999999_1.JPEG"] = jpeg(779)  # of no image here
    patches["patch_images/readme.txt"] = b"corrected"
    write_tar(root / "patch_images.tar", patches)
    found = arrange(root)
    assert {s: labels_by_name(found, s) for s in found.parts} == wanted("ILSVRC2010")
    for split, name, seed in (("train", train, 777), ("val", val, 778)):
        files = found.parts[split]
        read = {Path(files.name(i)).name: files.read(i) for i in range(len(files))}
        assert read.pop(name) == jpeg(seed)
        assert all(data == content(other) for other, data in read.items())


def test_patches_are_packed(tmp_path: Path) -> None:
    root = write_official(tmp_path / "archives", "ILSVRC2010")
    name = f"{WNIDS[1]}_8.JPEG"
    white = encode(Image.new("RGB", (9, 9), "white"))
    write_tar(root / "patch_images.tar", {f"patch_images/train/{name}": white})
    out = tmp_path / "out"
    expect = {"train": 18, "val": 5, "test": 3}
    commands.data_pack(root, out=out, size=8, expect=expect)
    names = (out / "train.names.txt").read_text().splitlines()
    (place,) = (i for i, line in enumerate(names) if line.endswith(name))
    pixels = np.load(out / "train.npy")
    assert (pixels[place] == 255).all()
    assert not (pixels == 255).all((1, 2, 3))[np.arange(len(names)) != place].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_set_says_its_labels_and_titles(kind: str, tmp_path: Path) -> None:
    root, out = write_official(tmp_path / "archives", kind), tmp_path / "out"
    words = ["data", "pack", str(root), "--out", str(out), "--size", "8"]
    assert main([*words, "--expect", "train=18", "val=5", "test=3"]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == sorted(WNIDS)
    assert manifest["titles"] == TITLES
    assert manifest["counts"] == {"train": 18, "val": 5, "test": 3}
    for split, expected in wanted(kind).items():
        names = [Path(x).name for x in (out / f"{split}.names.txt").read_text().splitlines()]
        labels = np.load(out / f"{split}.labels.npy").tolist()
        assert dict(zip(names, labels, strict=True)) == expected


def test_val_and_test_archives_may_be_missing(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    for split in ("val", "test"):
        (root / NAMES["ILSVRC2012"][split]).unlink()
    assert set(arrange(root).parts) == {"train"}


def test_without_ground_truth_the_test_of_2010_has_no_labels(tmp_path: Path) -> None:
    root = write_official(tmp_path, "ILSVRC2010")
    (root / "ILSVRC2010_test_ground_truth.txt").unlink()
    assert set(labels_by_name(arrange(root), "test").values()) == {-1}


def test_titles_go_where_the_weights_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """n01440764 says nothing to most people."""
    without_report(monkeypatch)
    root, out = write_official(tmp_path / "archives"), tmp_path / "packed"
    commands.data_pack(root, out=out, size=40, expect={"train": 18, "val": 5})
    fields: dict[str, Any] = {"size": 40, "crop": 32, "steps": 1, "batch_size": 8}
    fields |= {"model": "cuda-convnet-18", "dropout": None, "precision": "fp32"}
    commands.train("photos", data=out, run=tmp_path / "run", **fields)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(content("a.jpg"))
    (one,) = commands.classify(tmp_path / "run", [photo])["results"]
    assert {entry["class"]: entry["title"] for entry in one["top"]} == TITLES
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "run"), str(photo)]) == 0
    said = capsys.readouterr().out
    assert all(f"{wnid} {title}"[:20] in said for wnid, title in TITLES.items())


# Counts


def test_official_counts() -> None:
    assert OFFICIAL == {
        "ILSVRC-2012": {"train": 1_281_167, "val": 50_000, "test": 100_000},
        "ILSVRC-2010": {"train": 1_261_406, "val": 50_000, "test": 150_000},
    }


@pytest.mark.parametrize(
    ("kind", "number"), [("ILSVRC2012", "1,281,167"), ("ILSVRC2010", "1,261,406")]
)
def test_official_counts_are_demanded(
    kind: str, number: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = write_official(tmp_path / "archives", kind), tmp_path / "out"
    words = ["data", "pack", str(root), "--out", str(out), "--size", "8"]
    assert main(words) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert f"train has 18 images and {number} are expected" in line
    assert "--expect train=18" in line
    assert main([*words, "--expect", "train=18", "val=6"]) == 2
    assert "val has 5 images and 6 are expected" in capfd.readouterr().err
    assert not out.exists()
