"""Archives that mean harm, are damaged, nested or huge; and that every file is read by itself."""

import gc
import hashlib
import json
import os
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import alexnet
from alexnet.cli import main
from alexnet.data import list_images, open_image_set
from alexnet.errors import DataError
from archives import JPEG, jpeg, tar_bytes, write_files, write_tar, write_zip
from hostile import HOSTILE

# Listings leave their files to the garbage collector: see test_files_are_closed.


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, why = HOSTILE[kind]
    path = build(tmp_path / "evil.archive")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=why):
        alexnet.data_check(path)
    assert main(["data", "check", str(path)]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("alexnet: ")
    for open_all in (open_image_set, list_images):  # as train, test and classify do
        with pytest.raises(DataError, match=why):
            open_all(path)
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
    report = alexnet.data_check(path)
    assert [entry.path for entry in report.refused] == [f"{path}/cat/a.jpg"]
    assert report.ok == 1


def test_a_zip_that_declares_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = edit_zip(tmp_path / "a.zip", 24, struct.pack("<I", 1 << 30))
    (refused,) = alexnet.data_check(path).refused
    assert refused.reason.endswith("has 1,073,741,824 bytes; the limit is 268,435,456")


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
    report = alexnet.data_check(edit_zip(tmp_path / "a.zip", at, value))
    assert [Path(entry.path).name for entry in report.refused] == ["a.jpg"]
    assert report.ok == 1


def test_a_damaged_directory_of_a_zip_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        alexnet.data_check(edit_zip(tmp_path / "a.zip", 0, b"XX"))


def test_archives_two_levels_deep_are_not_opened(tmp_path: Path) -> None:
    deep = tar_bytes({"evil.jpg": b"text"})
    inner = tar_bytes({"1.jpg": JPEG, "deep.tar": deep, "deep.zip": b"PK"})
    report = alexnet.data_check(write_tar(tmp_path / "set.tar", {"cat.tar": inner}))
    assert (report.images, report.ok) == (1, 1)
    assert report.counts == {"all": {"cat": 1}}
    assert report.others == {".tar": 1, ".zip": 1}


MEMBERS = 10_000


def reads() -> int:
    """How often this process has read from a file or from anything else."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["syscr"])


def test_each_of_many_members_is_looked_at_once(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x").tobuf()
    block = bytearray(header)
    block[124:136] = b"%011o\0" % 1
    with open(tmp_path / "many.tar", "wb") as file:
        for i in range(MEMBERS):
            name = b"c%02d/%06d.txt" % (i % 50, i)
            block[: len(name)] = name
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            file.write(block + b"x".ljust(512, b"\0"))
        file.write(tar_bytes({f"c{i:02}/z.jpg": jpeg(i) for i in range(50)}))
    before = reads()
    report = alexnet.data_check(tmp_path / "many.tar")
    # Twice: for the images, and for whether it could be packed as it is.
    assert reads() - before < 2 * MEMBERS
    assert report.others == {".txt": MEMBERS}
    assert (report.ok, report.note) == (50, "")


@pytest.mark.parametrize("write", [write_files, write_tar, write_zip])
def test_every_file_is_read_by_itself(
    write: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path
) -> None:
    """Whatever its size: the manifest of a pack has the digest of what was read of each."""
    shuffle = random.Random(0)
    files = {f"d{i % 3}/{i:02}.jpg": shuffle.randbytes(i * 37) for i in range(20)}
    files |= {f"d{i}/{i}.jpg": jpeg(i) for i in range(3)}
    source = write(tmp_path / "set", files)
    alexnet.data_pack(source, out=tmp_path / "out", size=8)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    digests = (hashlib.sha256(files[name]).digest() for name in sorted(files))
    assert manifest["source"]["files"] == len(files)
    assert manifest["source"]["sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()


def test_files_are_closed(tmp_path: Path) -> None:
    """What one leaves to the garbage collector is an error in every test, see pyproject.toml."""
    files = {"cat/1.jpg": JPEG, "dog/1.jpg": jpeg(1)}
    writers = {"folder": write_files, "set.tar": write_tar, "set.zip": write_zip}
    paths = [write(tmp_path / name, files) for name, write in writers.items()]
    gc.collect()
    before = os.listdir("/proc/self/fd")
    for path in paths:
        alexnet.data_check(path)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == len(before)
