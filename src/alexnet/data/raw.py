"""What every reader of raw data returns, and the checks that they share.

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alexnet.errors import DataError

_CHUNK_BYTES = 1 << 20

# What people call the folders of a split, in any case.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(folder: str) -> str | None:
    """train, val or test, where a folder is called that or as people call it."""
    return _SPLITS.get(folder.casefold())


@dataclass(frozen=True)
class Part:
    """One named part of a source. labels: (N,) int64, images: (N, H, W, C) uint8, N files, or N
    images of one stored size that are read by index."""

    labels: np.ndarray
    images: "np.ndarray | tuple[Path, ...] | Stored"


class Stored(Protocol):
    """Images of one size that are decoded when asked for. shape is (N, size, size, C)."""

    shape: tuple[int, ...]

    def read(self, ids: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Source:
    """Where raw data lies and what it holds; pixels and labels are read only by `load`.

    `kind` is digits, idx, cifar10, packed or folder; `path` is absolute, "" for digits; `parts` are
    among train, val and test, or just "all" where nobody has split the data. `load(part)` raises
    DataError for an unknown part, damage, or a label without a class. A packed source brings its
    own digest, and the `Statistics` of its training part.
    """

    kind: str
    path: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    load: Callable[[str], Part]
    digest: str = ""
    statistics: Any = None


def make_source(
    kind: str, path: Path | str, classes: tuple[str, ...], readers: Mapping[str, Callable[[], Part]]
) -> Source:
    where = str(path) or kind

    def load(name: str) -> Part:
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

    return Source(kind, str(path), classes, tuple(readers), load)


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


def read_exactly(stream: io.BufferedIOBase, size: int, path: Path) -> np.ndarray:
    """The rest of a stream that must hold `size` bytes, (size,) uint8; reads one byte more at most.

    In chunks: a short file that declares gigabytes must not make us fill them.
    """
    data = np.empty(size, np.uint8)
    done = 0
    while done < size and (chunk := stream.read(min(_CHUNK_BYTES, size - done))):
        data[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    if done < size or stream.read(1):
        found = f"only {done:,}" if done < size else "more"
        raise DataError(f"{path}: {found} bytes of data, expected {size:,}; get the file again")
    return data


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
