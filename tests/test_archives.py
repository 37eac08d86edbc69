"""Archives that mean harm, are damaged, nested or huge; and that every file is read by itself."""

import gc
import random
import struct
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.data.check import check
from alexnet.data.listing import _Window, list_files
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
