"""ILSVRC's own archives, small ones in the official shapes: labels by name, and what is refused."""

import gzip
import io
import json
import multiprocessing
import random
import re
import shutil
import sys
import tarfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet import commands
from alexnet.cli import main
from alexnet.data import devkit
from alexnet.data.arrange import arrange
from alexnet.data.ilsvrc import OFFICIAL
from alexnet.data.labelled import Arranged
from alexnet.errors import DataError, Unavailable
from archives import (
    TITLES,
    WNIDS,
    encode,
    jpeg,
    pack_and_die,
    picture,
    tar_bytes,
    train_tar,
    write_files,
    write_kit,
    write_tar,
    write_zip,
)
from conftest import without_report

# Listings leave their files to the garbage collector: see test_archives.test_files_are_closed.

COUNTS = {wnid: 3 + i for i, wnid in enumerate(WNIDS)}
TRUTH = [3, 1, 4, 1, 2]  # IDs of the validation images
TEST_TRUTH = [2, 2, 4]
INDEX = {wnid: sorted(WNIDS).index(wnid) for wnid in WNIDS}
KINDS = ["ILSVRC2012", "ILSVRC2010"]
NAMES = {
    "ILSVRC2012": {
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
        "test": "ILSVRC2012_img_test_v10102019.tar",
    },
    "ILSVRC2010": {
        "train": "ILSVRC2010_images_train.tar",
        "val": "ILSVRC2010_images_val.tar",
        "test": "ILSVRC2010_images_test.tar",
    },
}
KIT = {
    "ILSVRC2012": "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC2010": "ILSVRC2010_devkit-1.0.tar.gz",
}


def content(name: str) -> bytes:
    """The bytes of one image, another for every name."""
    return jpeg(int.from_bytes(name.encode()[-9:]) % 2**31, 20, 16)


def train_files(counts: dict[str, int] = COUNTS) -> dict[str, dict[str, bytes]]:
    """By WNID, as ILSVRC's: the numbers in the names have gaps and are not in order of length."""
    return {
        wnid: {f"{wnid}_{7 * i**3 + 1}.JPEG": b"" for i in range(n)} for wnid, n in counts.items()
    }


def numbered(kind: str, split: str, count: int) -> dict[str, bytes]:
    folder = {"ILSVRC2012": "" if split == "val" else "test/", "ILSVRC2010": f"{split}/"}[kind]
    names = (f"{folder}{kind}_{split}_{i:08d}.JPEG" for i in range(1, count + 1))
    return {name: content(Path(name).name) for name in names}


def write_official(root: Path, kind: str = "ILSVRC2012", **changes: Any) -> Path:
    """A folder of archives in the official shapes. changes: what write_kit is told otherwise."""
    root.mkdir(parents=True, exist_ok=True)
    classes = {w: {n: content(n) for n in files} for w, files in train_files().items()}
    (root / NAMES[kind]["train"]).write_bytes(train_tar(classes))
    write_tar(root / NAMES[kind]["val"], numbered(kind, "val", len(TRUTH)))
    write_tar(root / NAMES[kind]["test"], numbered(kind, "test", len(TEST_TRUTH)))
    if kind == "ILSVRC2010":
        truth = "".join(f"{i}\n" for i in TEST_TRUTH)
        (root / "ILSVRC2010_test_ground_truth.txt").write_text(truth)
    write_kit(root, kind, **{"counts": COUNTS, "truth": TRUTH} | changes)
    return root


def labels_by_name(found: Arranged, split: str) -> dict[str, int]:
    files = found.parts[split]
    return {Path(files.name(i)).name: int(files.labels[i]) for i in range(len(files))}


def wanted(kind: str) -> dict[str, dict[str, int]]:
    """Labels by file name, worked out from the tables above alone."""
    table = {i: INDEX[wnid] for i, wnid in enumerate(WNIDS, 1)}
    train = {n: INDEX[wnid] for wnid, files in train_files().items() for n in files}
    val = {f"{kind}_val_{i:08d}.JPEG": table[x] for i, x in enumerate(TRUTH, 1)}
    known = kind == "ILSVRC2010"
    test = {
        f"{kind}_test_{i:08d}.JPEG": table[x] if known else -1 for i, x in enumerate(TEST_TRUTH, 1)
    }
    return {"train": train, "val": val, "test": test}


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


