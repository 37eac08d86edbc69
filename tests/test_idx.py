"""IDX files: what is read, and how each kind of damage is refused."""

import gzip
import resource
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet.data import open_image_set
from alexnet.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
LABELS = np.array([0, 1, 2, 9, 1, 0], np.uint8)


def write_idx(folder: Path, prefix: str = "train", end: str = "", mark: str = "-") -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if end else bytes
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}-images{mark}idx3-ubyte{end}").write_bytes(pack(idx(IMAGES)))
    (folder / f"{prefix}-labels{mark}idx1-ubyte{end}").write_bytes(pack(idx(LABELS)))


@pytest.mark.parametrize(("end", "mark"), [("", "-"), (".gz", "-"), ("", "."), (".gz", ".")])
def test_idx(tmp_path: Path, end: str, mark: str) -> None:
    write_idx(tmp_path, end=end, mark=mark)
    assert open_image_set(tmp_path).parts == ("train",)
    write_idx(tmp_path, "t10k", end, mark)
    source = open_image_set(str(tmp_path))
    assert (source.kind, source.path, source.parts) == ("idx", str(tmp_path), ("train", "test"))
    for name in source.parts:
        part = source.read(name)
        assert not isinstance(part.images, np.ndarray)  # they stay in the file
        backwards = np.arange(len(IMAGES))[::-1]
        np.testing.assert_array_equal(part.images[backwards], IMAGES[backwards][..., None])
        assert part.labels.dtype == np.int64
        assert part.labels.tolist() == LABELS.tolist()


def test_idx_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images = open_image_set(tmp_path).read("train").images
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(images[np.array([4])], IMAGES[4:5, ..., None])
    with pytest.raises(DataError, match="was cut while it was read"):
        images[np.array([5])]


def test_the_test_part_is_not_read_in_training(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_idx(tmp_path, "t10k")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    source = open_image_set(tmp_path)
    source.read("train")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: begins"):
        source.read("test")


def test_idx_classes(tmp_path: Path) -> None:
    write_idx(tmp_path / "Fashion-MNIST")
    assert open_image_set(tmp_path / "Fashion-MNIST").classes[9] == "Ankle boot"
    write_idx(tmp_path / "plain")
    assert open_image_set(tmp_path / "plain").classes == tuple("0123456789")
    names = tmp_path / "plain" / "classes.txt"
    names.write_text("zwei\ndreißig\n\n", "utf-8")
    source = open_image_set(tmp_path / "plain")
    assert source.classes == ("zwei", "dreißig")
    with pytest.raises(DataError, match="label 9 in part 'train', expected 0 to 1"):
        source.read("train")
    for text in (b"a\na\n", b"", b"\xff\xfe"):
        names.write_bytes(text)
        with pytest.raises(DataError, match=r"classes\.txt: "):
            open_image_set(tmp_path / "plain")


WHOLE = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:-1], "only 119 bytes of data, expected 120"),
        (WHOLE + b"\0", "more bytes of data, expected 120"),
        (b"\0\0\x0d\3" + WHOLE[4:], "begins 00000d03, expected 00000803"),
        (WHOLE[:9], "begins 00000803, expected"),
        (b"", "begins empty"),
        (idx(IMAGES[:5]), "5 images but 6 labels"),
        (idx(IMAGES[:0]), r"declares shape \(0, 4, 5\)"),
        (b"\0\0\x08\3" + b"\xff" * 12, r"declares shape .*expected 1 to 4,294,967,296"),
        # 4 GB declared, 120 bytes there: must not be filled up
        (b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 4_000_000_000) + WHOLE[16:], "only 120 bytes"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_damaged_idx(tmp_path: Path, content: bytes, message: str, end: str) -> None:
    write_idx(tmp_path, end=end)
    file = tmp_path / f"train-images-idx3-ubyte{end}"
    file.write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(DataError, match=message) as caught:
        open_image_set(tmp_path).read("train")
    assert str(file) in str(caught.value)


def test_damaged_gzip_and_missing_half(tmp_path: Path) -> None:
    write_idx(tmp_path, end=".gz")
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-20], b"<html>not found</html>", whole[:30] + b"\xff" * 30 + whole[60:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
            open_image_set(tmp_path).read("train")
    file.unlink()
    with pytest.raises(DataError, match="IDX file of the train images is missing"):
        open_image_set(tmp_path)


def test_gzip_bomb_is_read_only_as_far_as_declared(tmp_path: Path) -> None:
    """Neither into memory nor onto the disk: nothing of more than a MiB can be written here."""
    write_idx(tmp_path, end=".gz")
    bomb = gzip.compress(WHOLE) + 64 * gzip.compress(bytes(1 << 20), 1)
    hollow = gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 4_000_000_000))
    for content, message in (
        (bomb, "more bytes of data, expected 120"),
        (hollow, "only 0 bytes of data, expected 4,000,000,000"),
    ):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=message):
                open_image_set(tmp_path).read("train")
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
