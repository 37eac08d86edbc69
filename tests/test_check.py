"""What `alexnet data check` says of whole sets, whatever contains them."""

import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alexnet
from alexnet.cli import main
from alexnet.errors import DataError
from archives import (
    CMYK,
    FLAT,
    JPEG,
    PICTURE,
    encode,
    jpeg,
    picture,
    tar_bytes,
    turned,
    write_files,
    write_tar,
    write_zip,
)

# Listings leave their files to the garbage collector: see test_archives.test_files_are_closed.

# whole sets


def small_set() -> dict[str, bytes]:
    """Every kind of finding, by path. The expected report is in `EXPECTED`."""
    files = {f"train/cat/{i}.jpg": jpeg(i, 12, 10) for i in range(11)}
    files |= {f"train/dog/{i}.jpg": jpeg(20 + i, 12, 10) for i in range(3)}
    files |= {f"val/cat/{i}.jpg": jpeg(40 + i, 12, 10) for i in range(2)}
    files["val/cat/again.jpg"] = files["train/cat/4.jpg"]
    files["val/dog/1.jpg"] = jpeg(50, 12, 10)
    files["train/dog/copy.jpg"] = files["train/dog/2.jpg"]
    files["train/dog/grey.png"] = encode(picture(60, 12, 10).convert("L"), "PNG")
    files["train/cat/broken.jpg"] = jpeg(61, 12, 10)[:200]
    files["train/bird/nothing.jpg"] = b""
    files["val/fish/1.png"] = encode(picture(62, 12, 10), "PNG")
    files["readme.txt"] = b"not looked at"
    return files


EXPECTED = {
    "images": 23,
    "ok": 20,
    "others": {".txt": 1},
    "two_classes": [],
    "near_copies": [],
    "near_across": [],
    "near_two_classes": [],
    "repairable": [{"path": "train/dog/grey.png", "reason": "grey"}],
    "refused": ["train/bird/nothing.jpg", "train/cat/broken.jpg"],
    "duplicates": [["train/dog/2.jpg", "train/dog/copy.jpg"]],
    "across": [["train/cat/4.jpg", "val/cat/again.jpg"]],
    "counts": {
        "train": {"bird": 0, "cat": 11, "dog": 5},
        "val": {"cat": 3, "dog": 1, "fish": 1},
    },
    "classes": {"empty": ["bird"], "tiny": ["dog"], "one_split": ["bird", "fish"]},
}


def findings(path: Path, **options: Any) -> dict[str, Any]:
    """A report with paths inside the container, comparable with EXPECTED."""
    text = json.dumps(alexnet.data_check(path, **options))
    report: dict[str, Any] = json.loads(text.replace(f"{path}/", ""))
    for name in ("note", "images_per_s", "wall_s"):
        del report[name]
    report["refused"] = [entry["path"] for entry in report["refused"]]
    return report


@pytest.mark.parametrize("container", ["folder", "tar", "zip"])
def test_the_same_findings_whatever_the_container(container: str, tmp_path: Path) -> None:
    write = {"folder": write_files, "tar": write_tar, "zip": write_zip}[container]
    path = write(tmp_path / f"set.{container}", small_set())
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    assert findings(path) == EXPECTED
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_change_nothing(workers: int, tmp_path: Path) -> None:
    assert findings(write_files(tmp_path / "set", small_set()), workers=workers) == EXPECTED


