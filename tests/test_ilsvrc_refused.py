"""ILSVRC's own archives, missing, cut, another year's or harmful: one line, nothing written."""

import gzip
import re
import struct
import sys
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.errors import Unavailable
from archives import WNIDS, jpeg, tar_bytes, train_tar, write_kit, write_tar
from official import COUNTS, KIT, NAMES, TRUTH, content, pack_official, train_files, write_official


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


def zeros(mebibytes: int) -> bytes:
    """So many, as gzip compresses them: one MiB after the other."""
    return mebibytes * gzip.compress(bytes(1 << 20), 1)


def compressed_variable(mebibytes: int) -> bytes:
    """A meta.mat of one variable of so many zeros."""
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packer.flush()
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(data)) + data


def test_a_kit_that_unpacks_without_end(root: Path, capfd: CAPFD) -> None:
    """In a file beside those that are wanted, in a header, and in a variable of meta.mat."""
    kit = root / KIT["ILSVRC2012"]
    whole, much = gzip.decompress(kit.read_bytes()), 1024  # MiB
    beside, long = tarfile.TarInfo("bomb"), tarfile.TarInfo("x")
    beside.size = long.size = much << 20
    long.type = tarfile.GNUTYPE_LONGNAME
    table = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    meta = {"ILSVRC2012_devkit_t12/data/meta.mat": compressed_variable(256), table: b"1\n"}
    bombs = {
        "unpacks to more than 67,108,864 bytes, which no kit": (
            gzip.compress(beside.tobuf()) + zeros(much) + gzip.compress(whole)
        ),
        "cannot be read|is not the kit": (
            gzip.compress(long.tobuf()) + zeros(much) + gzip.compress(whole)
        ),
        r"meta\.mat cannot be read \(unpacks to more than 67,108,864 bytes\)": gzip.compress(
            tar_bytes(meta)
        ),
    }
    for why, bomb in bombs.items():
        kit.write_bytes(bomb)
        tracemalloc.start()
        refused(root, why, capfd)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 250 << 20, why


def test_train_is_not_the_train_archive(root: Path, capfd: CAPFD) -> None:
    val = root / NAMES["ILSVRC2012"]["val"]
    (root / NAMES["ILSVRC2012"]["train"]).write_bytes(val.read_bytes())
    refused(root, "is of no class of the kit: wrong archive", capfd)


def test_an_archive_that_was_cut(root: Path, capfd: CAPFD) -> None:
    train = root / NAMES["ILSVRC2012"]["train"]
    train.write_bytes(train.read_bytes()[: train.stat().st_size // 2])
    refused(root, r"cut short|unexpected end", capfd)


def test_without_scipy(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched because a package that is installed can be missing in no other way.
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(Unavailable, match=r"pip install 'alexnet\[imagenet\]'"):
        pack_official(root, tmp_path / "out")
