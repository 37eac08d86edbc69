"""Fetch a published data set: several mirrors, resumed downloads, checksums before use."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.errors import DataError, Unavailable, UsageError

OnProgress = Callable[[int, int | None], None]
"""Called with (bytes done so far, bytes in total) over all files of the data set."""

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A published file: exactly `size` bytes with this SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class PublishedSet:
    """`mirrors` are base addresses, ending in /, of which any serves every file."""

    mirrors: tuple[str, ...]
    files: tuple[RemoteFile, ...]


PUBLISHED_SETS: dict[str, PublishedSet] = {
    "mnist": PublishedSet(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            RemoteFile(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    ),
    "fashion-mnist": PublishedSet(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        (
            RemoteFile(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    ),
    "cifar10": PublishedSet(
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        (
            RemoteFile(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
}


def fetch_data_set(
    name: str,
    *,
    known: Mapping[str, PublishedSet] = PUBLISHED_SETS,
    cache: Path | None = None,
    offline: bool = False,
    mirrors: Sequence[str] | None = None,
    progress: OnProgress | None = None,
    timeout_s: float = 30.0,
) -> Path:
    """The folder with the files of data set `name`, downloaded where they are not there yet.

    `known` are the data sets by name. The folder is `cache`/`name`, `cache` by default
    `cache_dir()`. `mirrors` replaces the data set's own base addresses. A download that was cut off
    goes on where it stopped.

    UsageError: unknown name. Unavailable: offline, or no mirror answers. DataError: a file with
    a wrong checksum, or a folder that cannot be used.
    """
    if name not in known:
        raise UsageError(f"{name!r} is no data set to fetch; choose from {', '.join(known)}")
    data = known[name]
    folder = (cache or cache_dir()) / name
    try:
        missing = [file for file in data.files if not _present(folder, file)]
        if offline and missing:
            raise _by_hand(name, "offline", folder, missing)
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(file.size for file in data.files)
        while missing:
            done = total - sum(file.size for file in missing)

            def report(size: int, before: int = done) -> None:
                if progress:
                    progress(before + size, total)

            urls = [base + missing[0].name for base in mirrors or data.mirrors]
            try:
                _fetch_file(urls, folder, missing[0], report, timeout_s)
            except _MirrorError as error:
                raise _by_hand(name, str(error), folder, missing) from error
            del missing[0]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be used ({error.strerror}); choose another cache folder"
        ) from error
    return folder


class _MirrorError(Exception):
    """A mirror did not deliver; the next one may."""


def cache_dir() -> Path:
    """Where data sets are kept: $XDG_CACHE_HOME/alexnet, else ~/.cache/alexnet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "alexnet"


def _by_hand(name: str, why: str, folder: Path, missing: Sequence[RemoteFile]) -> Unavailable:
    files = ", ".join(file.name for file in missing)
    return Unavailable(f"{name} cannot be fetched ({why}); put {files} into {folder}")


def _present(folder: Path, file: RemoteFile) -> bool:
    path = folder / file.name
    if not path.exists():
        return False
    if (got := _sha256(path)) != file.sha256:
        raise DataError(f"{path}: SHA-256 {got}, expected {file.sha256}; delete it and fetch again")
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _fetch_file(
    urls: Sequence[str],
    folder: Path,
    file: RemoteFile,
    report: Callable[[int], None],
    timeout_s: float,
) -> None:
    """One file from the first mirror that has it; after a failure its `.part` stays for later."""
    part = folder / f"{file.name}.part"
    failures: list[str] = []
    wrong = ""
    waiting = list(urls)
    while waiting:
        url = waiting.pop(0)
        resumed = part.exists()
        try:
            _download(url, part, file.size, report, timeout_s)
        except _MirrorError as error:
            failures.append(f"{url}: {error}")
            continue
        if (got := _sha256(part)) == file.sha256:
            os.replace(part, folder / file.name)
            return
        part.unlink()
        wrong = f"{url}: SHA-256 {got}, expected {file.sha256}; fetch from another mirror"
        if resumed:  # the fault may lie in the bytes that were there before
            waiting.insert(0, url)
    if wrong:
        raise DataError(wrong)
    raise _MirrorError("; ".join(failures))


def _download(
    url: str, part: Path, size: int, report: Callable[[int], None], timeout_s: float
) -> None:
    """Complete `part` to `size` bytes, flushed to the disk."""
    part.touch()
    done = part.stat().st_size
    with part.open("r+b") as out:
        if done < size:
            for offset, chunk in _chunks(url, done, size, timeout_s):
                done = offset + len(chunk)
                if done > size:
                    raise _MirrorError(f"sends more than {size:,} bytes")
                out.seek(offset)
                out.write(chunk)
                report(done)
        if done < size:
            raise _MirrorError(f"stopped after {done:,} of {size:,} bytes")
        out.flush()
        os.fsync(out.fileno())


def _chunks(url: str, start: int, size: int, timeout_s: float) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a file from `start` on, or from 0 where the server knows no ranges.

    Only the network's errors become _MirrorError: what the caller does with a chunk, such as
    filling the disk, fails outside.
    """
    headers = {"User-Agent": "alexnet"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            offset = 0
            if response.status == 206:
                offset = start
                if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                    raise _MirrorError("sends another range than asked for")
            length = response.headers.get("Content-Length")
            if length is not None and offset + int(length) != size:
                raise _MirrorError(f"offers {offset + int(length):,} bytes, expected {size:,}")
            while chunk := response.read(_CHUNK_BYTES):
                yield offset, chunk
                offset += len(chunk)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            raise _MirrorError(f"HTTP {error.code}") from error
        yield from _chunks(url, 0, size, timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise _MirrorError(" ".join(str(why).split()) or type(error).__name__) from error
