"""Cuts an image set into three disjoint splits of uint8 images, as a recipe says."""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from alexnet.data import draws, fetch
from alexnet.data.bad_images import NOTED, BadImages, most_left_out
from alexnet.data.drive import Drive
from alexnet.data.file_list import FileList, list_files, read_file_lists, restore_list
from alexnet.data.forms import open_image_set
from alexnet.data.image_set import RULES, ImageFiles, ImageSet, LabelledImages, PixelFile, Stored
from alexnet.data.splits import Fitted, Split, Unread
from alexnet.data.statistics import Statistics, measure_statistics
from alexnet.errors import CheckpointError, DataError, Unreadable, UsageError
from alexnet.recipe import Recipe
from alexnet.records import (
    BadImage,
    DataCard,
    LeftOutImage,
)
from alexnet.support.options import DIR, call, option
from alexnet.support.terminal import say

STATISTICS_IMAGES = 20_000  # of a larger split only so many are read for mean and deviation
SPLITS = ("train", "val", "test")
NAMED = 20  # unreadable images that are named, a line each


class Dataset:
    """An image set as a recipe stores it: its classes, and the splits train, val and test, each
    read when it is first used.

    Without a test part, the val part is the test split; without both, test is cut from train. The
    val split is cut from train unless the set has both parts. Every cut is stratified by class,
    depends on `split_seed` alone, and separates no group of images that `keep_together` names.

    `trained` is the record of a run on the same data: its groups stay together, and no split is
    cut where the data changed since. `recorded_files` are the files that the run listed when it
    began, `bad_images` those that it could not read, and `left_out` the images that were left out
    since they cannot be read, with their paths inside the set.
    """

    to_train = True  # every class needs a training image

    def __init__(
        self, image_set: ImageSet, recipe: Recipe, trained: DataCard | None = None
    ) -> None:
        self.recipe, self._trained = recipe, trained
        self.recorded_files: dict[str, FileList] = {}
        self.bad_images = BadImages()
        self._bad_elsewhere = BadImages()
        self.left_out: list[LeftOutImage] = []
        if trained is not None and trained.run:
            run = Path(trained.run)
            self.recorded_files, self.bad_images = read_file_lists(run), BadImages.of(run)
            self._bad_elsewhere = BadImages.of(run, NOTED)
        if trained is not None:
            self.left_out += trained.left_out or ()
            may_be_missing = self.bad_images.paths | self._bad_elsewhere.paths
            may_be_missing |= {image.path for image in self.left_out}
            image_set = restore_list(image_set, self.recorded_files, may_be_missing)
        if image_set.folders is not None:  # so that a million names are joined once
            image_set = replace(image_set, read=cache(image_set.read))
        self.image_set, self.classes = image_set, image_set.classes
        self.drive = Drive(image_set.path, recipe.wait_for_data)
        self._groups: Sequence[Sequence[str | int]] = ()
        if trained is not None and trained.groups:
            self._groups = trained.groups

    def keep_together(self, groups: Sequence[Sequence[int]]) -> None:
        """Keep each group of copies in one split. Members are indices in the part that is cut."""
        if groups and self._is_cut("train"):
            keys = _image_keys(self.image_set.read(self._roles["train"]), self.image_set.path)
            self._groups = [[keys[i] for i in group] for group in groups]

    def adopt_cut(self, described: DataCard) -> None:
        """Cut as another process did: with its groups of copies and the images it left out."""
        self._groups = described.groups or []
        self.left_out = list(described.left_out or ())

    @property
    def _roles(self) -> dict[str, str]:
        """The part that each split is, or is cut from."""
        parts = set(self.image_set.parts)
        main = "train" if "train" in parts else "all"
        if {"val", "test"} <= parts:
            return {"train": main, "val": "val", "test": "test"}
        test_part = next((part for part in ("test", "val") if part in parts), main)
        return {"train": main, "val": main, "test": test_part}

    @property
    def groups(self) -> Sequence[Sequence[str | int]]:
        """Images that no cut separates: file names, or indices where the set is arrays."""
        return self._groups

    def missing_classes(self) -> dict[str, list[str]]:
        """The classes without an image, for each split that is cut out of train."""
        labels = self.image_set.read(self._roles["train"]).labels
        cuts = self._cut(labels) if self._is_cut("train") else {}
        missing = {
            split: [self.classes[c] for c in np.setdiff1d(labels, labels[ids]).tolist()]
            for split, ids in cuts.items()
        }
        return {split: names for split, names in missing.items() if names}

    def describe_splits(self) -> str:
        """One line on where each split comes from."""
        roles, r = self._roles, self.recipe
        origins = {role: f"the {roles[role]} part" for role in SPLITS}
        whole = "the images" if roles["train"] == "all" else origins["train"]
        if roles["val"] == roles["train"]:
            origins["train"] = f"what is left of {whole}"
            origins["val"] = f"{r.val_fraction:.0%} of {whole}"
        if roles["test"] == roles["train"]:
            origins["test"] = f"{r.test_fraction:.0%} of {whole}"
            origins["val"] = f"{r.val_fraction:.0%} of what test leaves"
        return ", ".join(f"{role}: {origins[role]}" for role in SPLITS)

    def count_splits(self) -> dict[str, int]:
        """The number of images of train and val, and of test where it is cut from train. Reads no
        image."""
        roles = self._roles
        names = ("train", "val", "test") if roles["test"] == roles["train"] else ("train", "val")
        return {
            name: len(self._split_ids(name, self.image_set.read(roles[name]))) for name in names
        }

    def split(self, name: str) -> Split:
        """The split train, val or test. DataError where it is cut from data that changed."""
        if name not in SPLITS:
            raise UsageError(f"no split {name!r}: there are {', '.join(SPLITS)}")
        if self._is_cut(name) and self._changed:
            raise DataError(
                f"{self.image_set.path} changed since the run began, and {name} is cut out of it: "
                f"some images that the run was trained on would be in {name} now; put it back, or "
                f"name other images with {option('data')}"
            )
        return self._split(name)

    def _split(self, name: str) -> Split:
        part = self.image_set.read(self._roles[name])
        ids = self._split_ids(name, part)
        labels = part.labels[ids]
        rows, r = None, self.recipe
        pixels: NDArray[np.uint8] | ImageFiles | Stored
        if isinstance(part.images, ImageFiles):
            pixels = part.images.take(ids)
        elif self.image_set.kind == "packed":
            shape = part.images.shape[1:]
            if shape != (r.size, r.size, r.channels):
                raise DataError(
                    f"{self.image_set.path}: packed at {shape[0]} pixels, {shape[2]} channel(s), "
                    f"and the recipe stores {r.size}, {r.channels}: pack again with "
                    f"{option('size', r.size)} {option('channels', r.channels)}, or "
                    f"{self._packed_advice(shape[0], shape[2])}"
                )
            if (labels < 0).any():
                raise DataError(
                    f"{self.image_set.path}: the labels of {name} are not known: use "
                    f"{option('split', 'val')}"
                )
            assert not isinstance(part.images, PixelFile)
            pixels, rows = part.images, ids
        else:
            pixels, rows = Fitted(cast("NDArray[np.uint8] | PixelFile", part.images), r), ids
            height, width = part.images.shape[1:3]
            if min(height, width) != r.size:
                say(f"resizing {len(ids):,} images from {height}x{width} to {r.size} pixels")
        if not len(labels):
            raise DataError(
                f"{self.image_set.path}: no class has an image left for {name}: add some to each, "
                "three at least where neither validation nor test has its own"
            )
        counts = np.bincount(labels, minlength=len(self.classes))
        if name == "train" and self.to_train and not counts.all():
            missing = self.classes[int(np.argmin(counts))]
            raise DataError(f"no training image of class {missing!r}: add some, or take it out")
        return Split(
            name, labels, pixels, r.size, r.channels, rows, orient=r.orient, drive=self.drive,
            cut_floats=self.image_set.rules < 2,
        )  # fmt: skip

    def _packed_advice(self, size: int, channels: int) -> str:
        """How to use a packed set whose size differs from the recipe's, without packing again."""
        return f"train with {option('size', size)} {option('channels', channels)}"

    def names(self, name: str) -> list[str]:
        """The name of each image of a split, in its order: the path of its file inside the set, the
        file that it was packed from, or its part and its index there ("test/17")."""
        role = self._roles[name]
        part = self.image_set.read(role)
        ids = self._split_ids(name, part)
        root = Path(self.image_set.path)
        if isinstance(part.images, ImageFiles):
            return part.images.take(ids).paths_below(root)
        listed = root / f"{role}.names.txt"
        if self.image_set.kind == "packed" and listed.is_file():
            lines = listed.read_text(errors="surrogateescape").split("\n")
            if len(lines) > ids.max():
                return [lines[i] for i in ids]
        return [f"{role}/{i}" for i in ids]

    def _split_ids(self, name: str, part: LabelledImages) -> NDArray[np.intp]:
        """The indices in its part of a split's images, without those that are left out."""
        labels = part.labels
        ids = self._cut(labels)[name] if self._is_cut(name) else np.arange(len(labels))
        left_out = {image.path for image in self.left_out if image.split == name}
        if left_out and isinstance(part.images, ImageFiles):
            paths = part.images.paths_below(self.image_set.path)
            ids = np.array([i for i in ids.tolist() if paths[i] not in left_out], np.intp)
        return ids

    def _is_cut(self, name: str) -> bool:
        """Whether a split shares its part with another split."""
        roles = self._roles
        return sum(part == roles[name] for part in roles.values()) > 1

    @cached_property
    def _changed(self) -> bool:
        """Whether train is cut out of other images than when the run began."""
        if self._trained is None:
            return False
        if self._trained.listing is not None:
            return self._trained.listing != self.listing
        counts = {name: len(self._split(name)) for name in ("train", "val")}
        return self._trained.counts is not None and self._trained.counts != counts

    @cached_property
    def listing(self) -> str:
        """The sha256 of the images that are cut into splits (16 hex digits), over their labels and
        file names. With another listing the same cut gives other images."""
        part = self.image_set.read(self._roles["train"])
        h = hashlib.sha256(f"{self.classes!r}{self.image_set.digest}".encode())
        h.update(part.labels.tobytes())
        if isinstance(part.images, ImageFiles):
            for name in part.images.paths_below(self.image_set.path):
                h.update(os.fsencode(name) + b"\0")
        return h.hexdigest()[:16]

    def _units(self, labels: NDArray[np.int64]) -> NDArray[np.intp]:
        """The unit of each image, (N,): the images of a unit are never separated.

        A group of copies is the unit of its first image. -1 marks a group of two classes, which
        stays in train.
        """
        units = np.arange(len(labels))
        if self._groups:
            keys = _image_keys(self.image_set.read(self._roles["train"]), self.image_set.path)
            places = {key: i for i, key in enumerate(keys)}
            for group in self._groups:
                ids = [places[key] for key in group if key in places]
                units[ids] = min(ids, default=0) if len(set(labels[ids].tolist())) < 2 else -1
        return units

    def _cut(self, labels: NDArray[np.int64]) -> dict[str, NDArray[np.intp]]:
        """The indices of each split that comes out of the training part, by a fixed shuffle."""
        roles, r, units = self._roles, self.recipe, self._units(labels)
        splits_cut = sum(roles[name] == roles["train"] for name in SPLITS)
        order = draws.permutation(r.split_seed, 0, len(labels), draws.SPLIT)
        cuts: dict[str, list[NDArray[np.intp]]] = {name: [] for name in SPLITS}
        for label in np.unique(labels):
            ids = order[labels[order] == label]
            splits_left = splits_cut
            for name, share in (("test", r.test_fraction), ("val", r.val_fraction)):
                if roles[name] == roles["train"]:
                    splits_left -= 1
                    count = min(max(round(share * len(ids)), 1), len(ids) - 1)
                    taken = take_units(units[ids], count, splits_left)
                    cuts[name].append(ids[taken])
                    ids = ids[~taken]
            cuts["train"].append(ids)
        return {name: np.sort(np.concatenate(c)) for name, c in cuts.items() if c}

    @cached_property
    def train(self) -> Split:
        return self._decoded("train", self.excluded_ids("train"))

    @cached_property
    def val(self) -> Split:
        return self._decoded("val", self.excluded_ids("val"))

    def excluded_ids(self, name: str) -> set[int]:
        """Indices in a split of the images that the run no longer reads."""
        return {image.index for image in self.bad_images if image.split == name and image.is_out}

    def _decoded(self, name: str, excluded: Collection[int] = ()) -> Split:
        """A split with its pixels in memory, where they fit. Images that cannot be read are left
        out of a new training whose recipe skips them; otherwise they raise Unreadable."""
        unread: Unread = {}
        split, most_bytes = self.split(name), self.recipe.memory_gib * 2**30
        resident = split.resident(self.recipe.workers, most_bytes, unread.update, excluded)
        if not unread:
            return resident
        if not self._skips:
            raise Unreadable(name, unread)
        self.leave_out(Unreadable(name, unread))
        rest = np.setdiff1d(np.arange(len(split)), list(unread))
        assert isinstance(resident.pixels, np.ndarray)
        return replace(resident, labels=resident.labels[rest], pixels=resident.pixels[rest])

    @property
    def _skips(self) -> bool:
        """Whether a new training leaves out images that it cannot read."""
        return self._trained is None and self.recipe.bad_images == "skip"

    def leave_out(self, error: Unreadable) -> None:
        """Leave unreadable images out of their split before a run begins, with a warning.
        Unreadable where they are more than the share that the recipe allows."""
        name, split = error.split, self.split(error.split)
        if not isinstance(split.pixels, ImageFiles):
            raise error
        before = sum(image.split == name for image in self.left_out)
        count = before + len(split)
        most = most_left_out(self.recipe.bad_share, count)
        if before + len(error.images) > most:
            raise Unreadable(
                name,
                error.images,
                f"{option('bad_share', self.recipe.bad_share)} allows {most:,} of the {count:,} "
                f"images of {name}: repair or remove them, or allow more",
            )
        for path, reason in error.images.values():
            image = LeftOutImage(path=self.relative_path(path), split=name, reason=reason)
            self.left_out.append(image)
            say(f"warning: left out of {name}: {path}: {reason}")

    def report_unreadable(self, error: Unreadable) -> int:
        """Warn of images that cannot be read, and record in the run those that are new to it.
        Returns the number of new ones."""
        unread = list(error.images.values())
        for path, reason in unread[:NAMED]:
            say(f"warning: {error.split}, left out: {path}: {reason}")
        if len(unread) > NAMED:
            say(f"warning: {error.split}, left out: {len(unread) - NAMED:,} more")
        if self._trained is None or not self.recorded_files:
            return 0
        images = [
            BadImage(self.relative_path(path), error.split, i, reason, 0)
            for i, (path, reason) in error.images.items()
        ]
        if new := [image for image in images if image.path not in self._bad_elsewhere.paths]:
            try:
                self._bad_elsewhere.put(new)
            except CheckpointError as failed:  # the result at hand is worth more than the record
                say(f"warning: not recorded in the run: {failed}")
        return len(new)

    def relative_path(self, path: str) -> str:
        """The path of a file inside the set."""
        return path.removeprefix(os.path.join(self.image_set.path, ""))

    def recorded_size(self, name: str) -> int | None:
        """The bytes of a file when the run began; None where they were not recorded."""
        return self._recorded_sizes.get(name)

    @cached_property
    def _recorded_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for files in self.recorded_files.values():
            sizes |= zip(files.names, files.sizes.tolist(), strict=True)
        return sizes

    def _size(self, files: ImageFiles, index: int) -> int:
        """The bytes of a file now, or when the run began if the run could not read it since."""
        name = self.relative_path(files.path(index))
        recorded = self.recorded_size(name) if name in self.bad_images.paths else None
        return files.size(index) if recorded is None else recorded

    def resized_files(self) -> list[tuple[str, int, str, int]]:
        """The files of train and val whose size changed since the run began, without those that it
        could not read: (split, index, path, size when the run began)."""
        changed = []
        for name in ("train", "val"):
            pixels = self.split(name).pixels
            if not isinstance(pixels, ImageFiles):
                continue
            for index in range(len(pixels)):
                path = pixels.path(index)
                image = self.bad_images.get(name, index)
                recorded = self.recorded_size(self.relative_path(path))
                if image is not None:
                    recorded = image.size if image.fate == "replaced" else None
                if recorded is not None and pixels.size(index) != recorded:
                    changed.append((name, index, path, recorded))
        return changed

    @property
    def has_bad_images(self) -> bool:
        """Whether the run could not read some images of train or val."""
        return any(image.split in ("train", "val") for image in self.bad_images)

    def file_lists(self) -> dict[str, FileList]:
        """The files of the parts that train and val come from."""
        return list_files(self.image_set, (self._roles["train"], self._roles["val"]))

    def own_part(self, name: str) -> str | None:
        """The part of the set that is this split alone, if there is one."""
        return None if self._is_cut(name) else self._roles[name]

    def is_large(self, split: Split) -> bool:
        """Whether a split is too large for memory, so that its images are decoded at each use."""
        return len(split) * split.size**2 * split.channels > self.recipe.memory_gib * 2**30

    @cached_property
    def statistics(self) -> Statistics:
        """The statistics of train that preprocessing needs: exact for a split in memory, otherwise
        over the first 20,000 images of a fixed shuffle."""
        if self.image_set.statistics is not None:  # of the whole training part, val included
            return self.measure(self.split("train"), 0)
        train = self.train
        in_memory = isinstance(train.pixels, np.ndarray)
        return self.measure(train, len(train) if in_memory else STATISTICS_IMAGES)

    def measure(self, train: Split, images: int) -> Statistics:
        """Statistics of the first `images` of train in a fixed shuffle, or those that a packed set
        has."""
        needs_mean_image = self.recipe.normalize in ("image", "centre")
        if self.image_set.statistics is not None:
            packed = cast("Statistics", self.image_set.statistics)
            return packed if needs_mean_image else replace(packed, image=None)
        ids = np.arange(len(train))
        if images < len(train):
            ids = draws.permutation(0, 0, len(train), draws.SPLIT)[:images]
        unread_images: Unread = {}

        def read(ids: NDArray[np.intp]) -> NDArray[np.uint8]:
            if not self._skips:
                return train.read(ids)
            block, unread = train.try_read(ids)
            unread_images.update(unread)
            return block[~np.isin(ids, list(unread))]

        statistics = measure_statistics(
            read, ids, colours=self.recipe.colour > 0, mean_image=needs_mean_image
        )
        if unread_images:
            self.leave_out(Unreadable("train", unread_images))
            self.__dict__.pop("train", None)
        if not all(std > 0 for std in statistics.std):
            raise DataError(f"{self.image_set.path}: every training image is one constant colour")
        return statistics

    @cached_property
    def digest(self) -> str:
        """The digest of train and val."""
        return self.digest_of(self.train, self.val)

    def digest_of(self, *parts: Split) -> str:
        """The sha256 of splits (16 hex digits), over labels, and pixels or file names and sizes."""
        h = hashlib.sha256(repr(self.classes).encode())
        if self.image_set.digest:
            for part in parts:
                h.update(f"{self.image_set.digest}{part.name}".encode())
                h.update(b"" if part.rows is None else part.rows.tobytes())
                h.update(part.labels.tobytes())
            return h.hexdigest()[:16]
        for part in parts:
            h.update(part.labels.tobytes())
            if isinstance(part.pixels, np.ndarray):
                h.update(np.ascontiguousarray(part.pixels).data)
            elif isinstance(part.pixels, ImageFiles):
                for i in range(len(part.pixels)):
                    name = os.path.basename(part.pixels.name(i))
                    about = f"{name}:{self._size(part.pixels, i)};"
                    h.update(about.encode(errors="surrogateescape"))
            else:  # the same bytes as pixels in memory have
                for start in range(0, len(part), 1024):
                    ids = np.arange(start, min(start + 1024, len(part)))
                    h.update(part.read(ids).data)
        return h.hexdigest()[:16]

    def describe(self, measured: Statistics) -> DataCard:
        """The record of the data in a run: enough to test and classify without the data itself.

        `measured` are the statistics that preprocessing uses: of these images, or of those that the
        initial weights were trained on.
        """
        counts = {"train": len(self.train), "val": len(self.val)}
        return DataCard(
            kind=self.image_set.kind,
            path=self.image_set.path,
            folders=self.image_set.folders,
            rules=None if self.image_set.folders is None else self.image_set.rules,
            digest=self.digest,
            listing=self.listing,
            classes=self.classes,
            titles=self.image_set.titles or None,
            counts=counts,
            orient=self.recipe.orient,
            left_out=list(self.left_out) or None,
            splits=self.describe_splits(),
            groups=self._groups,
            mean=measured.mean,
            std=measured.std,
            covariance=measured.covariance,
            mean_image=measured.image_digest,
        )


