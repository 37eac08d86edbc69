"""What is said of every kind of image file, and which pixels are read from it."""

import gzip
import io
import random
import re
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from archives import (
    CMYK,
    JPEG,
    PICTURE,
    encode,
    jpeg,
    picture,
    raw_png,
    turned,
    with_adobe,
    write_files,
)

Files = Mapping[str, tuple[bytes, str]]


def write_each(root: Path, files: Files) -> Path:
    """(bytes, ending of the name) by what it is: files called so, in two classes."""
    named = ((f"{kind}{ending}", data) for kind, (data, ending) in files.items())
    return write_files(root, {f"{'ab'[i % 2]}/{name}": x for i, (name, x) in enumerate(named)})


def find_oddities(root: Path, files: Files, **options: Any) -> dict[str, str]:
    """What `data check` says of each: the repairs or, after "refused: ", why it is none."""
    report = alexnet.data_check(write_each(root, files), **options)
    repairable = {Path(x.path).stem: x.reason for x in report.repairable}
    refused = {Path(x.path).stem: x.reason for x in report.refused}
    assert report.ok == len(files) - len(repairable) - len(refused)
    return dict.fromkeys(files, "") | repairable | {k: f"refused: {r}" for k, r in refused.items()}


def read_pixels(root: Path, files: Files, size: int = 30, **options: Any) -> dict[str, Any]:
    """What `data pack` makes of each that can be read: uint8 (size, size, C)."""
    out = root.with_name(f"{root.name}-packed")
    alexnet.data_pack(write_each(root, files), out=out, size=size, **options)
    names = (out / "all.names.txt").read_text().splitlines()
    return {Path(name).stem: x for name, x in zip(names, np.load(out / "all.npy"), strict=True)}


