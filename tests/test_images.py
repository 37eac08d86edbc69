"""Single images: their pixels in every mode, and how each kind of damage is refused."""

import gzip
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data import decode_image
from alexnet.errors import DataError, UsageError
from archives import encode

RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


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
        (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "BMP"), [10, 20, 30]),
        (encode(Image.new("RGB", (2, 2), "red"), "GIF"), [255, 0, 0]),
        (encode(Image.new("RGB", (2, 2), (10, 20, 30)), "WEBP", lossless=True), [10, 20, 30]),
    ],
    ids=["L", "1", "LA", "RGBA", "P", "CMYK", "I;16", "I;16-tiff", "I", "BMP", "GIF", "WEBP"],
)
def test_modes(data: bytes, expected: list[int]) -> None:
    assert decode_image(data, channels=3, size=None)[0, 0].tolist() == expected
    assert decode_image(data, channels=1, size=None).shape[2] == 1


@pytest.mark.parametrize("kind", ["float", "8 of 16 bits", "8 of 32 bits"])
def test_pixels_of_unknown_scale_are_refused(kind: str) -> None:
    """Is 1.0 white? Runs of 0.1.0 go on reading such images as they did."""
    number, as_before = {
        "float": (np.float32(300), 255), "8 of 16 bits": (np.uint16(200), 0),
        "8 of 32 bits": (np.int32(200), 0),
    }[kind]  # fmt: skip
    data = encode(Image.fromarray(np.full((2, 2), number)), "TIFF")
    with pytest.raises(DataError, match="unknown scale"):
        decode_image(data, channels=1, size=None)
    assert (decode_image(data, channels=1, size=None, cut_floats=True) == as_before).all()


def test_a_picture_without_light_is_no_riddle() -> None:
    data = encode(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG")
    assert not decode_image(data, channels=1, size=None).any()


def test_a_gzip_compressed_image_is_read(tmp_path: Path) -> None:
    """One of ILSVRC-2010's is: packed and trained on alike."""
    plain = encode(Image.fromarray(noise(8, 8)), "PNG")
    (tmp_path / "a.png").write_bytes(gzip.compress(plain))
    expected = decode_image(plain, channels=3, size=8)
    for source in (tmp_path / "a.png", gzip.compress(plain)):
        assert (decode_image(source, channels=3, size=8) == expected).all()


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
