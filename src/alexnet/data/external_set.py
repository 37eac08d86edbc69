"""Labelled images from outside a network's training data: read whole, classes joined by name.

A training set is cut into splits; an external set never is. All images of class folders count, or
all of one part where the set has parts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet.data.dataset import Dataset
from alexnet.data.image_set import UNLABELLED, ImageFiles, ImageSet, LabelledImages, join_files
from alexnet.data.splits import Split
from alexnet.errors import DataError, UsageError
from alexnet.recipe import Recipe
from alexnet.support.options import option

ALL = "all"
DEFAULT_PARTS = ("test", "val")  # where none is named, the first of these that exists
NAMED = 5  # classes in a message

UNKNOWN = -2  # the label of a class that the network does not know (-1: an unlabelled image)


class ExternalSet(Dataset):
    """One part of a labelled image set, or all of it, with the labels of a network's classes.

    `part` is train, val, test or all; None takes test, else val, else all. `split_name` is the part
    that was taken, `available` the parts of the set (none for class folders alone). `absent` are
    the network's classes without an image here, `ignored` counts the images of classes that it does
    not know. DataError for such a class (unless `ignore_unknown`), for a part without labels, and
    where no image is left; UsageError for a part that does not exist.
    """

    to_train = False

    def __init__(
        self,
        image_set: ImageSet,
        recipe: Recipe,
        classes: Sequence[str],
        part: str | None = None,
        *,
        ignore_unknown: bool = False,
    ) -> None:
        self.available = tuple(name for name in image_set.parts if name != ALL)
        self.split_name = self._choose(image_set, part)
        chosen = self.available if self.split_name == ALL and self.available else [self.split_name]
        self._loaded = {name: image_set.read(name) for name in chosen}
        for name, loaded in self._loaded.items():
            if (loaded.labels == UNLABELLED).any():
                raise DataError(
                    f"{image_set.path}: the labels of {name} are not known: use another "
                    f"{option('split')}"
                )
        labels = self._join(image_set, classes, ignore_unknown)
        joined = LabelledImages(labels, _chain([part.images for part in self._loaded.values()]))
        super().__init__(
            replace(
                image_set,
                classes=tuple(classes),
                parts=(self.split_name,),
                read=lambda name: joined,
                statistics=None,
            ),
            recipe,
        )
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        self.absent = tuple(name for name, n in zip(classes, counts, strict=True) if not n)

    def _choose(self, image_set: ImageSet, part: str | None) -> str:
        where = image_set.where
        if part is None:
            return next((name for name in DEFAULT_PARTS if name in self.available), ALL)
        if part == ALL or part in self.available:
            return part
        if not self.available:
            raise UsageError(
                f"{option('split', part)}: {where} has no parts, its class folders are read "
                f"whole: leave {option('split')} out"
            )
        raise UsageError(
            f"{option('split', part)}: {where} has {', '.join(self.available)}: name one of "
            "these, or all"
        )

    def _join(
        self, image_set: ImageSet, classes: Sequence[str], ignore_unknown: bool
    ) -> NDArray[np.int64]:
        """The network's label of each image, by class names. Sets `ignored`."""
        places = {name: label for label, name in enumerate(classes)}
        if all(name.isdecimal() for name in classes):  # class 7 may be named 07
            places |= {str(int(name)): label for label, name in enumerate(classes)}
            named = [str(int(n)) if n.isdecimal() else n for n in image_set.classes]
        else:
            named = list(image_set.classes)
        table = np.array([places.get(name, UNKNOWN) for name in named], np.int64)
        labels = np.concatenate([part.labels for part in self._loaded.values()])
        counts = np.bincount(labels, minlength=len(table))
        unknown = [i for i in np.flatnonzero(table == UNKNOWN).tolist() if counts[i]]
        self.ignored = {image_set.classes[i]: int(counts[i]) for i in unknown}
        where, images = image_set.where, sum(self.ignored.values())
        if images == len(labels):
            raise DataError(
                f"{where}: none of its classes is one that the network knows: it has "
                f"{name_some(list(self.ignored))}, the network knows {name_some(classes)}: rename "
                f"the folders, or name other images with {option('data')}"
            )
        if unknown and not ignore_unknown:
            raise DataError(
                f"{where}: the network does not know the class {image_set.classes[unknown[0]]!r}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + f"; it knows {name_some(classes)}: rename the folder, or leave its images "
                f"out ({images:,}) with {option('ignore_unknown', True)}"
            )
        joined: NDArray[np.int64] = table[labels]
        return joined

    @property
    def _roles(self) -> dict[str, str]:
        return {self.split_name: self.split_name}

    def _split_ids(self, name: str, part: LabelledImages) -> NDArray[np.intp]:
        return np.flatnonzero(part.labels >= 0)

    def _packed_advice(self, size: int, channels: int) -> str:
        return f"name the photos themselves with {option('data')}"

    def split(self, name: str) -> Split:
        """The images; `name` is `split_name`."""
        assert name == self.split_name, f"{name} of {self.split_name}"
        return self._split(name)

    def describe_splits(self) -> str:
        """The part that was taken, in words."""
        if not self.available:
            return "all of it" if self.image_set.folders is None else "all of its class folders"
        if self.split_name == ALL:
            return f"all of {', '.join(self.available)}"
        others = [name for name in self.available if name != self.split_name]
        beside = f"; it has {', '.join(others)} too" if others else ""
        return f"its {self.split_name} part{beside}"


class _Chained:
    """Images of several parts as one. shape is (N, H, W, C)."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = list(parts)
        shapes = {tuple(part.shape[1:]) for part in self._parts}
        if len(shapes) > 1:
            raise DataError(
                f"its parts have images of several sizes: name one with {option('split')}"
            )
        self._starts = np.cumsum([0, *(part.shape[0] for part in self._parts)])
        self.shape = (int(self._starts[-1]), *shapes.pop())

    def __getitem__(self, ids: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Shapes: (M,) -> uint8 (M, H, W, C)."""
        out = np.empty((len(ids), *self.shape[1:]), np.uint8)
        for part, start, end in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            own = (ids >= start) & (ids < end)
            if own.any():
                rows = ids[own] - start
                out[own] = part.read(rows) if hasattr(part, "read") else part[rows]
        return out

    read = __getitem__


def _chain(images: Sequence[Any]) -> Any:
    """Join the images of several parts of a set, all of one kind."""
    if len(images) == 1:
        return images[0]
    if all(isinstance(one, ImageFiles) for one in images):
        return join_files(images)
    return _Chained(images)


def name_some(names: Sequence[str], most: int = NAMED) -> str:
    """The first few of many names, and how many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
