"""CIFAR-10 in all its forms: what is read, and how damage and malice are refused."""

import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet.data import open_source
from alexnet.errors import DataError


def cifar(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    """labels (n,), images (n, 32, 32, 3) and their records."""
    rng = np.random.default_rng(seed)
    labels, images = rng.integers(0, 10, n, np.uint8), rng.integers(0, 256, (n, 32, 32, 3))
    planes = images.astype(np.uint8).transpose(0, 3, 1, 2).reshape(n, -1)
    return labels, images, np.hstack([labels[:, None], planes]).tobytes()


BATCHES = {
    **{f"data_batch_{i}": cifar(i, i) for i in range(1, 6)},
    "test_batch": cifar(3, 9),
}


def binary_files() -> dict[str, bytes]:
    return {f"{name}.bin": records for name, (_, _, records) in BATCHES.items()}


def python_files() -> dict[str, bytes]:
    """As Python 3 writes them; what Python 2 wrote is in test_pickles_of_python_2."""
    files = {}
    for name, (labels, images, _) in BATCHES.items():
        planes = images.astype(np.uint8).transpose(0, 3, 1, 2).reshape(len(labels), -1)
        files[name] = pickle.dumps({"data": planes, "labels": labels.tolist()}, protocol=2)
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(file: Path, inner: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{inner}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize("layout", ["flat", "nested", "tar", "tar-inside"])
@pytest.mark.parametrize("version", ["bin", "py"])
def test_cifar10(tmp_path: Path, layout: str, version: str) -> None:
    files = binary_files() if version == "bin" else python_files()
    archive = f"cifar-10-{'binary' if version == 'bin' else 'python'}.tar.gz"
    inner = f"cifar-10-batches-{version}"
    path = tmp_path
    if layout == "flat":
        write_files(tmp_path, files)
    elif layout == "nested":
        write_files(tmp_path / inner, files)
    else:
        path = write_tar(tmp_path / archive, inner, files)
        path = tmp_path if layout == "tar-inside" else path
    before = sorted(tmp_path.rglob("*"))
    source = open_source(path)
    assert (source.kind, source.path, source.parts) == ("cifar10", str(path), ("train", "test"))
    assert source.classes[3] == ("cat" if version == "bin" else "d")
    train, test = source.load("train"), source.load("test")
    batches = [BATCHES[f"data_batch_{i}"] for i in range(1, 6)]
    np.testing.assert_array_equal(train.images, np.concatenate([b[1] for b in batches]))
    np.testing.assert_array_equal(train.labels, np.concatenate([b[0] for b in batches]))
    np.testing.assert_array_equal(test.images, BATCHES["test_batch"][1])
    assert isinstance(train.images, np.ndarray)
    assert train.images.dtype == np.uint8
    assert sorted(tmp_path.rglob("*")) == before


def test_cifar10_files_have_a_size_limit(tmp_path: Path) -> None:
    limit = 256 << 20  # bytes
    bomb = tmp_path / "bomb.bin.xz"
    bomb.write_bytes(1024 * lzma.compress(bytes(1 << 20)))
    with pytest.raises(DataError, match=r"bomb\.bin\.xz: .* bytes, expected at most 268,435,456"):
        open_source(bomb).load("all")
    flat = write_files(tmp_path / "flat", binary_files())
    os.truncate(flat / "data_batch_5.bin", limit + 1)
    with pytest.raises(DataError, match=r"data_batch_5\.bin: 268,435,457 bytes, expected at most"):
        open_source(flat).load("train")
    large = tarfile.TarInfo("c/batches.meta.txt")
    large.size = limit + 1
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(gzip.compress(large.tobuf()))
    with pytest.raises(DataError, match=r"batches\.meta\.txt: 268,435,457 bytes, expected at most"):
        open_source(archive)


@pytest.mark.parametrize("name", ["loose.bin", "loose.bin.xz"])
def test_loose_records(tmp_path: Path, name: str) -> None:
    labels, images, records = cifar(4, 1)
    file = tmp_path / name
    file.write_bytes(lzma.compress(records) if name.endswith("xz") else records)
    part = open_source(file).load("all")
    np.testing.assert_array_equal(part.images, images)
    np.testing.assert_array_equal(part.labels, labels)
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"loose\.bin"):
        open_source(file).load("all")


def test_damaged_cifar10(tmp_path: Path) -> None:
    write_files(tmp_path, binary_files())
    (tmp_path / "data_batch_2.bin").write_bytes(cifar(2, 2)[2] + b"x")
    with pytest.raises(DataError, match=r"data_batch_2\.bin: 6,147 bytes, expected whole records"):
        open_source(tmp_path).load("train")
    (tmp_path / "data_batch_2.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match="label 10 in part 'train', expected 0 to 9"):
        open_source(tmp_path).load("train")
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghijk"))
    assert open_source(tmp_path).classes == tuple("abcdefghijk")
    (tmp_path / "test_batch.bin").unlink()
    assert open_source(tmp_path).parts == ("train",)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin missing"):
        open_source(tmp_path)


def test_foreign_and_truncated_tars(tmp_path: Path) -> None:
    photos = write_tar(tmp_path / "photos.tar.gz", "train/cat", {f"{i}.jpg": b"" for i in range(9)})
    with pytest.raises(DataError, match=r"alexnet\.data_pack"):
        open_source(photos)
    whole = write_tar(tmp_path / "cifar-10-binary.tar.gz", "c", binary_files())
    content = whole.read_bytes()
    for damaged in (content[: len(content) // 2], b"<html>"):
        whole.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: cannot be read") as caught:
            open_source(whole)
        assert "\n" not in str(caught.value)


def test_only_regular_members_of_a_tar_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(cifar(1, 1)[2])
    file = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name in binary_files():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(secret)
            archive.addfile(link)
    with pytest.raises(DataError, match="holds no data"):
        open_source(file)


class Canary:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_malicious_pickle_is_refused(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    evil = pickle.dumps({"data": Canary(canary)}, protocol=2)
    write_files(tmp_path, python_files() | {name: evil})
    with pytest.raises(DataError, match=rf"{name}: the pickle asks for \w+\.mkdir"):
        open_source(tmp_path).load("train")
    assert not canary.exists()
    pickle.loads(evil)  # the canary does sing where nobody guards it
    assert canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02garbage",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.zeros((2, 3072), np.int32), "labels": [0, 1]}, 2),
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, 2),
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}, 2),
        pickle.dumps({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}, 2),
    ],
)
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    write_files(tmp_path, python_files() | {"data_batch_1": content})
    with pytest.raises(DataError, match="data_batch_1: "):
        open_source(tmp_path).load("train")


def test_pickles_of_python_2(tmp_path: Path) -> None:
    """The bytes Python 2 and its numpy wrote: byte strings, numpy.core, dtype('u1', 0, 1)."""
    labels, images, records = cifar(2, 5)
    pixels = b"".join(records[i * 3073 + 1 : (i + 1) * 3073] for i in range(2))
    batch = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(pixels))
        + pixels
        + b"tbU\x06labels](K"
        + bytes([labels[0]])
        + b"K"
        + bytes([labels[1]])
        + b"eu."
    )
    write_files(tmp_path, {f"data_batch_{i}": batch for i in range(1, 6)})
    part = open_source(tmp_path).load("train")
    np.testing.assert_array_equal(part.images, np.concatenate([images] * 5))
    assert part.labels.tolist() == labels.tolist() * 5