def take_units(units: NDArray[np.intp], count: int, splits_left: int) -> NDArray[np.bool_]:
    """Which of a class's images, in shuffled order, a split takes. (N,) -> (N,).

    Images of one unit are taken together; those of unit -1 are not taken. The split takes the
    first images, `count` of them, or fewer where units do not fit. It takes at least one unit, and
    leaves one for each of the `splits_left`, as far as there are enough.
    """
    sizes: dict[int, int] = {}  # in the order of their first images
    for unit in units.tolist():
        sizes[unit] = sizes.get(unit, 0) + 1
    train_only = int(-1 in sizes)
    sizes.pop(-1, None)
    if len(sizes) == len(units):  # no groups
        return np.arange(len(units)) < count
    most = max(len(sizes) + train_only - splits_left, min(len(sizes) + train_only - 1, 1), 0)
    chosen: set[int] = set()
    free = count
    for unit, size in sizes.items():
        if size <= free and len(chosen) < most:
            chosen.add(unit)
            free -= size
    if not chosen and count > 0 and most and sizes:
        chosen.add(min(sizes, key=lambda unit: sizes[unit]))
    return np.isin(units, list(chosen))


def _image_keys(part: LabelledImages, root: str) -> list[str] | range:
    """How a run's record names the images of a part: by their paths, or arrays by index."""
    if isinstance(part.images, ImageFiles):
        return part.images.paths_below(root)
    return range(len(part.labels))


