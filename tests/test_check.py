"""What is said of every kind of image file, of whole sets, and of archives that mean harm."""

import gc
import gzip
import io
import json
import os
import random
import re
import stat
import struct
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from alexnet.cli import main
from alexnet.commands import data_check
from alexnet.data import examine as examine_module
from alexnet.data.arrange import arrange
from alexnet.data.check import check
from alexnet.data.examine import examine
from alexnet.data.listing import _Window, list_files
from alexnet.data.odd import KNOWN, known_as
from alexnet.errors import DataError
from archives import (
    encode,
    jpeg,
    picture,
    raw_png,
    tar_bytes,
    write_files,
    write_tar,
    write_zip,
)

# Listings leave their files to the garbage collector: see test_files_are_closed.

PICTURE = picture(0)
JPEG = jpeg(0)


def with_adobe(data: bytes, transform: int) -> bytes:
    """A CMYK JPEG whose Adobe marker says how its colours are coded: 0 CMYK, 2 YCCK."""
    place = data.index(b"Adobe") + 11
    return data[:place] + bytes([transform]) + data[place + 1 :]


def png16(channels: int) -> bytes:
    """A 16-bit PNG of 4 x 3 pixels, grey or RGB."""
    values = np.random.default_rng(1).integers(0, 65536, (3, 4, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return raw_png(4, 3, 16, {1: 0, 3: 2}[channels], rows)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(PICTURE, exif=exif)


GREY = PICTURE.convert("L")
PALETTE = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
RGBA = PICTURE.convert("RGBA")
CMYK = with_adobe(encode(PICTURE.convert("CMYK")), 0)
FRAMES = {"save_all": True, "append_images": [picture(1), picture(2)]}

ODD: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "plain": (JPEG, "a.JPEG", ()),
    "plain jpg": (JPEG, "a.jpg", ()),
    "plain png": (encode(PICTURE, "PNG"), "a.png", ()),
    "no suffix": (JPEG, "a", ()),
    "gzip": (gzip.compress(JPEG), "a.JPEG", ("gzip-compressed",)),
    "png named jpeg": (encode(PICTURE, "PNG"), "a.JPEG", ("PNG named .JPEG",)),
    "bmp named jpeg": (encode(PICTURE, "BMP"), "a.JPEG", ("BMP named .JPEG",)),
    "webp named jpeg": (encode(PICTURE, "WEBP"), "a.JPEG", ("WEBP named .JPEG",)),
    "gif named jpeg": (encode(PICTURE, "GIF"), "a.JPEG", ("GIF named .JPEG", "palette")),
    "jpeg named png": (JPEG, "a.png", ("JPEG named .png",)),
    "cmyk": (CMYK, "a.JPEG", ("CMYK",)),
    "ycck": (with_adobe(CMYK, 2), "a.JPEG", ("YCCK",)),
    "grey jpeg": (encode(GREY), "a.jpg", ("grey",)),
    "grey png": (encode(GREY, "PNG"), "a.png", ("grey",)),
    "grey and alpha": (encode(PICTURE.convert("LA"), "PNG"), "a.png", ("alpha",)),
    "rgba": (encode(RGBA, "PNG"), "a.png", ("alpha",)),
    "rgb with a clear colour": (
        encode(PICTURE, "PNG", transparency=(1, 2, 3)),
        "a.png",
        ("alpha",),
    ),
    "palette": (encode(PALETTE, "PNG"), "a.png", ("palette",)),
    "clear palette": (encode(PALETTE, "PNG", transparency=3), "a.png", ("palette", "alpha")),
    "16-bit grey": (png16(1), "a.png", ("16-bit",)),
    "bilevel": (encode(PICTURE.convert("1"), "PNG"), "a.png", ("black and white",)),
    "bytes after jpeg": (JPEG + b"\0" * 1234, "a.jpg", ("1,234 bytes after the end",)),
    "bytes after png": (encode(PICTURE, "PNG") + b"more", "a.png", ("4 bytes after the end",)),
    "turned": (turned(6), "a.jpg", ("EXIF orientation 6 ignored",)),
    "upright": (turned(1), "a.jpg", ()),
    "animated gif": (
        encode(PICTURE, "GIF", **FRAMES),
        "a.gif",
        ("palette", "the first of 3 frames"),
    ),
    "animated webp": (encode(PICTURE, "WEBP", **FRAMES), "a.webp", ("the first of 3 frames",)),
    "two at once": (gzip.compress(CMYK), "a.JPEG", ("gzip-compressed", "CMYK")),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_about_a_file(kind: str) -> None:
    data, name, expected = ODD[kind]
    found = examine(data, name)
    assert (found.refused, found.repairs, found.pixels) == ("", expected, None)


def test_16_bit_rgb_is_named() -> None:
    assert examine(png16(3), "a.png").repairs == ("16-bit",)


def test_12_bit_in_16_is_named() -> None:
    values = np.random.default_rng(1).integers(0, 4096, (3, 4)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    found = examine(raw_png(4, 3, 16, 0, rows), "a.png")
    assert found.repairs == ("16-bit", "only 12 of 16 bits in use: dark, the high 8 are read")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_bytes_after_the_end_that_hold_another_end(format: str) -> None:
    data = encode(PICTURE, format)
    found = examine(data + data, f"a.{format.lower()}")
    assert found.repairs == (f"{len(data):,} bytes after the end",)


@pytest.mark.parametrize(
    "kind",
    ["plain", "gzip", "png named jpeg", "bmp named jpeg", "webp named jpeg", "cmyk", "ycck"],
)
def test_pixels_are_pillows_own(kind: str) -> None:
    data, name, _ = ODD[kind]
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    with Image.open(io.BytesIO(plain)) as image:
        whole = np.asarray(image.convert("RGB"))
    found = examine(data, name, size=30).pixels
    assert found is not None
    np.testing.assert_array_equal(found, whole[:, 5:35])  # 40 x 30: the centre square


def test_transparency_is_laid_on_white() -> None:
    image = RGBA.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    rgba = np.asarray(image).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    found = examine(encode(image, "PNG"), "a.png", size=30).pixels
    assert found is not None
    assert np.abs(found - expected[:, 5:35]).max() <= 1


def test_16_bit_keeps_the_high_byte() -> None:
    values = np.random.default_rng(1).integers(0, 65536, (3, 4, 1))
    found = examine(png16(1), "a.png", size=3, channels=1).pixels
    assert found is not None
    np.testing.assert_array_equal(found, values[:, 0:3] >> 8)  # (4 - 3) / 2 rounds to 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_where_it_is_wanted(orientation: int) -> None:
    """By the table of the EXIF standard: what has to be done to show the image upright."""
    upright = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }[orientation]
    data = turned(orientation)
    with Image.open(io.BytesIO(data)) as image:
        lies = np.asarray(image)
    applied = examine(data, "a.jpg", size=30, orient="apply")
    ignored = examine(data, "a.jpg", size=30, orient="ignore")
    assert applied.pixels is not None
    assert ignored.pixels is not None
    np.testing.assert_array_equal(ignored.pixels, lies[:, 5:35])
    np.testing.assert_array_equal(applied.pixels, upright(lies[:, 5:35]))
    words = () if orientation == 1 else (f"EXIF orientation {orientation} applied",)
    assert applied.repairs == words


def test_first_frame_counts() -> None:
    data = encode(PICTURE, "WEBP", lossless=True, **FRAMES)
    found = examine(data, "a.webp", size=30).pixels
    assert found is not None
    np.testing.assert_array_equal(found, np.asarray(PICTURE)[:, 5:35])


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0XXXXXXXXXXXX", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", b"Exif\0\0"]
)
def test_broken_exif_does_not_cost_an_image(exif: bytes) -> None:
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + JPEG[2:]
    found = examine(data, "a.jpg", size=30, orient="apply")
    assert (found.refused, found.repairs) == ("", ())
    assert found.pixels is not None


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "^empty$"),
    "truncated jpeg": (jpeg(0, 200, 150)[:-2000], "truncated"),
    "jpeg without its last bytes": (JPEG[:-40], "truncated"),
    "truncated png": (encode(PICTURE, "PNG")[:-200], "truncated|cannot be decoded"),
    "text": (b"this is no image at all", "^not an image$"),
    "first bytes only": (JPEG[:4], "cannot be decoded|not an image"),
    "first bytes, then noise": (
        JPEG[:11] + random.Random(0).randbytes(500),
        "cannot be decoded|not an image",
    ),
    "zeros": (bytes(1000), "^not an image$"),
    "truncated gzip": (gzip.compress(JPEG)[:-100], "gzip-compressed and damaged"),
    "gzip of text": (gzip.compress(b"text"), "^not an image$"),
    "only two bytes of gzip": (b"\x1f\x8b", "gzip-compressed and damaged"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str) -> None:
    data, why = REFUSED[kind]
    found = examine(data, "a.jpg", size=8)
    assert re.search(why, found.refused), found.refused
    assert (found.repairs, found.pixels) == ((), None)
    assert "\n" not in found.refused