def png16(channels: int) -> bytes:
    """A 16-bit PNG of 4 x 3 pixels, grey or RGB."""
    values = np.random.default_rng(1).integers(0, 65536, (3, 4, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return raw_png(4, 3, 16, {1: 0, 3: 2}[channels], rows)


def png12() -> bytes:
    """As of a camera of 12 bits."""
    values = np.random.default_rng(1).integers(0, 4096, (3, 4)).astype(">u2")
    return raw_png(4, 3, 16, 0, b"".join(b"\0" + row.tobytes() for row in values))


GREY = PICTURE.convert("L")
PALETTE = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
RGBA = PICTURE.convert("RGBA")
FRAMES = {"save_all": True, "append_images": [picture(1), picture(2)]}

ODD: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "plain": (JPEG, ".JPEG", ()),
    "plain jpg": (JPEG, ".jpg", ()),
    "plain png": (encode(PICTURE, "PNG"), ".png", ()),
    "gzip": (gzip.compress(JPEG), ".JPEG", ("gzip-compressed",)),
    "png named jpeg": (encode(PICTURE, "PNG"), ".JPEG", ("PNG named .JPEG",)),
    "bmp named jpeg": (encode(PICTURE, "BMP"), ".JPEG", ("BMP named .JPEG",)),
    "webp named jpeg": (encode(PICTURE, "WEBP"), ".JPEG", ("WEBP named .JPEG",)),
    "gif named jpeg": (encode(PICTURE, "GIF"), ".JPEG", ("GIF named .JPEG", "palette")),
    "jpeg named png": (JPEG, ".png", ("JPEG named .png",)),
    "cmyk": (CMYK, ".JPEG", ("CMYK",)),
    "ycck": (with_adobe(CMYK, 2), ".JPEG", ("YCCK",)),
    "grey jpeg": (encode(GREY), ".jpg", ("grey",)),
    "grey png": (encode(GREY, "PNG"), ".png", ("grey",)),
    "grey and alpha": (encode(PICTURE.convert("LA"), "PNG"), ".png", ("alpha",)),
    "rgba": (encode(RGBA, "PNG"), ".png", ("alpha",)),
    "rgb with a clear colour": (
        encode(PICTURE, "PNG", transparency=(1, 2, 3)),
        ".png",
        ("alpha",),
    ),
    "palette": (encode(PALETTE, "PNG"), ".png", ("palette",)),
    "clear palette": (encode(PALETTE, "PNG", transparency=3), ".png", ("palette", "alpha")),
    "16-bit grey": (png16(1), ".png", ("16-bit",)),
    "16-bit RGB": (png16(3), ".png", ("16-bit",)),
    "12 bits in 16": (
        png12(),
        ".png",
        ("16-bit", "only 12 of 16 bits in use: dark, the high 8 are read"),
    ),
    "bilevel": (encode(PICTURE.convert("1"), "PNG"), ".png", ("black and white",)),
    "bytes after jpeg": (JPEG + b"\0" * 1234, ".jpg", ("1,234 bytes after the end",)),
    "bytes after png": (encode(PICTURE, "PNG") + b"more", ".png", ("4 bytes after the end",)),
    "turned": (turned(6), ".jpg", ("EXIF orientation 6 ignored",)),
    "upright": (turned(1), ".jpg", ()),
    "animated gif": (
        encode(PICTURE, "GIF", **FRAMES),
        ".gif",
        ("palette", "the first of 3 frames"),
    ),
    "animated webp": (encode(PICTURE, "WEBP", **FRAMES), ".webp", ("the first of 3 frames",)),
    "two at once": (gzip.compress(CMYK), ".JPEG", ("gzip-compressed", "CMYK")),
}


def test_what_is_odd_about_a_file(tmp_path: Path) -> None:
    found = find_oddities(tmp_path / "set", {kind: (x[0], x[1]) for kind, x in ODD.items()})
    assert found == {kind: ", ".join(repairs) for kind, (_, _, repairs) in ODD.items()}


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_bytes_after_the_end_that_hold_another_end(format: str, tmp_path: Path) -> None:
    data = encode(PICTURE, format)
    found = find_oddities(tmp_path, {"twice": (data + data, f".{format.lower()}")})
    assert found == {"twice": f"{len(data):,} bytes after the end"}


def test_pixels_are_pillows_own(tmp_path: Path) -> None:
    kinds = ("plain", "gzip", "png named jpeg", "bmp named jpeg", "webp named jpeg", "cmyk", "ycck")
    found = read_pixels(tmp_path / "set", {kind: (ODD[kind][0], ODD[kind][1]) for kind in kinds})
    for kind in kinds:
        data = ODD[kind][0]
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with Image.open(io.BytesIO(plain)) as image:
            whole = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(found[kind], whole[:, 5:35])  # 40 x 30: the centre square


def test_what_is_not_shown_as_it_lies(tmp_path: Path) -> None:
    """Transparency is laid on white, and the first frame counts."""
    image = RGBA.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    frames = encode(PICTURE, "WEBP", lossless=True, **FRAMES)
    files = {"clear": (encode(image, "PNG"), ".png"), "frames": (frames, ".webp")}
    found = read_pixels(tmp_path / "set", files)
    rgba = np.asarray(image).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(found["clear"] - expected[:, 5:35]).max() <= 1
    np.testing.assert_array_equal(found["frames"], np.asarray(PICTURE)[:, 5:35])


def test_16_bit_keeps_the_high_byte(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (3, 4, 1))
    files = {kind: (png16(1), ".png") for kind in "ab"}
    for found in read_pixels(tmp_path / "set", files, size=3, channels=1).values():
        np.testing.assert_array_equal(found, values[:, 0:3] >> 8)  # (4 - 3) / 2 rounds to 0


# By the table of the EXIF standard: what has to be done to show the image upright.
UPRIGHT = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


def test_orientation_is_applied_where_it_is_wanted(tmp_path: Path) -> None:
    files = {str(orientation): (turned(orientation), ".jpg") for orientation in UPRIGHT}
    applied = read_pixels(tmp_path / "applied", files, orient="apply")
    ignored = read_pixels(tmp_path / "ignored", files, orient="ignore")
    said = find_oddities(tmp_path / "checked", files, orient="apply")
    for orientation, upright in UPRIGHT.items():
        kind = str(orientation)
        with Image.open(io.BytesIO(files[kind][0])) as image:
            lies = np.asarray(image)
        np.testing.assert_array_equal(ignored[kind], lies[:, 5:35])
        np.testing.assert_array_equal(applied[kind], upright(lies[:, 5:35]))
        words = "" if orientation == 1 else f"EXIF orientation {orientation} applied"
        assert said[kind] == words


def test_broken_exif_does_not_cost_an_image(tmp_path: Path) -> None:
    broken = (
        b"Exif\0\0XXXXXXXXXXXX", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", b"Exif\0\0",
    )  # fmt: skip
    marks = (b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif for exif in broken)
    files = {str(i): (JPEG[:2] + mark + JPEG[2:], ".jpg") for i, mark in enumerate(marks)}
    assert set(find_oddities(tmp_path / "set", files, orient="apply").values()) == {""}
    assert read_pixels(tmp_path / "again", files, orient="apply").keys() == files.keys()


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


def test_what_is_refused(tmp_path: Path) -> None:
    files = {kind: (data, ".jpg") for kind, (data, _) in REFUSED.items()}
    found = find_oddities(tmp_path / "set", files)
    for kind, (_, why) in REFUSED.items():
        reason = found[kind].removeprefix("refused: ")
        assert reason != found[kind]
        assert re.search(why, reason), (kind, reason)
        assert "\n" not in reason
    good = {"good": (JPEG, ".jpg"), "fine": (JPEG, ".jpg")}
    assert read_pixels(tmp_path / "again", files | good, size=8).keys() == good.keys()


def test_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    """Decoded, what is said would be that these are cut short."""
    files = {
        str(side): (raw_png(side, side, 8, 2, bytes(1000)), ".png") for side in (50_000, 9_000)
    }
    found = find_oddities(tmp_path, files, max_pixels=64_000_000)
    assert found == {
        "50000": "refused: more than 178,956,970 pixels, the limit is 64,000,000",
        "9000": "refused: 9000 x 9000 pixels, the limit is 64,000,000 (max_pixels=...)",
    }


def test_as_many_pixels_as_the_limit_are_fine(tmp_path: Path) -> None:
    assert find_oddities(tmp_path, {"a": (JPEG, ".jpg")}, max_pixels=1200) == {"a": ""}
    refused = find_oddities(tmp_path, {"a": (JPEG, ".jpg")}, max_pixels=1199)
    assert refused == {"a": "refused: 40 x 30 pixels, the limit is 1,199 (max_pixels=...)"}


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """16 GiB of zeros, of which no more than the limit is ever there."""
    limit = 256 << 20
    bomb = 1024 * gzip.compress(bytes(16 << 20), 1)
    tracemalloc.start()
    found = find_oddities(tmp_path, {"bomb": (bomb, ".jpg")})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"bomb": f"refused: unpacks to more than {limit:,} bytes"}
    assert peak < 3 * limit


def test_any_damage_is_a_word_and_not_an_exception(tmp_path: Path) -> None:
    shuffle = random.Random(3)
    kinds = [data for data, _, _ in ODD.values()]
    files = {}
    for turn in range(250):
        data = bytearray(shuffle.choice(kinds))
        for _ in range(shuffle.randrange(1, 20)):
            data[shuffle.randrange(len(data))] = shuffle.randrange(256)
        del data[shuffle.randrange(len(data)) if shuffle.random() < 0.3 else len(data) :]
        files[f"{turn:03}"] = (bytes(data), ".jpg")
    found = find_oddities(tmp_path / "set", files)
    refused = {kind for kind, why in found.items() if why.startswith("refused: ")}
    assert 0 < len(refused) < len(files)
    assert read_pixels(tmp_path / "again", files, size=8).keys() == files.keys() - refused
