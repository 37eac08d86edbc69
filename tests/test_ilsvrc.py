"""ILSVRC's own archives: labels by name, corrected images, titles, and the official counts."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from archives import TITLES, WNIDS, encode, jpeg, write_tar
from conftest import without_pictures
from official import (
    INDEX,
    KINDS,
    NAMES,
    content,
    labels_by_name,
    pack_official,
    wanted,
    write_official,
)


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def digest_of_all(out: Path, replaced: dict[str, bytes]) -> str:
    """The manifest's digest of a source, worked out from the names of its files alone."""
    names = [
        Path(line).name
        for split in ("train", "val", "test")
        for line in (out / f"{split}.names.txt").read_text().splitlines()
    ]
    digests = (hashlib.sha256(replaced.get(name) or content(name)).digest() for name in names)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def test_corrected_images_of_2010_replace_the_broken_ones(tmp_path: Path) -> None:
    root = write_official(tmp_path / "archives", "ILSVRC2010")
    white = encode(Image.new("RGB", (9, 9), "white"))
    train, val = f"{WNIDS[1]}_8.JPEG", "ILSVRC2010_val_00000002.JPEG"
    patches = {f"patch_images/train/{train}": white, f"patch_images/val/{val}": jpeg(778)}
    patches["patch_images/train/n09999999_1.JPEG"] = jpeg(779)  # of no image here
    patches["patch_images/readme.txt"] = b"corrected"
    write_tar(root / "patch_images.tar", patches)
    out = pack_official(root, tmp_path / "out")
    assert {s: labels_by_name(out, s) for s in manifest(out)["counts"]} == wanted("ILSVRC2010")
    assert manifest(out)["source"]["sha256"] == digest_of_all(out, {train: white, val: jpeg(778)})
    names = (out / "train.names.txt").read_text().splitlines()
    (place,) = (i for i, line in enumerate(names) if line.endswith(train))
    pixels = np.load(out / "train.npy")
    assert (pixels[place] == 255).all()
    assert not (pixels == 255).all((1, 2, 3))[np.arange(len(names)) != place].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_set_says_its_labels_and_titles(kind: str, tmp_path: Path) -> None:
    """Labels are joined by name, and the bytes are those of the archives."""
    assert [INDEX[wnid] + 1 for wnid in WNIDS] != [1, 2, 3, 4]  # or the test would show nothing
    root, out = write_official(tmp_path / "archives", kind), tmp_path / "out"
    words = ["data", "pack", str(root), "--out", str(out), "--size", "8"]
    assert main([*words, "--expect", "train=18", "val=5", "test=3"]) == 0
    said = manifest(out)
    assert said["kind"] == kind.replace("ILSVRC", "ILSVRC-")
    assert said["classes"] == sorted(WNIDS)
    assert said["titles"] == TITLES
    assert said["counts"] == {"train": 18, "val": 5, "test": 3}
    assert {split: labels_by_name(out, split) for split in said["counts"]} == wanted(kind)
    assert said["source"]["sha256"] == digest_of_all(out, {})


def test_val_and_test_archives_may_be_missing(tmp_path: Path) -> None:
    root = write_official(tmp_path / "archives")
    for split in ("val", "test"):
        (root / NAMES["ILSVRC2012"][split]).unlink()
    assert manifest(pack_official(root, tmp_path / "out"))["counts"] == {"train": 18}


def test_without_ground_truth_the_test_of_2010_has_no_labels(tmp_path: Path) -> None:
    root = write_official(tmp_path / "archives", "ILSVRC2010")
    (root / "ILSVRC2010_test_ground_truth.txt").unlink()
    out = pack_official(root, tmp_path / "out")
    assert set(labels_by_name(out, "test").values()) == {-1}


def test_titles_go_where_the_weights_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """n01440764 says nothing to most people."""
    without_pictures(monkeypatch)
    root, out = write_official(tmp_path / "archives"), tmp_path / "packed"
    alexnet.data_pack(root, out=out, size=40, expect={"train": 18, "val": 5})
    fields: dict[str, Any] = {"size": 40, "crop": 32, "steps": 1, "batch_size": 8}
    fields |= {"model": "cuda-convnet-18", "dropout": None, "precision": "fp32"}
    fields |= {"doctor": "off"}
    alexnet.train("photos", data=out, run=tmp_path / "run", **fields)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(content("a.jpg"))
    (one,) = alexnet.classify(tmp_path / "run", [photo]).results
    assert {entry.class_name: entry.title for entry in one.top} == TITLES
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "run"), str(photo)]) == 0
    said = capsys.readouterr().out
    assert all(f"{wnid} {title}"[:20] in said for wnid, title in TITLES.items())


# Counts


def test_official_counts(tmp_path: Path) -> None:
    """Those that archives are held against, as the claim on them says."""
    finding = alexnet.claim("ilsvrc-counts", out=tmp_path).finding
    of_2010, of_2012 = finding.split("; ")
    assert of_2010.endswith(": 1,261,406 train, 50,000 val, 150,000 test")
    assert of_2012 == "ILSVRC-2012: 1,281,167 train, 50,000 val, 100,000 test"


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
