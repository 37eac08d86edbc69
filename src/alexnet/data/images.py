"""One image file, or its bytes, to an array of 8-bit pixels."""

import gzip
import os
import stat
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexnet.errors import DataError, UsageError

IMAGE_SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".ppm",
        ".pgm",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
    )
)
"""Suffixes of image files, see `is_image`."""

Orient = Literal["apply", "ignore"]
"""What is done about the EXIF orientation of an image file, see `turn_upright`."""

MAX_PIXELS = 64_000_000
MOST_PIXELS = 178_956_970  # beyond which Pillow itself refuses
UNPACKED_LIMIT = 256 << 20  # bytes that a gzip-compressed image may unpack to
GZIP = b"\x1f\x8b"  # the first bytes of such a file

# A format that is not needed is only one more parser for a hostile file to reach.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
# By EXIF orientation, what shows an image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow keeps what may hold an orientation.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
# catch_warnings changes the state of the whole process: one thread at a time.
_WARNINGS = threading.Lock()


def decode_image(
    source: Path | bytes,
    *,
    channels: int,
    size: int | None,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    orient: Orient = "ignore",
    cut_floats: bool = False,
) -> np.ndarray:
    """Decode an image (a file or its bytes) to (H, W, C) uint8, C = `channels`: 1 or 3.

    `size` resizes the shorter side to that many pixels (antialiased bilinear, as
    torchvision's Resize) and crops the centre, H = W = size; None keeps the size. Transparency
    is laid on white; 16-bit grey keeps its high byte; of an animation the first frame counts; a
    file that is gzip-compressed is unpacked. `orient` "apply" turns it upright first by its EXIF
    orientation, as viewers do.

    DataError, naming `name` or the path: not an image, damaged, above `max_pixels` (which is
    checked before any pixel is decoded), or of pixels of unknown scale, see `unknown_scale`.
    `cut_floats` reads those as 0.1.0 did: floats cut to 0..255, of 16 bits the high byte.
    """
    if channels not in (1, 3) or (size is not None and size < 1):
        raise UsageError(f"channels {channels}, size {size}: expected channels 1 or 3 and size > 0")
    label = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with open_image(source, label) as image:
            width, height = image.size
            if not 0 < width * height <= max_pixels:
                raise DataError(
                    f"{label}: {width} x {height} pixels, expected 1 to {max_pixels:,}; "
                    "shrink the image or raise the limit"
                )
            image.load()
            if not cut_floats and (why := unknown_scale(image)):
                raise DataError(f"{label}: {why}")
            upright = turn_upright(image) if orient == "apply" else image
            return fit_image(upright, channels=channels, size=size)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise DataError(f"{label}: not an image ({known}); replace or remove it") from error
    except Image.DecompressionBombError as error:  # of the header, before its size is known here
        raise DataError(
            f"{label}: more than {MOST_PIXELS:,} pixels, expected 1 to {max_pixels:,}; "
            "shrink the image"
        ) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{label}: {(error.strerror or '').lower()}; name an image") from error
    # Pillow's parsers raise almost anything on hostile bytes: struct.error, SyntaxError, ...
    except Exception as error:
        raise DataError(f"{label}: {why_undecodable(error)}; replace or remove it") from error


def why_undecodable(error: Exception) -> str:
    """The reason in words, on one line, of an exception that Pillow raised while it decoded."""
    why = " ".join((getattr(error, "strerror", None) or str(error) or repr(error)).split())
    return f"cannot be decoded ({why})"


def unknown_scale(image: Image.Image) -> str:
    """Why nobody can say how bright a loaded image is; empty where its pixels say it.

    Floats may run to 1 or to 255. Pixels of 16 bits that never exceed 255 are 8-bit values saved
    wide, or a picture without light: by their high byte, as others are read, all would be black.
    """
    if image.mode == "F":
        return "float pixels of unknown scale: save it with 8 or 16 bits"
    if image.mode.startswith("I"):
        low, high = image.getextrema()
        if low >= 0 and 0 < high <= 255:  # type: ignore[operator]
            return (
                "16-bit pixels of which none exceeds 255, so of unknown scale: save it with 8 bits"
            )
    return ""


