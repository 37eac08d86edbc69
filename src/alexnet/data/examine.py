"""One image file decoded: its pixels, what had to be repaired, or why it is refused.

Originals are never changed: a repair is a way of reading.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from alexnet.data.images import (
    GZIP,
    MAX_PIXELS,
    MOST_PIXELS,
    Orient,
    fit_image,
    open_image,
    orientation_of,
    turn_upright,
    unknown_scale,
    unpack_gzip,
    why_undecodable,
)
from alexnet.errors import DataError
from alexnet.support.options import option

TURNED = "EXIF orientation"  # begins the repair of an image that has one

# How each format's files are usually named.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
}
_MODES = {
    "L": "grey",
    "1": "black and white",
    "LA": "alpha",
    "PA": "palette",
    "P": "palette",
    "RGBA": "alpha",
}
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Examined:
    """One file: `repairs` in words (none where it is as it should be), or why it was `refused`.

    pixels are uint8 (size, size, channels), or None where refused or not asked for; `extracted` is
    what `extract` gave of the image.
    """

    repairs: tuple[str, ...]
    refused: str = ""
    pixels: NDArray[np.uint8] | None = None
    extracted: Any = None


def examine(
    data: bytes,
    name: str,
    *,
    size: int | None = None,
    channels: int = 3,
    orient: Orient = "ignore",
    max_pixels: int = MAX_PIXELS,
    extract: Callable[[Image.Image], Any] = lambda image: None,
) -> Examined:
    """Decodes a file's bytes to the last and says what was odd. Never raises on bad data.

    With `size` the pixels come along: shorter side to `size`, centre square; with `extract` what
    that function makes of the image. `orient` says whether the EXIF orientation is applied or
    ignored (ILSVRC's images were used as they lie).
    """
    repairs: list[str] = []
    pixels: NDArray[np.uint8] | None = None
    if not data:
        return Examined((), "empty")
    if data[:2] == GZIP:
        try:
            data = unpack_gzip(data)
        except DataError as error:
            return Examined((), str(error))
        repairs.append("gzip-compressed")
    try:
        with open_image(data) as image:
            width, height = image.size
            if not 0 < width * height <= max_pixels:
                limit = f"{max_pixels:,} ({option('max_pixels')})"
                why = f"{width} x {height} pixels, the limit is {limit}"
                return Examined((), why)
            kind = image.format or "?"
            repairs += _oddities(image, kind, name, data)
            image.load()
            if why := unknown_scale(image):
                return Examined((), why)
            if dark := _unused_bits(image):
                repairs.append(dark)
            if (orientation := orientation_of(image)) != 1:
                done = "applied" if orient == "apply" else "ignored"
                repairs.append(f"{TURNED} {orientation} {done}")
            upright = turn_upright(image) if orient == "apply" else image
            if size is not None:
                pixels = fit_image(upright, channels=channels, size=size)
            extracted = extract(upright)
    except UnidentifiedImageError:
        return Examined((), "not an image")
    except Image.DecompressionBombError:  # of the header, before its size is known to us
        return Examined((), f"more than {MOST_PIXELS:,} pixels, the limit is {max_pixels:,}")
    # Pillow's parsers raise almost anything on hostile bytes: struct.error, SyntaxError, ...
    except Exception as error:
        return Examined((), why_undecodable(error))
    return Examined(tuple(repairs), "", pixels, extracted)


def _oddities(image: Image.Image, kind: str, name: str, data: bytes) -> list[str]:
    repairs = []
    suffix = PurePosixPath(name).suffix
    if suffix and suffix.lower() not in _SUFFIXES.get(kind, ()):
        repairs.append(f"{kind} named {suffix}")
    if image.mode == "CMYK":
        repairs.append("YCCK" if image.info.get("adobe_transform") == 2 else "CMYK")
    elif image.mode.startswith("I"):
        repairs.append("16-bit")
    elif image.mode in _MODES:
        repairs.append(_MODES[image.mode])
    elif image.mode != "RGB":
        repairs.append(image.mode)
    if "transparency" in image.info and image.mode in ("L", "RGB", "P"):
        repairs.append("alpha")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        repairs.append(f"the first of {frames} frames")
    if kind == "PNG" and data[24] == 16 and "16-bit" not in repairs:
        repairs.append("16-bit")
    end = _end(kind, data)
    if 0 < end < len(data):
        repairs.append(f"{len(data) - end:,} bytes after the end")
    return repairs


def _unused_bits(image: Image.Image) -> str:
    """Of 16-bit grey pixels whose upper bits are all 0, as of cameras of 12: how it will look."""
    if not image.mode.startswith("I;16"):
        return ""
    used = int(image.getextrema()[1]).bit_length()  # type: ignore[arg-type]
    return f"only {used} of 16 bits in use: dark, the high 8 are read" if 8 < used < 15 else ""


def _end(kind: str, data: bytes) -> int:
    """Where an image ends in its file; 0 where that is not known.

    In a JPEG the first end marker after the start of the scan is the end: those of thumbnails come
    before it, and inside a scan the marker cannot occur.
    """
    if kind == "PNG":
        at = data.find(_PNG_END)
        return at + len(_PNG_END) if at >= 0 else 0
    if kind != "JPEG":
        return 0
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4]) if data[at + 1] != 0xFF else 1
    at = data.find(b"\xff\xd9", at)
    return at + 2 if at >= 0 else 0