def by_class(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    tables: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        folder, _, file = name.rpartition("/")
        tables.setdefault(folder, {})[file] = data
    return tables


FLAT_EXPECTED = {
    "images": 9,
    "ok": 7,
    "others": {},
    "two_classes": [],
    "near_copies": [],
    "near_across": [],
    "near_two_classes": [],
    "repairable": [{"path": "cat/odd.jpg", "reason": "CMYK"}],
    "refused": ["horse/bad.jpg"],
    "duplicates": [["horse/0.jpg", "horse/copy.jpg"]],
    "across": [],
    "counts": {"all": {"cat": 4, "horse": 4}},
    "classes": {"empty": [], "tiny": ["cat", "horse"], "one_split": []},
}


@pytest.mark.parametrize("container", ["folder", "tar", "zip", "tar of tars", "folder of tars"])
def test_classes_without_splits(container: str, tmp_path: Path) -> None:
    path = tmp_path / "set"
    if container == "tar of tars":
        tars = {f"{c}.tar": tar_bytes(files) for c, files in by_class(FLAT).items()}
        write_tar(path, tars)
    elif container == "folder of tars":
        path.mkdir()
        write_tar(path / "a.tar", {n: d for n, d in FLAT.items() if n[0] == "c"})
        write_zip(path / "b.zip", {n: d for n, d in FLAT.items() if n[0] == "h"})
    else:
        {"folder": write_files, "tar": write_tar, "zip": write_zip}[container](path, FLAT)
    report = findings(path)
    if container == "folder of tars":
        report = json.loads(re.sub(r"(a\.tar|b\.zip)/", "", json.dumps(report)))
    assert report == FLAT_EXPECTED


def test_copies_of_train_in_val_of_another_archive_are_across(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}.tar", {f"{split}/cat/{split}.jpg": JPEG})
    found = alexnet.data_check(tmp_path)
    expected = [f"{tmp_path}/train.tar/train/cat/train.jpg", f"{tmp_path}/val.tar/val/cat/val.jpg"]
    assert (found.across, found.duplicates) == ([expected], [])


def test_copies_across_the_archives_of_ilsvrc(tmp_path: Path) -> None:
    train = {"n01.tar": tar_bytes({"n01_1.JPEG": JPEG}), "n02.tar": tar_bytes({"n02_1.JPEG": CMYK})}
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", train)
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": JPEG})
    found = alexnet.data_check(tmp_path)
    assert (len(found.across), len(found.duplicates)) == (1, 0)
    assert set(found.counts) == {"train", "val"}


def test_tars_in_folders_of_a_tar_keep_their_split(tmp_path: Path) -> None:
    tars = {f"{s}/cat.tar": tar_bytes({"1.jpg": jpeg(i)}) for i, s in enumerate(("train", "val"))}
    assert alexnet.data_check(write_tar(tmp_path / "set.tar", tars)).counts == {
        "train": {"cat": 1},
        "val": {"cat": 1},
    }


def test_a_class_folder_without_files_is_empty(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/cat/1.jpg": jpeg(1), "train/dog/1.jpg": jpeg(2)})
    (tmp_path / "train/bird").mkdir()
    assert alexnet.data_check(tmp_path).classes["empty"] == ["bird"]


@pytest.mark.parametrize("kind", ["tar", "zip", "tar of tars"])
def test_a_class_without_files_is_empty_in_an_archive_too(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"set.{kind[:3]}"
    if kind == "tar of tars":
        write_tar(path, {"cat.tar": tar_bytes(FLAT), "bird.tar": tar_bytes({})})
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in (".", "./cat", "./bird"):
                folder = tarfile.TarInfo(name)
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            member = tarfile.TarInfo("./cat/a.jpg")
            member.size = len(JPEG)
            archive.addfile(member, io.BytesIO(JPEG))
    else:
        write_zip(path, {"cat/": b"", "cat/a.jpg": JPEG, "bird/": b"", "__MACOSX/": b""})
    assert alexnet.data_check(path).classes["empty"] == ["bird"]


@pytest.mark.parametrize("form", ["folder", "tar", "tar of one folder"])
def test_folders_inside_a_class_are_no_classes(form: str, tmp_path: Path) -> None:
    """As in training on the tree: cats and dogs of 2020 are not one class."""
    files = {"cat/2020/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2), "dog/2020/07/3.jpg": jpeg(3)}
    if form == "tar of one folder":
        files = {f"photos/{name}": data for name, data in files.items()}
    path = tmp_path / "set"
    write_files(path, files) if form == "folder" else write_tar(path, files)
    assert alexnet.data_check(path).counts == {"all": {"cat": 2, "dog": 1}}
    alexnet.data_pack(path, out=tmp_path / "out", size=8)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["classes"] == ["cat", "dog"]
    assert np.load(tmp_path / "out/all.labels.npy").tolist() == [0, 0, 1]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": JPEG, "dog/1.jpg": jpeg(1)})
    (tmp_path / "cat/2.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "dog/2.jpg")
    found = alexnet.data_check(tmp_path)
    assert [entry.path for entry in found.refused] == [
        f"{tmp_path}/cat/2.jpg",
        f"{tmp_path}/dog/2.jpg",
    ]
    reasons = {entry.reason for entry in found.refused}
    assert reasons == {"a link to nothing, or no regular file"}
    assert found.ok == 2


def test_images_without_classes_are_not_called_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"train/cat/1.jpg": JPEG, "train/dog/1.jpg": jpeg(1), "val/1.jpg": jpeg(2)}
    main(["data", "check", str(write_files(tmp_path / "set", files))])
    said = capsys.readouterr().out
    assert "train: 2 readable images, 2 classes\n" in said
    assert "val: 1 readable images, no class folders\n" in said


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_hidden_files_are_left_out_everywhere(
    write: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    files = {"cat/1.jpg": jpeg(1), "cat/._1.jpg": b"of a Mac", "dog/.cache/2.jpg": b"thumbnail"}
    assert findings(write_files(tmp_path / "set", files))["refused"] == []
    assert findings(write(tmp_path / "archive", files))["refused"] == []


def test_images_beside_an_archive_are_checked_too(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": jpeg(1), "cat/2.jpg": b"text"})
    write_tar(tmp_path / "more.tar", {"dog/1.jpg": jpeg(2)})
    assert alexnet.data_check(tmp_path).images == 3


def test_names_with_a_dot_in_front(tmp_path: Path) -> None:
    """As `tar -C SET -cf x.tar .` writes them."""
    dotted = {f"./{name}": data for name, data in small_set().items()}
    report = findings(write_tar(tmp_path / "set.tar", dotted))
    assert report["counts"] == EXPECTED["counts"]
    assert report["classes"] == EXPECTED["classes"]


def test_one_image_under_two_classes(tmp_path: Path) -> None:
    """Worse than a copy: one of the two labels is wrong."""
    files = {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG, "dog/2.jpg": b""}
    result = alexnet.data_check(write_files(tmp_path / "tree", files))
    assert [[Path(p).parent.name for p in paths] for paths in result.two_classes] == [
        ["cat", "dog"]
    ]
    assert result.duplicates == result.two_classes


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file or folder"):
        alexnet.data_check(tmp_path / "none")
    with pytest.raises(DataError, match="holds no image"):
        alexnet.data_check(write_files(tmp_path / "texts", {"a.txt": b"text"}))
    with pytest.raises(DataError, match="no folder, tar or zip"):
        alexnet.data_check(write_files(tmp_path, {"a.txt": b"text"}) / "a.txt")


# files known to be odd


# TensorFlow's list for ILSVRC-2012, and one builder's for ILSVRC-2010: written once more.
ODD_OF_BOTH = """
    n01739381_1309 n02747177_10752 n03347037_9675 n03633091_5218 n03710637_5125 n04033995_2932
    n04596742_4225
"""
ODD_OF_2012 = """
    n02105855_2933 n02077923_14822 n02447366_23489 n02492035_15739 n03018349_4028 n03062245_4620
    n03467068_12171 n03529860_11437 n03544143_17228 n03961711_5286 n04258138_17003 n04264628_27969
    n04336792_7448 n04371774_5854 n07583066_647 n13037406_4650
"""
ODD_OF_2010 = """
    n02487347_1956 n01669191_10054 n02882647_18811 ILSVRC2010_val_00014712 ILSVRC2010_val_00040086
    ILSVRC2010_val_00041418 ILSVRC2010_test_00099846 ILSVRC2010_test_00149181 n02872752_3721
    n03109150_15092 n03329302_553 n03359436_9884 n04453156_5048 n04517823_2387
"""


def test_known_odd_files_are_named_as_known(tmp_path: Path) -> None:
    """Those whose oddity is found, by their names, with who says so."""
    of_2012 = "known of ILSVRC-2012 (TensorFlow's list)"
    of_2010 = "known of ILSVRC-2010 (one builder's list, not cross-checked)"
    expected = {"n02105855_1": "PNG named .JPEG", "n02105855_2934": "PNG named .JPEG"}
    for names, known in (
        (ODD_OF_BOTH, f"{of_2012} and {of_2010.removeprefix('known of ')}"),
        (ODD_OF_2012, of_2012),
        (ODD_OF_2010, of_2010),
    ):
        expected |= dict.fromkeys(names.split(), f"PNG named .JPEG; {known}")
    png = encode(PICTURE, "PNG")
    report = alexnet.data_check(
        write_files(tmp_path, {f"n02105855/{name}.JPEG": png for name in expected})
    )
    reasons = {Path(entry.path).stem: entry.reason for entry in report.repairable}
    assert reasons == expected


# the command


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_says_all_and_exits_with_what_it_found(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_files(tmp_path / "set", small_set())
    flags = ["--json"] if as_json else []
    assert main(["data", "check", str(path), *flags]) == 1
    out = capsys.readouterr().out
    if as_json:
        (line,) = out.splitlines()
        result = json.loads(line)
        assert (result["ok"], len(result["repairable"]), len(result["refused"])) == (20, 1, 2)
        assert result["refused"][0] == {
            "path": f"{path}/train/bird/nothing.jpg",
            "reason": "empty",
        }
    else:
        assert f"{path}/train/dog/grey.png: grey" in out
        assert "20 fine, 1 repairable, 2 refused, 2 groups of duplicates" in out
    files = {f"{c}/{i}.jpg": jpeg(i * 7 + c, 9, 9) for c in range(2) for i in range(10)}
    good = write_files(tmp_path / "good", files)
    assert main(["data", "check", str(good), *flags]) == 0
    assert main(["data", "check", str(tmp_path / "none"), *flags]) == 2


def test_repairs_alone_are_no_failure(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/1.jpg": CMYK, "b/1.jpg": turned(6)})
    assert main(["data", "check", str(tmp_path)]) == 0


@pytest.mark.parametrize("flags", [["--max-pixels", "0"], ["--workers", "-1"], ["--orient", "x"]])
def test_options_that_cannot_be(flags: list[str], tmp_path: Path) -> None:
    assert main(["data", "check", str(write_files(tmp_path, {"a/1.jpg": JPEG})), *flags]) == 2


def test_options_reach_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path, {"a/1.jpg": turned(6), "b/1.jpg": jpeg(3, 41, 30)})
    status = main(["data", "check", str(tmp_path), "--json", "--orient", "apply", *LIMIT])
    result = json.loads(capsys.readouterr().out)
    assert status == 1
    assert result["repairable"][0]["reason"] == "EXIF orientation 6 applied"
    assert result["refused"][0]["reason"] == "41 x 30 pixels, the limit is 1,200 (--max-pixels)"


LIMIT = ["--max-pixels", "1200"]
