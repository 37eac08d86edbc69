"""What is said of every kind of image file, and which pixels are read from it."""

import gzip
import io
import random
import re
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageFile

from alexnet.data import examine as examine_module
from alexnet.data.examine import examine
from archives import CMYK, JPEG, PICTURE, encode, jpeg, picture, raw_png, turned, with_adobe


def png16(channels: int) -> bytes:
    """A 16-bit PNG of 4 x 3 pixels, grey or RGB."""
    values = np.random.default_rng(1).integers(0, 65536, (3, 4, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return raw_png(4, 3, 16, {1: 0, 3: 2}[channels], rows)


GREY = PICTURE.convert("L")
PALETTE = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
RGBA = PICTURE.convert("RGBA")
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
