"""CIFAR-10 as published: the binary and the Python version, unpacked or in their archives."""

import io
import lzma
import pickle
import tarfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alexnet.data.raw import LabelledImages, Source, check_names, make_source, reading
from alexnet.errors import DataError

_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_CIFAR10_BATCHES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_CIFAR10_PIXELS = 3 * 32 * 32
_CIFAR10_PLACES = (
    *("", "cifar-10-batches-bin", "cifar-10-batches-py"),
    *("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MAX_MEMBER_BYTES = 256 << 20  # one CIFAR-10 batch has 31 MB


def open_cifar10(root: Path) -> Source | None:
    if root.name.endswith((".bin", ".bin.xz")) and root.is_file():
        return make_source("cifar10", root, _CIFAR10, {"all": lambda: _read_loose(root)})
    for place in _CIFAR10_PLACES:
        store = root / place
        if not (store.is_dir() or (store.is_file() and store.name.endswith(_TAR_SUFFIXES))):
            continue
        metas = ("batches.meta.txt", "batches.meta")
        entries = _entries(store, metas)
        for suffix, decode in ((".bin", _decode_records), ("", _decode_pickle)):
            parts = {
                part: tuple(batch + suffix for batch in batches)
                for part, batches in _CIFAR10_BATCHES.items()
            }
            if entries.keys().isdisjoint(parts["train"]):
                continue
            missing = [name for name in parts["train"] if name not in entries]
            if missing:
                raise DataError(f"{store}: {', '.join(missing)} missing; unpack CIFAR-10 again")
            readers = {
                part: partial(_read_batches, store, names, decode)
                for part, names in parts.items()
                if not entries.keys().isdisjoint(names)
            }
            return make_source("cifar10", root, _cifar10_classes(store, entries), readers)
    return None


def _entries(store: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Regular files of a folder or tar by base name: the content of the wanted ones, else b""."""
    found = {}
    with reading(store):
        if store.is_dir():
            for file in store.iterdir():
                if file.is_file():
                    found[file.name] = b""
                    if file.name in wanted:
                        _check_size(file, file.stat().st_size)
                        found[file.name] = file.read_bytes()
            return found
        with tarfile.open(store, "r|*") as archive:
            # CIFAR-10 has nine members: stop early in the tars of other things.
            for member in islice(archive, 100):
                name = PurePosixPath(member.name).name
                if member.isreg():
                    found[name] = b""
                    if name in wanted and (content := archive.extractfile(member)):
                        _check_size(store / name, member.size)
                        found[name] = content.read()
    return found


def _check_size(path: Path, size: int) -> None:
    if size > _MAX_MEMBER_BYTES:
        raise DataError(
            f"{path}: {size:,} bytes, expected at most {_MAX_MEMBER_BYTES:,}; get it again"
        )


def _read_batches(
    store: Path, names: tuple[str, ...], decode: Callable[[bytes, Path], LabelledImages]
) -> LabelledImages:
    entries = _entries(store, names)
    batches = [decode(entries[name], store / name) for name in names]
    return LabelledImages(
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate([np.asarray(batch.images) for batch in batches]),
    )


def _read_loose(path: Path) -> LabelledImages:
    with reading(path), lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
        content = file.read(_MAX_MEMBER_BYTES + 1)
    _check_size(path, len(content))
    return _decode_records(content, path)


def _decode_records(content: bytes, path: Path) -> LabelledImages:
    """Records of one label byte, then the red, green and blue planes, row by row."""
    length = 1 + _CIFAR10_PIXELS
    if not content or len(content) % length:
        raise DataError(
            f"{path}: {len(content):,} bytes, expected whole records of {length:,}; "
            "get the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return _planes_part(records[:, 0], records[:, 1:])


def _planes_part(labels: np.ndarray, planes: np.ndarray) -> LabelledImages:
    """labels (N,), planes (N, 3072) channel first -> images (N, 32, 32, 3)."""
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return LabelledImages(labels.astype(np.int64), np.ascontiguousarray(images))


def _decode_pickle(content: bytes, path: Path) -> LabelledImages:
    batch = _unpickle(content, path)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (_CIFAR10_PIXELS,)
        and isinstance(labels, list)
        and len(labels) == len(pixels)
        and all(isinstance(label, int) and 0 <= label < 256 for label in labels)
    ):
        raise DataError(
            f"{path}: expected 'data' (N, {_CIFAR10_PIXELS}) bytes with N 'labels'; "
            "get the file again"
        )
    return _planes_part(np.array(labels, np.int64), pixels)


def _unpickle(content: bytes, path: Path) -> dict[str, Any]:
    try:
        found = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # A damaged pickle can raise anything while it is taken apart.
    except Exception as error:
        raise DataError(f"{path}: not a CIFAR-10 pickle ({error!r}); get the file again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: a pickled {type(found).__name__}, expected a dict; get it again")
    return found


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain values and numpy arrays; any other name in the stream is refused.

    Even numpy's own constructors are stood in for: each array starts empty here, whatever
    arguments the file passes, and takes its content from numpy's checked __setstate__.
    """

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return lambda *_: np.empty(0, np.uint8)
            case "numpy", "ndarray":
                return None  # only ever an argument of _reconstruct
            case "numpy", "dtype":
                # The integers old pickles pass for align and copy make some numpy versions warn.
                return lambda code, *_: np.dtype(code, copy=True)
            case "_codecs", "encode":
                return lambda text, _: text.encode("latin1")
        raise DataError(f"the pickle asks for {module}.{name}, which no image needs; refused")


def _cifar10_classes(store: Path, entries: dict[str, bytes]) -> tuple[str, ...]:
    text, pickled = store / "batches.meta.txt", store / "batches.meta"
    if text.name in entries:
        names = tuple(entries[text.name].decode("latin1").split())
    elif pickled.name in entries:
        names = tuple(map(str, _unpickle(entries[pickled.name], pickled).get("label_names", ())))
    else:
        return _CIFAR10
    check_names(names, store)
    return names