def open_dataset(recipe: Recipe, data: str | Path | None = None, *, rules: int = RULES) -> Dataset:
    """Open the data of a recipe, or `data` (a folder or a named set) in its place."""
    return Dataset(open_image_set(find_data(recipe, data), rules=rules), recipe)


def find_data(recipe: Recipe, data: str | Path | None = None) -> str | Path:
    """The path or name of a recipe's data, or of `data` in its place. DataError for a published set
    that was not fetched."""
    name = str(recipe.data if data is None else data)
    if not name:
        raise UsageError(
            f"recipe {recipe.name} has no data of its own: name a folder with {option('data')}"
        )
    if name in fetch.PUBLISHED_SETS and not Path(name).exists():
        path = fetch.cache_dir() / name
        if not path.is_dir():
            raise DataError(
                f"{name} is not on this machine: `{call('data get', name)}` fetches it, "
                f"or {option('data', DIR)} names a folder that holds it"
            )
        return path
    return name


def rules_of(described: DataCard) -> int:
    """The rules (see RULES) by which a run reads its class folders: those that it began with."""
    if described.kind != "folder":
        return RULES
    return 0 if described.folders is None else described.rules or 1


def reopen_dataset(recipe: Recipe, described: DataCard, data: str | Path | None = None) -> Dataset:
    """Open the data that a run was trained on, at its recorded path, or at `data` if it was moved.

    `Dataset.split` refuses to cut data that changed. For other images see `external_set`.
    """
    if data is None and described.kind == "imported":
        raise DataError(
            f"the weights were imported, and no images with them: name some with {option('data')}"
        )
    own = described.where if data is None else data
    dataset = open_dataset(recipe, own, rules=rules_of(described))
    if dataset.classes != (classes := tuple(described.classes)):
        differing = sorted(set(dataset.classes) ^ set(classes)) or ["another order"]
        raise DataError(
            f"{dataset.image_set.where} has other classes than were trained on "
            f"({differing[0]!r}): name the right folder with {option('data')}"
        )
    check_orient(dataset.image_set, recipe, described)
    same = data is None or dataset.image_set.path == described.path != ""
    if not same and described.groups:  # the same folder elsewhere is cut alike
        same = dataset.listing == described.listing
    return Dataset(dataset.image_set, recipe, described) if same else dataset


def check_orient(image_set: ImageSet, recipe: Recipe, described: DataCard) -> None:
    """DataError where a packed set has its photos in another EXIF orientation than the run. Runs
    older than `orient` did not record theirs."""
    if (
        described.orient is not None
        and image_set.turned
        and image_set.orient not in (None, recipe.orient)
    ):
        raise DataError(
            f"{image_set.path} was packed with {option('orient', image_set.orient)}, and "
            f"{image_set.turned:,} of its "
            "photos have an EXIF orientation, which this run has with "
            f"{option('orient', recipe.orient)}: "
            f"pack them again with {option('orient', recipe.orient)}, or name the photos themselves"
        )