# counts


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


# what is wrong, in one line


def refused(root: Path, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`data pack` says it in one line and writes nothing."""
    out = root.parent / "refused"
    words = ["data", "pack", str(root), "--out", str(out), "--size", "8"]
    assert main([*words, "--expect", "train=18"]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert re.search(why, line), line
    assert not out.exists()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_official(tmp_path / "archives")


CAPFD = pytest.CaptureFixture[str]


def test_an_image_of_a_class_is_missing(root: Path, capfd: CAPFD) -> None:
    write_kit(root, "ILSVRC2012", COUNTS | {WNIDS[2]: 6}, TRUTH)
    refused(root, rf"5 images of {WNIDS[2]} and the development kit says 6", capfd)


def test_a_class_is_missing(root: Path, capfd: CAPFD) -> None:
    classes = {w: {n: content(n) for n in x} for w, x in train_files().items() if w != WNIDS[0]}
    (root / NAMES["ILSVRC2012"]["train"]).write_bytes(train_tar(classes))
    refused(root, rf"0 images of {WNIDS[0]} and the development kit says 3", capfd)


def test_the_kit_is_missing(root: Path, capfd: CAPFD) -> None:
    (root / KIT["ILSVRC2012"]).unlink()
    refused(root, r"devkit_t12\.tar\.gz is missing", capfd)


def test_the_train_archive_is_missing(root: Path, capfd: CAPFD) -> None:
    (root / NAMES["ILSVRC2012"]["train"]).unlink()
    refused(root, r"ILSVRC2012_img_train\.tar is missing", capfd)


def test_the_kit_is_of_another_year(root: Path, capfd: CAPFD) -> None:
    write_kit(root, "ILSVRC2010", COUNTS, TRUTH, name=KIT["ILSVRC2012"])
    refused(root, "this is not the kit of ILSVRC-2012", capfd)


def test_the_kit_has_other_classes(root: Path, capfd: CAPFD) -> None:
    wnids = ("n03000001", "n01000002", "n02000004", "n05555555")
    write_kit(root, "ILSVRC2012", dict.fromkeys(wnids, 0), TRUTH, wnids)
    refused(root, "is of no class of the kit", capfd)


@pytest.mark.parametrize(
    "data", [b"", b"no archive", gzip.compress(b"no tar", mtime=0), b"\x1f\x8b\x08"]
)
def test_the_kit_is_damaged(data: bytes, root: Path, capfd: CAPFD) -> None:
    (root / KIT["ILSVRC2012"]).write_bytes(data)
    refused(root, r"devkit_t12\.tar\.gz", capfd)


def test_the_kit_was_cut(root: Path, capfd: CAPFD) -> None:
    kit = root / KIT["ILSVRC2012"]
    kit.write_bytes(kit.read_bytes()[: kit.stat().st_size // 2])
    refused(root, r"devkit_t12\.tar\.gz", capfd)


@pytest.mark.parametrize("meta", [b"", b"text", b"MATLAB 5.0 MAT-file".ljust(128, b"\0")])
def test_meta_mat_is_damaged(meta: bytes, root: Path, capfd: CAPFD) -> None:
    top = "ILSVRC2012_devkit_t12/data"
    files = {f"{top}/meta.mat": meta, f"{top}/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n"}
    (root / KIT["ILSVRC2012"]).write_bytes(gzip.compress(tar_bytes(files)))
    refused(root, r"meta\.mat", capfd)


def test_the_kit_has_a_class_twice(root: Path, capfd: CAPFD) -> None:
    twice = (*WNIDS[:3], WNIDS[0])
    write_kit(root, "ILSVRC2012", COUNTS, TRUTH, twice)
    refused(root, "wrong kit", capfd)


@pytest.mark.parametrize("truth", [[3, 1, 5, 1, 2], [3, 1, 0, 1, 2], [-1], []])
def test_ground_truth_with_impossible_ids(truth: list[int], root: Path, capfd: CAPFD) -> None:
    write_kit(root, "ILSVRC2012", COUNTS, truth)
    refused(root, "expected IDs from 1 to 4", capfd)


def test_ground_truth_of_words(root: Path, capfd: CAPFD) -> None:
    write_kit(root, "ILSVRC2012", COUNTS, [1, 2, "n01000002", 1, 1])
    refused(root, "IDs|ground truth", capfd)


def test_test_ground_truth_of_words(tmp_path: Path, capfd: CAPFD) -> None:
    root = write_official(tmp_path / "archives", "ILSVRC2010")
    (root / "ILSVRC2010_test_ground_truth.txt").write_text("1\nn01000002\n1\n")
    refused(root, r"ILSVRC2010_test_ground_truth\.txt", capfd)


def test_an_image_beyond_the_ground_truth(root: Path, capfd: CAPFD) -> None:
    write_kit(root, "ILSVRC2012", COUNTS, TRUTH[:-1])
    refused(root, r"val_00000005\.JPEG is number 5 and the ground truth has 4 lines", capfd)


def test_an_image_numbered_0(root: Path, capfd: CAPFD) -> None:
    write_tar(root / NAMES["ILSVRC2012"]["val"], {"ILSVRC2012_val_00000000.JPEG": jpeg(1)})
    refused(root, "number 0 and the ground truth", capfd)


def test_val_is_not_the_val_archive(root: Path, capfd: CAPFD) -> None:
    val = root / NAMES["ILSVRC2012"]["val"]
    val.write_bytes((root / NAMES["ILSVRC2012"]["train"]).read_bytes())
    refused(root, "is not called ILSVRC2012_val_00000001.JPEG", capfd)
    write_tar(val, {"readme.txt": b"text"})
    refused(root, r"holds no \.JPEG", capfd)


@pytest.mark.parametrize("name", ["ILSVRC2010_val", "ILSVRC2012_test"])
def test_val_of_another_year_or_split(name: str, root: Path, capfd: CAPFD) -> None:
    """As many images with the same numbers: without its name every label would be wrong."""
    files = {f"{name}_{i:08d}.JPEG": jpeg(i) for i in range(1, len(TRUTH) + 1)}
    write_tar(root / NAMES["ILSVRC2012"]["val"], files)
    refused(root, rf"{name}_00000001\.JPEG is not called ILSVRC2012_val_00000001\.JPEG", capfd)


def test_a_number_that_occurs_twice(root: Path, capfd: CAPFD) -> None:
    name = "ILSVRC2012_val_00000001.JPEG"
    write_tar(root / NAMES["ILSVRC2012"]["val"], {name: jpeg(1), f"again/{name}": jpeg(2)})
    refused(root, "number 1 occurs twice", capfd)


def test_a_kit_that_unpacks_without_end(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: CAPFD
) -> None:
    """In a file beside those that are wanted, in a header, and in a variable of meta.mat."""
    from scipy.io import savemat

    monkeypatch.setattr(devkit, "_KIT_LIMIT", 1 << 20)
    much = bytes(32 << 20)
    kit = root / KIT["ILSVRC2012"]
    whole = gzip.decompress(kit.read_bytes())
    long = tarfile.TarInfo("x")
    long.size, long.type = len(much), tarfile.GNUTYPE_LONGNAME
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.zeros(4 << 20)}, do_compression=True)
    table = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    bombs = {
        "a file": tar_bytes({"bomb": much}) + whole,
        "a header": long.tobuf() + much + whole,
        "a variable": tar_bytes(
            {"ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(), table: b"1\n"}
        ),
    }
    for name, bomb in bombs.items():
        kit.write_bytes(gzip.compress(bomb, 1))
        tracemalloc.start()
        refused(root, "unpacks to more than 1,048,576 bytes|cannot be read|is not the kit", capfd)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20, name


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


def test_train_is_not_the_train_archive(root: Path, capfd: CAPFD) -> None:
    val = root / NAMES["ILSVRC2012"]["val"]
    (root / NAMES["ILSVRC2012"]["train"]).write_bytes(val.read_bytes())
    refused(root, "is of no class of the kit: wrong archive", capfd)


def test_an_archive_that_was_cut(root: Path, capfd: CAPFD) -> None:
    train = root / NAMES["ILSVRC2012"]["train"]
    train.write_bytes(train.read_bytes()[: train.stat().st_size // 2])
    refused(root, r"cut short|unexpected end", capfd)


def test_without_scipy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(Unavailable, match=r"pip install 'alexnet\[imagenet\]'"):
        arrange(root)


# Kaggle's layout


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
    write_tables(tmp_path)
    if form == "folder":
        path = write_files(tmp_path, kaggle_files())
    else:
        path = {"zip": write_zip, "tar": write_tar}[form](tmp_path / f"c.{form}", kaggle_files())
    found = arrange(path)
    assert (found.kind, found.classes) == ("ILSVRC-2012", tuple(sorted(WNIDS)))
    assert found.titles == TITLES
    assert {s: labels_by_name(found, s) for s in found.parts} == wanted("ILSVRC2012")


def test_kaggles_layout_packed_needs_counts_too(tmp_path: Path) -> None:
    write_tables(write_files(tmp_path / "kaggle", kaggle_files()))
    with pytest.raises(DataError, match="1,281,167 are expected"):
        commands.data_pack(tmp_path / "kaggle", out=tmp_path / "out", size=8)
    expect = {"train": 18, "val": 5, "test": 3}
    result = commands.data_pack(tmp_path / "kaggle", out=tmp_path / "out", size=8, expect=expect)
    assert result["counts"] == expect


def test_kaggles_val_without_its_table(tmp_path: Path) -> None:
    write_tables(write_files(tmp_path, kaggle_files()))
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"has no label: put LOC_val_solution\.csv beside"):
        arrange(tmp_path)


@pytest.mark.parametrize("table", ["a,b\n1,2\n", "ImageId,PredictionString\nILSVRC2012_val_1\n"])
def test_kaggles_table_is_another(table: str, tmp_path: Path) -> None:
    write_tables(write_files(tmp_path, kaggle_files()))
    (tmp_path / "LOC_val_solution.csv").write_text(table)
    with pytest.raises(DataError, match="LOC_val_solution"):
        arrange(tmp_path)


def test_kaggles_own_zip_holds_its_tables(tmp_path: Path) -> None:
    write_tables(tmp_path)
    names = ("LOC_val_solution.csv", "LOC_synset_mapping.txt")
    tables = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    path = write_zip(tmp_path / "imagenet-object-localization-challenge.zip", kaggle_files())
    write_zip(path, kaggle_files() | tables)
    assert labels_by_name(arrange(path), "val") == wanted("ILSVRC2012")["val"]


# real photos


@dataclass(frozen=True)
class Real:
    """Archives in the official shapes from photos of the shared data. `order` is by ID from 1."""

    root: Path
    photos: dict[str, bytes]
    order: tuple[str, ...]
    truth: list[int]
    train: int
    planted: dict[str, list[str]]
    broken: str


def write_real(shared: Path, root: Path, count: int) -> Real:
    """So many classes of ImageNet, two or more photos each, with odd files planted."""
    photos: dict[str, bytes] = {}
    with tarfile.open(shared / "data/imagenet-samples.tar") as archive:
        for member in archive:
            if member.isreg() and member.name.endswith(".JPEG") and member.size < 250_000:
                stream = archive.extractfile(member)
                assert stream is not None
                photos[member.name.split("/")[0]] = stream.read()
    known = ("n02105855", "n02747177")  # of files that TensorFlow's list names
    step = max(len(photos) // count, 1)
    chosen = sorted({*known, *sorted(photos)[::step]} & photos.keys())[:count]
    shuffled = tuple(chosen[i] for i in np.random.default_rng(0).permutation(len(chosen)))
    classes, val = {}, {}
    truth = [int(i) for i in np.random.default_rng(1).permutation(len(chosen)) + 1]
    for wnid in chosen:
        image = Image.open(io.BytesIO(photos[wnid])).convert("RGB")
        image.thumbnail((160, 160))
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        classes[wnid] = {f"{wnid}_10.JPEG": photos[wnid], f"{wnid}_9.JPEG": encode(mirrored)}
    for number, one in enumerate(truth, 1):
        image = Image.open(io.BytesIO(photos[shuffled[one - 1]])).convert("RGB")
        val[f"ILSVRC2012_val_{number:08d}.JPEG"] = encode(image.resize((90, 70)))
    odd = picture(0, 90, 80)
    first, second = chosen[0], chosen[1]
    classes[first][f"{first}_1.JPEG"] = gzip.compress(photos[first])
    classes[second][f"{second}_1.JPEG"] = encode(odd.convert("CMYK"))
    classes[second][f"{second}_2.JPEG"] = photos[second] + b"\0" * 7
    classes[second][f"{second}_3.JPEG"] = photos[second][:-3000]
    classes[known[0]]["n02105855_2933.JPEG"] = encode(odd, "PNG")
    counts = {wnid: len(files) for wnid, files in classes.items()}
    write_kit(root, "ILSVRC2012", counts, truth, shuffled, {})
    (root / NAMES["ILSVRC2012"]["train"]).write_bytes(train_tar(classes))
    write_tar(root / NAMES["ILSVRC2012"]["val"], val)
    planted = {
        f"{first}_1.JPEG": ["gzip-compressed"],
        f"{second}_1.JPEG": ["CMYK"],
        f"{second}_2.JPEG": ["7 bytes after the end"],
        "n02105855_2933.JPEG": ["PNG named .JPEG"],
    }
    train = sum(counts.values())
    return Real(root, photos, shuffled, truth, train, planted, f"{second}_3.JPEG")


@pytest.mark.data
def test_real_photos_from_archives_to_a_classification(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 classes of ImageNet in the official shapes with odd files, packed, trained on, tested."""
    without_report(monkeypatch)
    monkeypatch.setattr(commands.testing, "_draw_test", lambda *_: [])
    real = write_real(shared, tmp_path / "archives", 40)
    chosen = sorted(real.order)
    assert len(chosen) == 40
    out, run = tmp_path / "packed", tmp_path / "run"
    words = ["data", "pack", str(real.root), "--out", str(out), "--size", "64"]
    assert main([*words, "--expect", f"train={real.train}", "val=40"]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == chosen
    assert manifest["counts"] == {"train": 84, "val": 40}
    assert [Path(x["path"]).name for x in manifest["refused"]] == [real.broken]
    repairs = {Path(x["path"]).name: x["repairs"] for x in manifest["repairs"]}
    assert real.planted.items() <= repairs.items()
    labels = np.load(out / "val.labels.npy").tolist()
    assert [chosen[label] for label in labels] == [real.order[one - 1] for one in real.truth]

    fields = {"size": 64, "crop": 32, "steps": 3, "batch_size": 16, "model": "cuda-convnet-18"}
    fields |= {"precision": "fp32", "eval_batch": 40, "dropout": None}
    commands.train("photos", data=out, run=run, **fields)
    result = commands.test(run, views=10)
    assert [row["n"] for row in result["per_class"]] == [1] * 40
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(real.photos[chosen[0]])
    (one,) = commands.classify(run, [photo], views=10)["results"]
    assert len(one["top"]) == 5
    assert {entry["class"] for entry in one["top"]} <= set(chosen)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_twenty_kills_of_a_pack_of_real_photos(encoding: str, shared: Path, tmp_path: Path) -> None:
    """All the photos in the official shapes, at 256 pixels, killed by the clock."""
    real = write_real(shared, tmp_path / "archives", 500)
    forked = multiprocessing.get_context("forkserver")
    shuffle = random.Random(7)

    def run(out: Path, seconds: float | None) -> int | None:
        words = (str(real.root), str(out), encoding, 32, 10**9, 256)
        process = forked.Process(target=pack_and_die, args=words)
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode

    began = time.monotonic()
    assert run(tmp_path / "whole", None) == 0
    whole = time.monotonic() - began
    kills, out = 0, tmp_path / "out"
    while kills < 20:
        # Mostly too short to end; a pack that ended is begun anew.
        if run(out, shuffle.uniform(0.2, 1) * whole / 4) == 0:
            shutil.rmtree(out)
        else:
            kills += 1
            assert not (out / "manifest.json").exists() or run(out, None) == 0
    assert run(out, None) == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()} - {".lock"}  # of a process
    assert {path.name for path in out.iterdir()} - {".lock"} == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
