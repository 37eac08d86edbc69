"""The images of a folder, a tar or a zip, one by one, without unpacking anything.

Nothing in an archive is trusted: only regular files are read, as bytes in memory; a link, a device,
a path that leaves the archive, a name that occurs twice or differs from another only by case, or an
archive that was cut, is one clear DataError.
"""

import os
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.images import is_image
from alexnet.data.layout import FoldersOfNames, Layout, find_layout, is_shown
from alexnet.data.raw import reading
from alexnet.errors import DataError

FILE_LIMIT = 256 << 20  # bytes of the largest image file
MEMBERS_LIMIT = 20_000_000
NAME_LIMIT = 4096
_BLOCK = 512  # of a tar


@dataclass
class Listing:
    """Files by name, sorted, each readable by itself from any thread.

    `names` are paths inside the root with "/" between; `offsets` and `sizes` are bytes in the
    archive (a plain tar), or -1 and the size where the file is opened by name (folder, zip).
    `stamp` is of the times at which the files were last changed, `empty` the folders without
    anything in them.
    """

    root: Path
    names: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stamp: int
    empty: list[str] = field(default_factory=list)
    _local: threading.local = field(default_factory=threading.local, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _file: int = field(default=-1, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def top(self) -> int:
        """How many folders lead to all images: photos/cat/1.jpg and photos/dog/2/3.jpg share 1."""
        places = [name.split("/")[:-1] for name in self.names if is_image(name)] or [[]]
        pairs = zip(min(places), max(places), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    @cached_property
    def layout(self) -> Layout:
        """Where the parts and classes lie."""
        return find_layout(FoldersOfNames(self.names, self.empty))

    def place(self, name: str) -> tuple[str, str]:
        """(part, class) that the path of a file says, see `Layout.place`."""
        return self.layout.place(name, self.top)

    def read(self, index: int) -> bytes:
        """One file's bytes. DataError where it cannot be read or is larger than FILE_LIMIT."""
        name, size = self.names[index], int(self.sizes[index])
        if size > FILE_LIMIT:
            raise DataError(f"{self.root}: {name} has {size:,} bytes; the limit is {FILE_LIMIT:,}")
        with reading(self.root / name):
            if self.offsets[index] >= 0:
                return os.pread(self._descriptor(), size, int(self.offsets[index]))
            if self.root.is_dir():
                if not os.path.isfile(self.root / name):  # to open a pipe would never end
                    raise DataError(f"{self.root / name}: a link to nothing, or no regular file")
                with open(self.root / name, "rb") as file:
                    return file.read(FILE_LIMIT + 1)
            archive = self._zip()
            stored = name if name in archive.NameToInfo else f"./{name}"  # see _listing
            with archive.open(stored) as member:
                data = member.read(size + 1)
            if len(data) != size:
                raise DataError(
                    f"{self.root}: {name} does not unpack to the {size:,} bytes it says"
                )
            return data

    def _descriptor(self) -> int:
        with self._lock:
            if self._file < 0:
                self._file = os.open(self.root, os.O_RDONLY)
        return self._file

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _zip(self) -> zipfile.ZipFile:
        if not hasattr(self._local, "zip"):
            self._local.zip = zipfile.ZipFile(self.root)
        return self._local.zip  # type: ignore[no-any-return]


def list_files(root: Path) -> Listing:
    """What lies in a folder, a tar (also of tars, as ILSVRC's) or a zip."""
    if root.is_dir():
        return _folder(root)
    with reading(root):
        if tarfile.is_tarfile(root):
            return _listing(root, _tar(root, 0, root.stat().st_size, "", root))
        if zipfile.is_zipfile(root):
            return _zip(root)
    if root.suffix.lower() in (".tar", ".zip"):
        raise DataError(f"{root}: damaged or cut short: get it again")
    raise DataError(f"{root}: no folder, tar or zip; name one that holds images")


def _folder(root: Path) -> Listing:
    def fail(error: OSError) -> None:
        raise error  # os.walk alone would pass over a folder it cannot read

    found, stamp = [], 0
    # The real folders that lead to each: a link back to one of them would never end.
    within: dict[str, tuple[str, ...]] = {str(root): (os.path.realpath(root),)}
    with reading(root):
        for place, folders, names in os.walk(root, onerror=fail, followlinks=True):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in list(folders):
                real = os.path.realpath(os.path.join(place, name))
                if real in within[place]:
                    folders.remove(name)
                else:
                    within[os.path.join(place, name)] = (*within[place], real)
            inside = os.path.relpath(place, root)
            if inside != ".":
                found.append((f"{inside}/".replace(os.sep, "/"), -1, 0))
            for name in names:
                full = os.path.join(place, name)
                is_file = os.path.isfile(full)
                if is_file or is_image(name):  # a link to nothing is to be named, not passed over
                    short = name if inside == "." else f"{inside}/{name}"
                    about = os.stat(full) if is_file else os.lstat(full)
                    size = about.st_size if is_file else 0
                    found.append((short.replace(os.sep, "/"), -1, size))
                    if name[0] != ".":
                        stamp = (stamp + about.st_mtime_ns) % (1 << 62)
    listing = _listing(root, found)
    listing.stamp = stamp
    return listing


def _zip(root: Path) -> Listing:
    with zipfile.ZipFile(root) as archive:
        found = []
        for info in archive.infolist():
            kind = info.external_attr >> 28  # the type bits of a Unix mode, 0 where there is none
            if kind not in (0, 8) and not info.is_dir():
                raise DataError(
                    f"{root}: {info.filename!r} is no regular file; get the archive again"
                )
            found.append((info.filename, -1, info.file_size))
        return _listing(root, found)


def _tar(
    root: Path, start: int, size: int, inside: str, path: Path
) -> Iterator[tuple[str, int, int]]:
    """Members of the tar that lies at `start` of a file; tars in it, one level deep, are opened.

    Folders, and such tars, are given too, with "/" at the end of their names.
    """
    with open(root, "rb") as file:
        window = _Window(file, start, size)
        try:
            archive = tarfile.TarFile(fileobj=window)  # type: ignore[arg-type]
        except tarfile.TarError as error:
            raise DataError(
                f"{path}: not a plain tar ({error}); unpack a compressed one first"
            ) from None
        with archive:
            for member in archive:
                name = f"{inside}{member.name}"
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
                if member.name.endswith(".tar") and not inside:
                    folder = member.name.removesuffix(".tar").removeprefix("./") + "/"
                    yield folder, -1, 0
                    yield from _tar(root, at, member.size, folder, root / member.name)
                else:
                    yield name, at, member.size
            window.seek(archive.offset)
            if window.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(
                    f"{path}: has no end: it was cut short between two files; get it again"
                )


class _Window:
    """Part of a file as a file, for a tar inside a tar."""

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


def _listing(root: Path, found: Iterable[tuple[str, int, int]]) -> Listing:
    """Sorted by name, once the names are safe. Names that end in "/" are folders."""
    rows, folders, full = [], set[str](), set[str]()  # full: folders with anything in them
    for name, offset, size in found:
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
    empty = sorted(folders - full)
    return Listing(root, names, offsets, sizes, root.stat().st_mtime_ns, empty)


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
