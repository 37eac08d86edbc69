"""Files that are either whole or not there: atomic writes, checked reads, one writer per folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from alexnet.errors import CheckpointError, UsageError

JSON_LIMIT = 64 * 2**20
"""Largest JSON file read, in bytes; recipes, manifests and states stay far below it."""

_SPACE = "free some space or choose another folder; what was there before is untouched"
_RIGHTS = "make the folder writable or choose another folder"
_REMEDIES = {errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EFBIG: _SPACE} | {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
}


def cannot(verb: str, path: Path, error: OSError) -> CheckpointError:
    """The one-line error for an operating system fault while doing `verb` to `path`."""
    remedy = _REMEDIES.get(error.errno or 0, "check that path or choose another folder")
    return CheckpointError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}")


def fsync_dir(path: Path) -> None:
    """Make the names in `path` survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Write `data` to `path` and through to the disk; not atomic. Raises OSError."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8, with what is no text written out) at `path`, as `replacing`."""
    with replacing(path) as file:
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is at `path` afterwards: readers see the old one or the new, never a
    part, and where something is raised meanwhile the old one.

    Raises CheckpointError where the system refuses; its folder must exist.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_dir(path.parent)
    except OSError as error:
        raise cannot("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, atomically. Raises CheckpointError like `write_atomic`."""
    write_atomic(path, as_json(value))


def as_json(value: Mapping[str, Any]) -> str:
    """An object as the text of a JSON file, indented."""
    return json.dumps(value, indent=2) + "\n"


def parse_json(data: bytes, source: Path) -> dict[str, Any]:
    """The JSON object in `data`; CheckpointError names `source` if it is none or repeats a key."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a key occurs twice")
        return table

    try:
        value = json.loads(data, object_pairs_hook=unique)
        if not isinstance(value, dict):
            raise ValueError(f"found a {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is damaged: expected one JSON object ({error}); restore it from a copy"
        ) from error
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError if missing, damaged or over JSON_LIMIT."""
    return parse_json(read_bytes(path, JSON_LIMIT), path)


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """All of a regular file. Raises CheckpointError if it is missing or longer than `limit` bytes.

    Pipes and devices count as missing: opening one could wait for ever.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; expected a file; restore it from a copy")
        with open(path, "rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise cannot("read", path, error) from error
    if limit is not None and len(data) > limit:
        raise CheckpointError(
            f"{path} is damaged: expected at most {limit} bytes; restore it from a copy"
        )
    return data


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal. Raises CheckpointError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot("read", path, error) from error


class DirLock:
    """Keeps a second process out of a folder: `with DirLock(folder): ...`.

    Raises UsageError on entry while another holds it. The system frees it when its holder ends,
    however it ends, so a lock is never stale.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> Self:
        path = self._folder / ".lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise cannot("lock", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise cannot("lock", path, error) from error
            raise UsageError(
                f"another process (pid {holder}) is using {self._folder}; "
                "wait for it, stop it, or choose another folder"
            ) from None
        self._descriptor = descriptor
        _held.add(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        # A forked child has let go already; closing the number again would hit another file.
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


_held: set[int] = set()


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


# A flock lives as long as any copy of its descriptor: data loading workers forked by a killed
# trainer would keep the run locked until they notice.
os.register_at_fork(after_in_child=_let_go)
