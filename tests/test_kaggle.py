"""ILSVRC as Kaggle has it: folders or an archive, with tables beside or inside."""

import json
from pathlib import Path

import pytest

import alexnet
from alexnet.errors import DataError
from archives import TITLES, WNIDS, write_files, write_tar, write_zip
from official import (
    TEST_TRUTH,
    TRUTH,
    content,
    labels_by_name,
    pack_official,
    train_files,
    wanted,
)


def kaggle_files() -> dict[str, bytes]:
    base = "ILSVRC/Data/CLS-LOC"
    files = {
        f"{base}/train/{wnid}/{name}": content(name)
        for wnid, names in train_files().items()
        for name in names
    }
    for split, count in (("val", len(TRUTH)), ("test", len(TEST_TRUTH))):
        for i in range(1, count + 1):
            name = f"ILSVRC2012_{split}_{i:08d}.JPEG"
            files[f"{base}/{split}/{name}"] = content(name)
    files["ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"] = b"<xml/>"
    return files


def write_tables(root: Path) -> None:
    """Beside ILSVRC/. The rows of Kaggle's solution are in no order."""
    titles = "".join(f"{wnid} {TITLES[wnid]}\n" for wnid in sorted(WNIDS))
    (root / "LOC_synset_mapping.txt").write_text(titles)
    rows = [
        f"ILSVRC2012_val_{i:08d},{WNIDS[x - 1]} 1 2 3 4 {WNIDS[0]} 5 6 7 8 \n"
        for i, x in enumerate(TRUTH, 1)
    ]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows[::-1]))


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_kaggles_layout(form: str, tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    root.mkdir()
    write_tables(root)
    if form == "folder":
        path = write_files(root, kaggle_files())
    else:
        path = {"zip": write_zip, "tar": write_tar}[form](root / f"c.{form}", kaggle_files())
    out = pack_official(path, tmp_path / "out")
    said = json.loads((out / "manifest.json").read_text())
    assert (said["kind"], said["classes"]) == ("ILSVRC-2012", sorted(WNIDS))
    assert said["titles"] == TITLES
    assert {s: labels_by_name(out, s) for s in said["counts"]} == wanted("ILSVRC2012")


def test_kaggles_layout_packed_needs_counts_too(tmp_path: Path) -> None:
    write_tables(write_files(tmp_path / "kaggle", kaggle_files()))
    with pytest.raises(DataError, match="1,281,167 are expected"):
        alexnet.data_pack(tmp_path / "kaggle", out=tmp_path / "out", size=8)
    expect = {"train": 18, "val": 5, "test": 3}
    result = alexnet.data_pack(tmp_path / "kaggle", out=tmp_path / "out", size=8, expect=expect)
    assert result.counts == expect


def test_kaggles_val_without_its_table(tmp_path: Path) -> None:
    root = write_files(tmp_path / "kaggle", kaggle_files())
    write_tables(root)
    (root / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"has no label: put LOC_val_solution\.csv beside"):
        pack_official(root, tmp_path / "out")


@pytest.mark.parametrize("table", ["a,b\n1,2\n", "ImageId,PredictionString\nILSVRC2012_val_1\n"])
def test_kaggles_table_is_another(table: str, tmp_path: Path) -> None:
    root = write_files(tmp_path / "kaggle", kaggle_files())
    write_tables(root)
    (root / "LOC_val_solution.csv").write_text(table)
    with pytest.raises(DataError, match="LOC_val_solution"):
        pack_official(root, tmp_path / "out")


def test_kaggles_own_zip_holds_its_tables(tmp_path: Path) -> None:
    write_tables(tmp_path)
    names = ("LOC_val_solution.csv", "LOC_synset_mapping.txt")
    tables = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    path = tmp_path / "imagenet-object-localization-challenge.zip"
    write_zip(path, kaggle_files() | tables)
    assert (
        labels_by_name(pack_official(path, tmp_path / "out"), "val") == wanted("ILSVRC2012")["val"]
    )