@pytest.mark.parametrize(
    ("side", "limit"), [(50_000, 64_000_000), (9_000, 64_000_000), (31, 31 * 31 - 1)]
)
def test_too_many_pixels_are_not_decoded(
    side: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(self: object) -> None:
        pytest.fail("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    found = examine(raw_png(side, side, 8, 2, bytes(1000)), "a.png", size=8, max_pixels=limit)
    more = "more than 178,956,970" if side == 50_000 else f"{side} x {side}"
    assert found.refused.startswith(f"{more} pixels, the limit is {limit:,}")
    assert found.pixels is None


def test_as_many_pixels_as_the_limit_are_fine() -> None:
    assert examine(JPEG, "a.jpg", max_pixels=1200).refused == ""
    refused = examine(JPEG, "a.jpg", max_pixels=1199).refused
    assert refused == "40 x 30 pixels, the limit is 1,199 (--max-pixels)"


def test_gzip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_module, "UNPACKED_LIMIT", 1 << 20)
    bomb = gzip.compress(bytes(64 << 20), 1)
    tracemalloc.start()
    found = examine(bomb, "a.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.refused == "unpacks to more than 1,048,576 bytes"
    assert peak < 8 << 20


def test_any_damage_is_a_word_and_not_an_exception() -> None:
    shuffle = random.Random(3)
    kinds = [data for data, _, _ in ODD.values()]
    for _ in range(400):
        data = bytearray(shuffle.choice(kinds))
        for _ in range(shuffle.randrange(1, 20)):
            data[shuffle.randrange(len(data))] = shuffle.randrange(256)
        del data[shuffle.randrange(len(data)) if shuffle.random() < 0.3 else len(data) :]
        found = examine(bytes(data), "a.jpg", size=8)
        assert bool(found.refused) == (found.pixels is None)


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
    text = json.dumps(asdict(check(path, **options)))
    report: dict[str, Any] = json.loads(text.replace(f"{path}/", ""))
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


FLAT = {f"{c}/{i}.jpg": jpeg(10 * i + len(c), 12, 10) for c in ("cat", "horse") for i in range(3)}
FLAT |= {"cat/odd.jpg": CMYK, "horse/copy.jpg": FLAT["horse/0.jpg"], "horse/bad.jpg": b"text"}
FLAT_EXPECTED = {
    "images": 9,
    "ok": 7,
    "others": {},
    "two_classes": [],
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
    found = check(tmp_path)
    expected = [f"{tmp_path}/train.tar/train/cat/train.jpg", f"{tmp_path}/val.tar/val/cat/val.jpg"]
    assert (found.across, found.duplicates) == ([expected], [])


def test_copies_across_the_archives_of_ilsvrc(tmp_path: Path) -> None:
    train = {"n01.tar": tar_bytes({"n01_1.JPEG": JPEG}), "n02.tar": tar_bytes({"n02_1.JPEG": CMYK})}
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", train)
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": JPEG})
    found = check(tmp_path)
    assert (len(found.across), len(found.duplicates)) == (1, 0)
    assert set(found.counts) == {"train", "val"}


def test_tars_in_folders_of_a_tar_keep_their_split(tmp_path: Path) -> None:
    tars = {f"{s}/cat.tar": tar_bytes({"1.jpg": jpeg(i)}) for i, s in enumerate(("train", "val"))}
    assert check(write_tar(tmp_path / "set.tar", tars)).counts == {
        "train": {"cat": 1},
        "val": {"cat": 1},
    }


def test_a_class_folder_without_files_is_empty(tmp_path: Path) -> None:
    write_files(tmp_path, {"train/cat/1.jpg": jpeg(1), "train/dog/1.jpg": jpeg(2)})
    (tmp_path / "train/bird").mkdir()
    assert check(tmp_path).classes["empty"] == ["bird"]


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
    assert check(path).classes["empty"] == ["bird"]


@pytest.mark.parametrize("form", ["folder", "tar", "tar of one folder"])
def test_folders_inside_a_class_are_no_classes(form: str, tmp_path: Path) -> None:
    """As in training on the tree: cats and dogs of 2020 are not one class."""
    files = {"cat/2020/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2), "dog/2020/07/3.jpg": jpeg(3)}
    if form == "tar of one folder":
        files = {f"photos/{name}": data for name, data in files.items()}
    path = tmp_path / "set"
    write_files(path, files) if form == "folder" else write_tar(path, files)
    assert check(path).counts == {"all": {"cat": 2, "dog": 1}}
    found = arrange(path)
    assert found.classes == ("cat", "dog")
    assert found.parts["all"].labels.tolist() == [0, 0, 1]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"cat/1.jpg": JPEG, "dog/1.jpg": jpeg(1)})
    (tmp_path / "cat/2.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "dog/2.jpg")
    found = check(tmp_path)
    assert [entry["path"] for entry in found.refused] == [
        f"{tmp_path}/cat/2.jpg",
        f"{tmp_path}/dog/2.jpg",
    ]
    assert {entry["reason"] for entry in found.refused} == {"a link to nothing, or no regular file"}
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
    assert check(tmp_path).images == 3


def test_names_with_a_dot_in_front(tmp_path: Path) -> None:
    """As `tar -C SET -cf x.tar .` writes them."""
    dotted = {f"./{name}": data for name, data in small_set().items()}
    report = findings(write_tar(tmp_path / "set.tar", dotted))
    assert report["counts"] == EXPECTED["counts"]
    assert report["classes"] == EXPECTED["classes"]


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file or folder"):
        check(tmp_path / "none")
    with pytest.raises(DataError, match="holds no image"):
        check(write_files(tmp_path / "texts", {"a.txt": b"text"}))
    with pytest.raises(DataError, match="no folder, tar or zip"):
        check(write_files(tmp_path, {"a.txt": b"text"}) / "a.txt")


# files known to be odd


def test_the_known_odd_files_are_counted() -> None:
    def kinds(name: str) -> dict[str, int]:
        found = list(KNOWN[name].values())
        return {kind: found.count(kind) for kind in sorted(set(found))}

    assert kinds("ILSVRC-2012") == {"CMYK": 22, "PNG": 1}
    assert kinds("ILSVRC-2010") == {"CMYK": 18, "bytes after the end": 2, "gzip-compressed": 1}
    assert KNOWN["ILSVRC-2012"]["n02105855_2933"] == "PNG"
    assert KNOWN["ILSVRC-2010"]["n02487347_1956"] == "gzip-compressed"
    assert known_as("n02105855_2934") == ""
    both = known_as("n01739381_1309")
    assert "ILSVRC-2012" in both
    assert "ILSVRC-2010" in both
    assert "ILSVRC-2010" in known_as("ILSVRC2010_val_00014712")


def test_a_known_odd_file_is_named_as_known(tmp_path: Path) -> None:
    png = encode(PICTURE, "PNG")
    files = {f"n02105855/{name}.JPEG": png for name in ("n02105855_2933", "n02105855_1")}
    report = check(write_files(tmp_path, files))
    reasons = {Path(entry["path"]).stem: entry["reason"] for entry in report.repairable}
    assert reasons["n02105855_1"] == "PNG named .JPEG"
    assert reasons["n02105855_2933"] == (
        "PNG named .JPEG; known of ILSVRC-2012 (TensorFlow's list)"
    )


# archives that mean harm


def one_member(path: Path, **fields: Any) -> Path:
    """A tar with a good image, and one more member as `fields` say."""
    with tarfile.open(path, "w") as archive:
        for name, more in (("cat/good.jpg", {}), ("cat/evil.jpg", fields)):
            member = tarfile.TarInfo(name)
            member.size = len(JPEG)
            for key, value in more.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(JPEG) if member.isreg() else None)
    return path


def zip_mode(path: Path, mode: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("cat/evil.jpg")
        info.external_attr = mode << 16
        archive.writestr("cat/good.jpg", JPEG)
        archive.writestr(info, "/etc/passwd")
    return path


def sparse(path: Path) -> Path:
    """A member in the sparse form of GNU tar 1.0."""
    body = b"1\n0\n10\n".ljust(512, b"\0") + b"0123456789"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("cat/evil.jpg")
        member.size = len(body)
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        member.pax_headers |= {"GNU.sparse.realsize": "99999999"}
        archive.addfile(member, io.BytesIO(body))
    return path


def cut(path: Path, end: int, inner: bool = False) -> Path:
    whole = tar_bytes({f"cat/{i}.jpg": JPEG for i in range(4)})
    part = whole[:end]
    return write_tar(path, {"cat.tar": part}) if inner else write_files(
        path.parent, {path.name: part}
    ) / path.name  # fmt: skip


def negative(path: Path) -> Path:
    """A member of -512 bytes, which sends a reader back to where it was."""
    data = bytearray(tar_bytes({"cat/a.jpg": JPEG, "cat/b.jpg": JPEG}))
    data[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


STEP = 512 + -(-len(JPEG) // 512) * 512  # bytes of one image in a tar
GONE = "get the archive again"
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "upwards": (lambda p: one_member(p, name="../evil.jpg"), "leads out of the archive"),
    "upwards inside": (lambda p: one_member(p, name="cat/../../evil.jpg"), "leads out"),
    "absolute": (lambda p: one_member(p, name="/tmp/evil.jpg"), "leads out of the archive"),
    "backslash": (lambda p: one_member(p, name="cat\\evil.jpg"), "between its folders"),
    "symlink": (lambda p: one_member(p, type=tarfile.SYMTYPE, linkname="/etc"), "is a link"),
    "hardlink": (lambda p: one_member(p, type=tarfile.LNKTYPE, linkname="cat/good.jpg"), "link"),
    "device": (lambda p: one_member(p, type=tarfile.CHRTYPE), "a device"),
    "pipe": (lambda p: one_member(p, type=tarfile.FIFOTYPE), "a device"),
    "long link": (lambda p: one_member(p, type=tarfile.SYMTYPE, linkname="a/" * 4096), "a link"),
    "long name": (lambda p: one_member(p, name="d/" * 2050 + "a.jpg"), "a name of 4,105 letters"),
    "twice": (lambda p: one_member(p, name="cat/good.jpg"), "occurs twice"),
    "case": (lambda p: one_member(p, name="Cat/Good.jpg"), "differ only by case"),
    "between members": (lambda p: cut(p, 2 * STEP), "has no end"),
    "within a member": (lambda p: cut(p, 2 * STEP - 600), "cut short|unexpected end"),
    "within a header": (lambda p: cut(p, 2 * STEP + 100), "cut short|unexpected end"),
    "inner between": (lambda p: cut(p, 2 * STEP, inner=True), "has no end"),
    "inner within": (lambda p: cut(p, 2 * STEP - 600, inner=True), "cut short|unexpected end"),
    "sparse": (sparse, "is a link or a device"),
    "negative": (negative, "get it again|get the archive again"),
    "compressed": (
        lambda p: write_files(p.parent, {p.name: gzip.compress(tar_bytes(FLAT))}) / p.name,
        "unpack",
    ),
    "zip upwards": (lambda p: write_zip(p, {"../evil.jpg": JPEG}), "leads out of the archive"),
    "zip absolute": (lambda p: write_zip(p, {"/tmp/evil.jpg": JPEG}), "leads out"),
    "zip symlink": (lambda p: zip_mode(p, stat.S_IFLNK | 0o777), "is no regular file"),
    "zip device": (lambda p: zip_mode(p, stat.S_IFCHR | 0o600), "is no regular file"),
    "folders by case": (lambda p: one_member(p, name="Cat/evil.jpg"), "folders 'Cat' and 'cat'"),
    "folder upwards": (lambda p: one_member(p, name="../x", type=tarfile.DIRTYPE), "leads out"),
    "zip case": (lambda p: write_zip(p, {"a/1.jpg": JPEG, "A/1.jpg": JPEG}), "only by case"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, why = HOSTILE[kind]
    path = build(tmp_path / "evil.archive")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=why):
        check(path)
    assert main(["data", "check", str(path)]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("alexnet: ")
    out = tmp_path / "packed"
    assert main(["data", "pack", str(path), "--out", str(out), "--size", "8"]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil.jpg").exists()


def edit_zip(path: Path, at: int, value: bytes) -> Path:
    """A zip whose first entry of the central directory says something else at a byte."""
    write_zip(path, {"cat/a.jpg": JPEG, "cat/b.jpg": jpeg(1)})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + at
    data[place : place + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_zip_that_declares_more_than_it_holds(tmp_path: Path) -> None:
    path = edit_zip(tmp_path / "a.zip", 24, struct.pack("<I", 100_000))
    report = check(path)
    assert [entry["path"] for entry in report.refused] == [f"{path}/cat/a.jpg"]
    assert report.ok == 1


def test_a_zip_that_declares_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = edit_zip(tmp_path / "a.zip", 24, struct.pack("<I", 1 << 30))
    (refused,) = check(path).refused
    assert refused["reason"].endswith("has 1,073,741,824 bytes; the limit is 268,435,456")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(24, struct.pack("<I", 100), id="declares-less"),
        pytest.param(16, b"\1\2\3\4", id="another-checksum"),
        pytest.param(8, b"\1\0", id="encrypted"),
        pytest.param(10, b"\x63\0", id="unknown-compression"),
    ],
)
def test_a_damaged_member_of_a_zip_is_refused(at: int, value: bytes, tmp_path: Path) -> None:
    report = check(edit_zip(tmp_path / "a.zip", at, value))
    assert [Path(entry["path"]).name for entry in report.refused] == ["a.jpg"]
    assert report.ok == 1


def test_a_damaged_directory_of_a_zip_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        check(edit_zip(tmp_path / "a.zip", 0, b"XX"))


def test_archives_two_levels_deep_are_not_opened(tmp_path: Path) -> None:
    deep = tar_bytes({"evil.jpg": b"text"})
    inner = tar_bytes({"1.jpg": JPEG, "deep.tar": deep, "deep.zip": b"PK"})
    found = list_files(write_tar(tmp_path / "set.tar", {"cat.tar": inner}))
    assert found.names == ["cat/1.jpg", "cat/deep.tar", "cat/deep.zip"]
    assert found.read(0) == JPEG
    report = check(tmp_path / "set.tar")
    assert (report.images, report.ok, report.others) == (1, 1, {".tar": 1, ".zip": 1})


def test_100_000_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tarfile.TarInfo("x").tobuf()
    block = bytearray(header)
    block[124:136] = b"%011o\0" % 1
    with open(tmp_path / "many.tar", "wb") as file:
        for i in range(100_000):
            name = b"c%02d/%06d.jpg" % (i % 50, i)
            block[: len(name)] = name
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            file.write(block + b"x".ljust(512, b"\0"))
        file.write(bytes(1024))
    reads, real = 0, _Window.read

    def read(self: _Window, count: int = -1) -> bytes:
        nonlocal reads
        reads += 1
        return real(self, count)

    monkeypatch.setattr(_Window, "read", read)
    found = list_files(tmp_path / "many.tar")
    assert reads < 3 * 100_000  # each member is looked at once
    assert len(found) == 100_000
    assert found.read(99_999) == b"x"
    assert found.names == sorted(found.names)


@pytest.mark.parametrize("write", [write_files, write_tar, write_zip])
def test_every_file_is_read_by_itself(
    write: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    shuffle = random.Random(0)
    files = {f"d{i % 3}/{i}.bin": shuffle.randbytes(i * 37) for i in range(20)}
    found = list_files(write(tmp_path / "set", files))
    assert found.names == sorted(files)
    assert {name: found.read(i) for i, name in enumerate(found.names)} == files
    assert found.sizes.tolist() == [len(files[name]) for name in found.names]


def test_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "set.tar", {"cat/1.jpg": JPEG})
    unclosed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: unclosed.append(event.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        check(path)
        gc.collect()
    assert unclosed == []


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


def test_one_image_under_two_classes(tmp_path: Path) -> None:
    """Worse than a copy: one of the two labels is wrong."""
    files = {"cat/1.jpg": JPEG, "dog/1.jpg": JPEG, "dog/2.jpg": b""}
    result = data_check(write_files(tmp_path / "tree", files))
    assert [[Path(p).parent.name for p in paths] for paths in result["two_classes"]] == [
        ["cat", "dog"]
    ]
    assert result["duplicates"] == result["two_classes"]
