"""From a path to labelled files: class-folder trees, arrays, and what `ilsvrc` knows."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data import ilsvrc
from alexnet.data.check import endings
from alexnet.data.images import IMAGE_SUFFIXES, is_image
from alexnet.data.labelled import Arranged, make_files
from alexnet.data.listing import Listing, list_files
from alexnet.data.raw import PixelFile, class_names
from alexnet.data.sources import find_arrays
from alexnet.errors import DataError
from alexnet.terminal import say


def find_labelled_files(root: Path) -> Arranged:
    """Recognises a source of images. DataError where it is none, or contradicts itself."""
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; name a folder or an archive of images")
    if arrays := _arrays(root):
        return arrays
    if root.is_dir() and (kind := ilsvrc.recognise(root)):
        return ilsvrc.official(kind, root)
    listing = list_files(root)
    if any(ilsvrc.KAGGLE in name for name in listing.names):
        return ilsvrc.kaggle(root, listing)
    return _tree(root, listing)


@dataclass(frozen=True)
class _Arrays:
    """The images of IDX files or CIFAR's archives, each as the bytes of an uncompressed file."""

    images: NDArray[np.uint8] | PixelFile
    names: list[str]
    sizes: NDArray[np.int64]
    stamp: int

    def read(self, index: int) -> bytes:
        height, width, channels = self.images.shape[1:]
        header = f"P{6 if channels == 3 else 5} {width} {height} 255\n"
        return header.encode() + bytes(self.images[np.array([index])].tobytes())


def _arrays(root: Path) -> Arranged | None:
    source = find_arrays(root)
    if source is None:
        return None
    parts, stamp = {}, list_files(root).stamp if root.is_dir() else root.stat().st_mtime_ns
    for name in source.parts:
        part = source.load(name)
        assert isinstance(part.images, np.ndarray | PixelFile)
        count = len(part.labels)
        names = [f"{name}/{i:06d}.ppm" for i in range(count)]
        sizes = np.full(count, math.prod(part.images.shape[1:]), np.int64)
        rows = ((0, i, int(label)) for i, label in enumerate(part.labels))
        parts[name] = make_files((_Arrays(part.images, names, sizes, stamp),), rows)
    return Arranged(source.kind, root, source.classes, parts)


def _tree(root: Path, listing: Listing) -> Arranged:
    by_split: dict[str, list[tuple[int, str]]] = {}
    for i, name in enumerate(listing.names):
        if is_image(name):
            split, label = listing.place(name)
            by_split.setdefault(split, []).append((i, label))
    if not by_split:
        if (root / "manifest.json").is_file():
            raise DataError(f"{root}: a packed set already: train on it as it is")
        raise DataError(f"{root}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    layout = listing.layout
    if layout.contradiction:
        raise DataError(f"{root}: {layout.contradiction}")
    if taken := layout.taken():
        say(f"{root}: {taken}")
    if unlabelled := by_split.pop("unlabelled", ()):
        first = listing.names[unlabelled[0][0]]
        say(f"{root}: {len(unlabelled):,} images to predict, first {first}: not packed")
    if "all" in by_split and len(by_split) > 1:
        first = listing.names[by_split["all"][0][0]]
        raise DataError(
            f"{root}: {len(by_split['all']):,} images lie beside the splits, first {first}: move "
            "them into train, val or test, or out of the way"
        )
    main = by_split.get("train", by_split.get("all", []))
    if not main:
        raise DataError(f"{root}: has {', '.join(by_split)} but no train: add the folder train")
    for split, rows in by_split.items():
        if stray := [i for i, label in rows if not label]:
            raise DataError(
                f"{root}: {len(stray):,} images of {split} lie in no class folder, first "
                f"{listing.names[stray[0]]}: move them into one"
            )
    if layout.lacks:
        raise DataError(f"{root}: {layout.lacks}")
    classes = tuple(sorted({label for _, label in main if label}))
    if len(classes) < 2:
        raise DataError(
            f"{root}: one class cannot be classified, found {', '.join(classes)}: expected "
            "CLASS/*.jpg or train/CLASS/*.jpg with at least two classes"
        )
    parts = {}
    for split, rows in by_split.items():
        known = {label for _, label in rows}
        if unknown := sorted(known - set(classes)):
            raise DataError(
                f"{root}: {split} has the class {unknown[0]!r}, which train has not: add it there "
                "or take it out"
            )
        parts[split] = make_files((listing,), [(0, i, classes.index(label)) for i, label in rows])
    return Arranged("tree", root, class_names(classes), parts, others=endings(listing.names))
