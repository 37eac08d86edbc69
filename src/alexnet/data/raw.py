"""What every reader of raw data returns, and the checks that they share.

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import io
import lzma
import math
import os
import shutil
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from alexnet.data.images import Orient
from alexnet.errors import DataError

_CHUNK_BYTES = 1 << 20


class Unlabelled(DataError):
    """A part whose images nobody has labelled, as the test part of a competition."""


@dataclass(frozen=True)
class LabelledImages:
    """One named part of a source. labels: (N,) int64, images: (N, H, W, C) uint8 in memory or in a
    file, N files, or N images of one stored size that are decoded by index."""

    labels: np.ndarray
    images: "np.ndarray | PixelFile | tuple[Path, ...] | Stored"


class Stored(Protocol):
    """Images of one size that are decoded when asked for. shape is (N, size, size, C)."""

    shape: tuple[int, ...]

    def read(self, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images by index, written to `out` where it is given. Shapes: (M,) -> uint8
        (M, size, size, C)."""


@dataclass(frozen=True)
class Source:
    """Where raw data lies and what it holds; pixels and labels are read only by `load`.

    `kind` is digits, idx, cifar10, packed or folder; `path` is absolute, "" for digits; `parts` are
    among train, val and test, or just "all" where nobody has split the data. `load(part)` raises
    DataError for an unknown part, damage, or a label without a class. A packed source brings its
    own digest, the `Statistics` of its training part, and `titles`, what people call classes;
    `orient` is what was done there about the EXIF orientation of its files, and `turned` how many
    of them had one. Of files that are still to be decoded, and of arrays, there is none. A folder
    says which of its `folders` each part is, where it has parts.
    """

    kind: str
    path: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    load: Callable[[str], LabelledImages]
    digest: str = ""
    folders: Mapping[str, str] | None = None
    statistics: Any = None
    titles: Mapping[str, str] = field(default_factory=dict)
    orient: Orient | None = None
    turned: int = 0


def make_source(
    kind: str,
    path: Path | str,
    classes: tuple[str, ...],
    readers: Mapping[str, Callable[[], LabelledImages]],
) -> Source:
    where = str(path) or kind

    def load(name: str) -> LabelledImages:
        if name not in readers:
            raise DataError(f"{where}: has no part {name!r}; choose from {', '.join(readers)}")
        part = readers[name]()
        if len(part.labels) == 0:
            raise DataError(f"{where}: part {name!r} is empty; expected at least one image")
        for label in (int(part.labels.min()), int(part.labels.max())):
            if not (kind == "packed" and label == -1) and not 0 <= label < len(classes):
                raise DataError(
                    f"{where}: label {label} in part {name!r}, expected 0 to {len(classes) - 1}; "
                    "correct the labels or the list of classes"
                )
        return part

    return Source(kind, str(path), class_names(classes), tuple(readers), load)


def class_names(folders: tuple[str, ...]) -> tuple[str, ...]:
    """What classes are called whose folders are: bytes that are no UTF-8 written out, since the
    names go into pages, tables and answers. DataError where two are then called the same."""
    names = tuple(name.encode(errors="backslashreplace").decode() for name in folders)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two classes are called {twice!r}: rename one of their folders")
    return names


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what damaged or unreadable files raise into a DataError naming `path`."""
    try:
        yield
    except DataError:
        raise
    # A zip says RuntimeError for a locked member and NotImplementedError for a strange one.
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError,
            zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:  # fmt: skip
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({why}); check it or get it again") from error


class PixelFile:
    """Images (N, H, W, C) that lie in a file one after the other, read by index from any thread.

    A file is held open and nothing of it in memory; one that is packed is unpacked into a temporary
    file that has no name.
    """

    def __init__(self, file: BinaryIO, offset: int, shape: tuple[int, ...], path: Path) -> None:
        self.shape, self._offset, self._path = shape, offset, path
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        """Shapes: (M,) -> uint8 (M, H, W, C). DataError where the file has been cut since."""
        out = np.empty((len(ids), *self.shape[1:]), np.uint8)
        length = math.prod(self.shape[1:])
        for row, i in zip(out, ids.tolist(), strict=True):
            with reading(self._path):
                data = os.pread(self._file, length, self._offset + i * length)
            if len(data) < length:
                raise DataError(f"{self._path}: was cut while it was read; get the file again")
            row.reshape(-1)[:] = np.frombuffer(data, np.uint8)
        return out


def open_pixel_file(stream: BinaryIO, shape: tuple[int, ...], path: Path, plain: bool) -> PixelFile:
    """The images that are all the rest of a stream; `plain` where it is the file at `path`."""
    size, offset = math.prod(shape), stream.tell()
    if plain:
        check_rest(os.fstat(stream.fileno()).st_size - offset, size, path)
        return PixelFile(stream, offset, shape, path)
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(Limited(stream, size + 1), file, _CHUNK_BYTES)
        file.flush()
        check_rest(file.tell(), size, path)
        return PixelFile(file, 0, shape, path)


class Limited(io.RawIOBase):
    """The first `limit` bytes of a stream: a short file that declares little must not unpack to
    all that it holds."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(wanted) if wanted else b""
        self._left -= len(data)
        return data


def check_rest(found: int, size: int, path: Path) -> None:
    """DataError where a file has not the bytes that it declares."""
    if found != size:
        says = f"only {found:,}" if found < size else "more"
        raise DataError(f"{path}: {says} bytes of data, expected {size:,}; get the file again")


def read_lines(path: Path) -> tuple[str, ...]:
    with reading(path):
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    check_names(names, path)
    return names


def check_names(names: tuple[str, ...], path: Path) -> None:
    if len(set(names)) < max(2, len(names)):
        raise DataError(
            f"{path}: {len(names)} class names, {len(set(names))} different; "
            "expected at least two, each once"
        )