def unpack_gzip(data: bytes) -> bytes:
    """The bytes of a file, unpacked where it is gzip-compressed. DataError where it is damaged, or
    unpacks to more than UNPACKED_LIMIT."""
    if data[:2] != GZIP:
        return data
    try:
        with gzip.open(BytesIO(data)) as packed:
            unpacked = packed.read(UNPACKED_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"gzip-compressed and damaged ({error})") from error
    if len(unpacked) > UNPACKED_LIMIT:
        raise DataError(f"unpacks to more than {UNPACKED_LIMIT:,} bytes")
    return unpacked


def fit_image(image: Image.Image, *, channels: int, size: int | None) -> np.ndarray:
    """A loaded image to (H, W, C) uint8, as `decode_image` describes."""
    pixels = _flatten(image, "L" if channels == 1 else "RGB")
    array = np.array(pixels if size is None else _crop(pixels, size))
    return array.reshape(*array.shape[:2], channels)


def orientation_of(image: Image.Image) -> int:
    """How an opened image is to be turned to be upright, as EXIF numbers it: 1 (not at all) to 8.

    Damaged EXIF, and a value that has no meaning, is 1. A TIFF is 1 once it is loaded: there the
    orientation is part of the format, and Pillow has applied it.
    """
    if not any(key in image.info for key in _METADATA):
        return 1
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(0x0112)
    except Exception:  # Pillow's parsers raise almost anything on hostile bytes
        return 1
    return value if type(value) is int and value in _TURNS else 1


def turn_upright(image: Image.Image) -> Image.Image:
    """A loaded image as viewers show it: turned or mirrored by its EXIF orientation."""
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def lies_turned(source: Path | bytes) -> bool:
    """Whether an image file, or its bytes, is to be turned to be upright, from its header alone.
    False for what is no image."""
    try:
        with open_image(source) as image:
            return image.format != "TIFF" and orientation_of(image) != 1
    except Exception:  # Pillow's parsers raise almost anything on hostile bytes
        return False


def is_image(name: str) -> bool:
    """Whether a file is called what an image is called."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_size(source: Path | bytes) -> tuple[int, int]:
    """(H, W) of an image file or its bytes, from its header alone."""
    try:
        with open_image(source) as image:
            return image.height, image.width
    except Exception as error:
        label = str(source) if isinstance(source, Path) else "image"
        raise DataError(f"{label}: not an image that can be read; replace or remove it") from error


def open_image(source: Path | bytes, name: str = "") -> Image.Image:
    """The image of a file or its bytes, header only; one that is gzip-compressed is unpacked. Our
    own pixel limit stands in for Pillow's warning about bombs. DataError, with `name` or the path,
    for a pipe or a device, which could be waited on for ever, and for damaged compression."""
    label = name or (str(source) if isinstance(source, Path) else "image")
    if isinstance(source, Path):
        mode = source.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder Pillow tells
            raise DataError(
                f"{label}: a pipe or a device and no file; remove it, or pipe it into `-`"
            )
    try:
        return _open(source)
    except UnidentifiedImageError:
        if isinstance(source, Path):
            with source.open("rb") as file:
                packed = file.read(UNPACKED_LIMIT) if file.peek(2)[:2] == GZIP else b""
        else:
            packed = source
        if packed[:2] != GZIP:
            raise
        try:
            unpacked = unpack_gzip(packed)
        except DataError as error:
            raise DataError(f"{label}: {error}; replace or remove it") from error
        return _open(unpacked)


def _open(source: Path | bytes) -> Image.Image:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        )


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any mode of a loaded image to `mode`, "L" or "RGB"."""
    if image.mode.startswith("I"):  # 32-bit "I" is how Pillow reads 16-bit PGM
        high = np.asarray(image).clip(0, 65535) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    elif image.mode == "F":
        image = image.convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    elif image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size`, then crop the centre to (size, size), in one step.

    Only the cropped region is computed, so a very long strip costs no memory.
    """
    width, height = image.size
    short = min(width, height)
    wide, high = size * width // short, size * height // short
    left, top = round((wide - size) / 2), round((high - size) / 2)
    box = (
        left * width / wide,
        top * height / high,
        min(width, (left + size) * width / wide),
        min(height, (top + size) * height / high),
    )
    return image.resize((size, size), Image.Resampling.BILINEAR, box)
