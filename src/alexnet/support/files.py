"""Safe files: atomic writes, checked reads, and locks of folders."""

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
"""Largest JSON file that is read, in bytes; recipes, manifests and states are far smaller."""

_FREE_SPACE = "free some space or choose another folder; what was there before is untouched"
_MAKE_WRITABLE = "make the folder writable or choose another folder"
_REMEDIES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: _FREE_SPACE,
    errno.EACCES: _MAKE_WRITABLE,
    errno.EPERM: _MAKE_WRITABLE,
    errno.EROFS: _MAKE_WRITABLE,
}


def file_error(verb: str, path: Path, error: OSError) -> CheckpointError:
    """The error to raise where the operating system refuses to `verb` (read, write, ...) `path`."""
    remedy = _REMEDIES.get(error.errno or 0, "check that path or choose another folder")
    return CheckpointError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}")


def fsync_dir(path: Path) -> None:
    """Write the file names of a folder through to the disk. Raises OSError."""
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
    """Write a whole file as `open_atomic` does. Text is encoded as UTF-8; characters that UTF-8
    does not have are written as escapes."""
    with open_atomic(path) as file:
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` at the end of the context. Readers see the old
    file or the new one, never a part. After an exception the old file stays.

    The folder must exist. Raises CheckpointError where the operating system refuses.
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
        raise file_error("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, atomically. Raises CheckpointError like `write_atomic`."""
    write_atomic(path, to_json_text(value))


def to_json_text(value: Mapping[str, Any]) -> str:
    """The text of a JSON file with this object, indented."""
    return json.dumps(value, indent=2) + "\n"


def parse_json(data: bytes, source: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises CheckpointError, which names `source`, where `data` is not one or
    has a key twice."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a key occurs twice")
        return table

    try:
        value = json.loads(data, object_pairs_hook=refuse_duplicates)
        if not isinstance(value, dict):
            raise ValueError(f"it is a {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is damaged: expected one JSON object ({error}); restore it from a copy"
        ) from error
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a file with a JSON object. Raises CheckpointError where it is missing, damaged or larger
    than JSON_LIMIT."""
    return parse_json(read_bytes(path, JSON_LIMIT), path)


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a whole regular file. Raises CheckpointError where it is missing or longer than `limit`
    bytes. Pipes and devices count as missing, since opening one could wait for ever."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; expected a file; restore it from a copy")
        with open(path, "rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise file_error("read", path, error) from error
    if limit is not None and len(data) > limit:
        raise CheckpointError(
            f"{path} is damaged: expected at most {limit} bytes; restore it from a copy"
        )
    return data


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. Raises CheckpointError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise file_error("read", path, error) from error


class DirLock:
    """Locks a folder against other processes: `with DirLock(folder): ...`.

    Raises UsageError on entry where another process has the lock. The operating system releases a
    lock when its process ends in any way, so no lock is ever stale.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> Self:
        path = self._folder / ".lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise file_error("lock", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise file_error("lock", path, error) from error
            raise UsageError(
                f"another process (pid {holder}) is using {self._folder}; "
                "wait for it, stop it, or choose another folder"
            ) from None
        self._descriptor = descriptor
        _lock_descriptors.add(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        # A forked child has closed it already: by now the number may be that of another file.
        if self._descriptor in _lock_descriptors:
            _lock_descriptors.remove(self._descriptor)
            os.close(self._descriptor)


_lock_descriptors: set[int] = set()


def _release_locks() -> None:
    while _lock_descriptors:
        os.close(_lock_descriptors.pop())


# A flock lasts as long as any copy of its descriptor. Forked workers of a killed trainer would keep
# its run locked until they end.
os.register_at_fork(after_in_child=_release_locks)
