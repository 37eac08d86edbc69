"""What a tar or a zip holds, read in place: nothing is unpacked.

Nothing in an archive is trusted. Only regular files are read, as bytes in memory. A link, a device,
a path that leaves the archive, a name that occurs twice or differs from another only by case, and
an archive that was cut are one clear DataError each.
"""

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.image_set import reading
from alexnet.data.layout import is_shown
from alexnet.errors import DataError

FILE_LIMIT = 256 << 20  # bytes of the largest image file
MEMBERS_LIMIT = 20_000_000
NAME_LIMIT = 4096
SUFFIXES = (".tar", ".zip")
_BLOCK = 512  # of a tar
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # the first bytes of .gz, .bz2 and .xz
_MAGIC = 6


@dataclass
class ArchiveFiles:
    """Files of an archive by name, sorted: a `Listing`.

    `names` are paths inside it with "/" between, `folders` those of all its folders. `offsets` and
    `sizes` are bytes: where a file of a tar begins, or -1 in a zip, and how long it is.
    """

    root: Path
    names: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    folders: list[str] = field(default_factory=list)
    prefix: str = ""
    _local: threading.local = field(default_factory=threading.local, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _file: int = field(default=-1, repr=False)

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    def stamp(self) -> int:
        return self.root.stat().st_mtime_ns

    def on_disk(self, index: int) -> Path:
        return self.root

    def read(self, index: int) -> bytes:
        """The bytes of a file. DataError where it cannot be read or is larger than FILE_LIMIT."""
        name, size = self.names[index], int(self.sizes[index])
        if size > FILE_LIMIT:
            raise DataError(f"{self.root}: {name} has {size:,} bytes; the limit is {FILE_LIMIT:,}")
        with reading(self.root / name):
            if self.offsets[index] >= 0:
                data = os.pread(self._descriptor(), size, int(self.offsets[index]))
                if len(data) < size:
                    raise DataError(f"{self.root}: was cut while {name} was read; get it again")
                return data
            archive = self._zip()
            stored = name if name in archive.NameToInfo else f"./{name}"  # see _listing
            with archive.open(stored) as member:
                data = member.read(size + 1)
            if len(data) != size:
                raise DataError(
                    f"{self.root}: {name} does not unpack to the {size:,} bytes that it declares"
                )
            return data

    source = read

    def _descriptor(self) -> int:
        with self._lock:
            if self._file < 0:
                self._file = os.open(self.root, os.O_RDONLY)
        return self._file

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _zip(self) -> zipfile.ZipFile:
        # One for each thread and process: a fork shares the place in a file that is open.
        if getattr(self._local, "owner", None) != os.getpid():
            self._local.zip, self._local.owner = zipfile.ZipFile(self.root), os.getpid()
        return self._local.zip  # type: ignore[no-any-return]


def is_archive(root: Path) -> bool:
    """Whether a file is a tar or a zip, also a damaged one that is called so."""
    with reading(root):
        if root.suffix.lower() in SUFFIXES:
            return True
        return tarfile.is_tarfile(root) or zipfile.is_zipfile(root)


def list_archive(root: Path) -> ArchiveFiles:
    """The files in a tar (also of tars, as ILSVRC's) or a zip."""
    with reading(root):
        if tarfile.is_tarfile(root):
            return _listing(root, _tar(root, 0, root.stat().st_size, "", root))
        if zipfile.is_zipfile(root):
            return _zip(root)
    if root.suffix.lower() in SUFFIXES:
        raise DataError(f"{root}: damaged or cut short: get it again")
    raise DataError(f"{root}: no folder, tar or zip; name one that holds images")


def _zip(root: Path) -> ArchiveFiles:
    with zipfile.ZipFile(root) as archive:
        members = []
        for info in archive.infolist():
            kind = info.external_attr >> 28  # the type bits of a Unix mode, 0 where there is none
            if kind not in (0, 8) and not info.is_dir():
                raise DataError(
                    f"{root}: {info.filename!r} is no regular file; get the archive again"
                )
            members.append((info.filename, -1, info.file_size))
        return _listing(root, members)


def _tar(
    root: Path, start: int, size: int, folder: str, path: Path
) -> Iterator[tuple[str, int, int]]:
    """Members of the tar that lies at `start` of a file; tars in it, one level deep, are opened.

    Folders, and such tars, are listed too: their names end in "/".
    """
    with open(root, "rb") as file:
        window = _Window(file, start, size)
        try:
            archive = tarfile.TarFile(fileobj=window)  # type: ignore[arg-type]
        except tarfile.TarError as error:
            file.seek(start)
            why = f"not a plain tar ({error})"
            if file.read(_MAGIC).startswith(_COMPRESSED):
                why = "a compressed tar, which cannot be read image by image"
            raise DataError(f"{path}: {why}: unpack it first, or make a zip of it") from None
        with archive:
            for member in archive:
                name = f"{folder}{member.name}"
                if member.isdir():
                    yield f"{name}/", -1, 0
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(
                        f"{root}: {name!r} is a link or a device, which no image set "
                        "holds: get the archive again from where it is published"
                    )
                at = start + member.offset_data
                if member.offset_data + member.size > size:
                    raise DataError(f"{root}: cut short within {name!r}; get it again")
                if member.name.endswith(".tar") and not folder:
                    inner = member.name.removesuffix(".tar").removeprefix("./") + "/"
                    yield inner, -1, 0
                    yield from _tar(root, at, member.size, inner, root / member.name)
                else:
                    yield name, at, member.size
            window.seek(archive.offset)
            if window.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(
                    f"{path}: has no end: it was cut short between two files; get it again"
                )


class Limited(io.RawIOBase):
    """The first `limit` bytes of a stream: a short file that declares little must not unpack to
    all that it holds."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        count = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(count) if count else b""
        self._left -= len(data)
        return data


class _Window:
    """A part of a file as a file: a tar within a tar."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.at = file, start, size, 0

    def read(self, count: int = -1) -> bytes:
        left = self.size - self.at
        count = left if count < 0 else min(count, left)
        self.file.seek(self.start + self.at)
        data = self.file.read(max(count, 0))
        self.at += len(data)
        return data

    def seek(self, place: int, whence: int = 0) -> int:
        self.at = place + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at


def _listing(root: Path, members: Iterable[tuple[str, int, int]]) -> ArchiveFiles:
    """Sorted by name, once the names are safe. Names that end in "/" are folders."""
    rows, folders, full = [], set[str](), set[str]()  # full: folders that hold something
    for name, offset, size in members:
        name = name.removeprefix("./")
        _check_name(root, name)
        *above, last = name.rstrip("/").split("/")
        seen = list(takewhile(is_shown, above))
        for at in range(len(seen), 0, -1):
            if (folder := "/".join(seen[:at])) in full:
                break
            full.add(folder)
        if len(seen) == len(above) and last and is_shown(last):
            if name.endswith("/"):
                folders.add(name.rstrip("/"))
            else:
                rows.append((name, offset, size))
        if len(rows) + len(folders) > MEMBERS_LIMIT:
            raise DataError(f"{root}: more than {MEMBERS_LIMIT:,} files; name a part of it")
    rows.sort()
    folded: dict[str, str] = {}
    for name in sorted(full | folders):
        if (other := folded.setdefault(name.casefold(), name)) is not name:
            raise DataError(
                f"{root}: the folders {other!r} and {name!r} differ only by case; make them one"
            )
    folded = {}
    for name, _, _ in rows:
        if (other := folded.setdefault(name.casefold(), name)) is not name:
            what = "occurs twice" if other == name else f"and {other!r} differ only by case"
            raise DataError(f"{root}: {name!r} {what}; get the archive again, or rename one")
    names = [name for name, _, _ in rows]
    offsets = np.array([offset for _, offset, _ in rows], np.int64)
    sizes = np.array([size for _, _, size in rows], np.int64)
    return ArchiveFiles(root, names, offsets, sizes, sorted(full | folders))


def _check_name(root: Path, name: str) -> None:
    parts = name.split("/")
    if "\\" in name:
        raise DataError(
            f"{root}: {name!r} has \\ between its folders: pack the archive again with /"
        )
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise DataError(f"{root}: {name!r} leads out of the archive; get it again")
    if len(name) > NAME_LIMIT:
        raise DataError(f"{root}: a name of {len(name):,} letters ({name[:40]!r}...); get it again")
