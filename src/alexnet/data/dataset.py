"""From an image set and a recipe to three disjoint splits of uint8 images at one stored size."""

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
from alexnet.data.splits import Fitted, Split, Unread, take_whole
from alexnet.data.statistics import Statistics, measure_statistics
from alexnet.errors import CheckpointError, DataError, Unreadable, UsageError
from alexnet.options import DIR, call, option
from alexnet.recipe import Recipe
from alexnet.runs.records import (
    BadImage,
    DataCard,
    LeftOutImage,
)
from alexnet.terminal import say

STATISTICS_IMAGES = 20_000  # mean and deviation of a larger split come from this many of its images


SPLITS = ("train", "val", "test")
NAMED = 20  # images that cannot be read, a line each


class Dataset:
    """An image set seen through a recipe: classes, and train, val and test read when asked for.

    Where the set has no test part, `val` serves as test; where it has neither, test is cut from
    train. A validation split always comes out of train unless the set has both val and test.
    Every cut is stratified by class and a function of `split_seed` alone, and separates no group of
    images that `keep_together` names. `trained` is what a run says of the same data: its groups are
    kept together, and where that changed since, cuts of it are refused.
    """

    to_train = True  # so that every class needs an image

    def __init__(self, source: ImageSet, recipe: Recipe, trained: DataCard | None = None) -> None:
        self.recipe, self._trained = recipe, trained
        self.listed: dict[str, FileList] = {}
        self.bad = BadImages()
        self._noted = BadImages()
        # Path inside the set, split and reason, since the run began.
        self.left_out: list[LeftOutImage] = []
        if trained is not None and trained.run:
            run = Path(trained.run)
            self.listed, self.bad = read_file_lists(run), BadImages.of(run)
            self._noted = BadImages.of(run, NOTED)
        if trained is not None:
            self.left_out += trained.left_out or ()
            excused = self.bad.paths | self._noted.paths | {e.path for e in self.left_out}
            source = restore_list(source, self.listed, excused)
        if source.folders is not None:  # a million names need not be joined twice
            source = replace(source, read=cache(source.read))
        self.source, self.classes = source, source.classes
        self.drive = Drive(source.path, recipe.wait_for_data)
        self._groups: Sequence[Sequence[str | int]] = ()
        if trained is not None and trained.groups:
            self._groups = trained.groups

    def keep_together(self, groups: Sequence[Sequence[int]]) -> None:
        """Copies of a picture, by place in the part that is cut: each group stays in one split."""
        if groups and self._shared("train"):
            called = _call(self.source.read(self._roles["train"]), self.source.path)
            self._groups = [[called[i] for i in group] for group in groups]

    def cut_as(self, described: DataCard) -> None:
        """Takes over what `describe` says that another process found in the same data: copies that
        stay together, and images that are left out."""
        self._groups = described.groups or []
        self.left_out = list(described.left_out or ())

    @property
    def _roles(self) -> dict[str, str]:
        parts = set(self.source.parts)
        main = "train" if "train" in parts else "all"
        if {"val", "test"} <= parts:
            return {"train": main, "val": "val", "test": "test"}
        held = next((part for part in ("test", "val") if part in parts), main)
        return {"train": main, "val": main, "test": held}

    @property
    def groups(self) -> Sequence[Sequence[str | int]]:
        """Images that no cut separates, by name or, of arrays, by number."""
        return self._groups

    def without_images(self) -> dict[str, list[str]]:
        """By split that is cut out of train: the classes of which it has no image."""
        labels = self.source.read(self._roles["train"]).labels
        cuts = self._cut(labels) if self._shared("train") else {}
        missing = {
            split: [self.classes[c] for c in np.setdiff1d(labels, labels[ids]).tolist()]
            for split, ids in cuts.items()
        }
        return {split: names for split, names in missing.items() if names}

    def describe_splits(self) -> str:
        """One line on where each split comes from."""
        roles, r = self._roles, self.recipe
        says = {role: f"the {roles[role]} part" for role in SPLITS}
        whole = "the images" if roles["train"] == "all" else says["train"]
        if roles["val"] == roles["train"]:
            says["train"] = f"what is left of {whole}"
            says["val"] = f"{r.val_fraction:.0%} of {whole}"
        if roles["test"] == roles["train"]:
            says["test"] = f"{r.test_fraction:.0%} of {whole}"
            says["val"] = f"{r.val_fraction:.0%} of what test leaves"
        return ", ".join(f"{role}: {says[role]}" for role in SPLITS)

    def count_splits(self) -> dict[str, int]:
        """Images of train and val, and of test where it is cut from train; none is read."""
        roles = self._roles
        names = ("train", "val", "test") if roles["test"] == roles["train"] else ("train", "val")
        return {name: len(self._rows(name, self.source.read(roles[name]))) for name in names}

    def split(self, name: str) -> Split:
        """One of train, val, test."""
        if name not in SPLITS:
            raise UsageError(f"no split {name!r}: there are {', '.join(SPLITS)}")
        if self._shared(name) and self._changed:
            raise DataError(
                f"{self.source.path} changed since the run began, and {name} is cut out of it: of "
                f"what was trained on, some would be in {name} now and some not; put it back, or "
                f"name other images with {option('data')}"
            )
        return self._split(name)

    def _split(self, name: str) -> Split:
        part = self.source.read(self._roles[name])
        ids = self._rows(name, part)
        labels = part.labels[ids]
        rows, r = None, self.recipe
        pixels: NDArray[np.uint8] | ImageFiles | Stored
        if isinstance(part.images, ImageFiles):
            pixels = part.images.take(ids)
        elif self.source.kind == "packed":
            shape = part.images.shape[1:]
            if shape != (r.size, r.size, r.channels):
                raise DataError(
                    f"{self.source.path}: packed at {shape[0]} pixels, {shape[2]} channel(s), and "
                    f"the recipe stores {r.size}, {r.channels}: pack again with "
                    f"{option('size', r.size)} "
                    f"{option('channels', r.channels)}, or {self._else(shape[0], shape[2])}"
                )
            if (labels < 0).any():
                raise DataError(
                    f"{self.source.path}: the labels of {name} are not known: use "
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
                f"{self.source.path}: no class has an image left for {name}: add some to each, "
                "three at least where neither validation nor test has its own"
            )
        found = np.bincount(labels, minlength=len(self.classes))
        if name == "train" and self.to_train and not found.all():
            missing = self.classes[int(np.argmin(found))]
            raise DataError(f"no training image of class {missing!r}: add some, or take it out")
        return Split(
            name, labels, pixels, r.size, r.channels, rows, orient=r.orient, drive=self.drive,
            cut_floats=self.source.rules < 2,
        )  # fmt: skip

    def _else(self, size: int, channels: int) -> str:
        """What to do with a packed set of another size than the recipe's, if it is kept."""
        return f"train with {option('size', size)} {option('channels', channels)}"

    def names(self, name: str) -> list[str]:
        """What each image of a split is called, in its order: its file within the source, the file
        it was packed from, or the part and its place there ("test/17")."""
        role = self._roles[name]
        part = self.source.read(role)
        ids = self._rows(name, part)
        root = Path(self.source.path)
        if isinstance(part.images, ImageFiles):
            return part.images.take(ids).paths_below(root)
        listed = root / f"{role}.names.txt"
        if self.source.kind == "packed" and listed.is_file():
            lines = listed.read_text(errors="surrogateescape").split("\n")
            if len(lines) > ids.max():
                return [lines[i] for i in ids]
        return [f"{role}/{i}" for i in ids]

    def _rows(self, name: str, part: LabelledImages) -> NDArray[np.intp]:
        """Which images of its part a split is, without those that are left out of it."""
        labels = part.labels
        ids = self._cut(labels)[name] if self._shared(name) else np.arange(len(labels))
        gone = {image.path for image in self.left_out if image.split == name}
        if gone and isinstance(part.images, ImageFiles):
            called = part.images.paths_below(self.source.path)
            ids = np.array([i for i in ids.tolist() if called[i] not in gone], np.intp)
        return ids

    def _shared(self, name: str) -> bool:
        roles = self._roles
        return sum(part == roles[name] for part in roles.values()) > 1

    @cached_property
    def _changed(self) -> bool:
        """Whether train is cut out of other images than those that the run says."""
        if self._trained is None:
            return False
        if self._trained.listing is not None:
            return self._trained.listing != self.listing
        counts = {name: len(self._split(name)) for name in ("train", "val")}
        return self._trained.counts is not None and self._trained.counts != counts

    @cached_property
    def listing(self) -> str:
        """sha256 of what is cut into splits (16 hex digits): its labels and the names of its files.
        Of another listing the same split holds other images."""
        part = self.source.read(self._roles["train"])
        h = hashlib.sha256(f"{self.classes!r}{self.source.digest}".encode())
        h.update(part.labels.tobytes())
        if isinstance(part.images, ImageFiles):
            for name in part.images.paths_below(self.source.path):
                h.update(os.fsencode(name) + b"\0")
        return h.hexdigest()[:16]

    def _units(self, labels: NDArray[np.int64]) -> NDArray[np.intp]:
        """What is not separated: of each image that it is one of a group, by that group's first,
        and -1 of one whose group is of two classes: that is for train alone. (N,)."""
        units = np.arange(len(labels))
        if self._groups:
            called = _call(self.source.read(self._roles["train"]), self.source.path)
            places = {name: i for i, name in enumerate(called)}
            for group in self._groups:
                ids = [places[name] for name in group if name in places]
                units[ids] = min(ids, default=0) if len(set(labels[ids].tolist())) < 2 else -1
        return units

    def _cut(self, labels: NDArray[np.int64]) -> dict[str, NDArray[np.intp]]:
        roles, r, units = self._roles, self.recipe, self._units(labels)
        later = sum(roles[name] == roles["train"] for name in SPLITS)
        order = draws.permutation(r.split_seed, 0, len(labels), draws.SPLIT)
        cuts: dict[str, list[NDArray[np.intp]]] = {name: [] for name in SPLITS}
        for label in np.unique(labels):
            ids = order[labels[order] == label]
            left = later
            for name, share in (("test", r.test_fraction), ("val", r.val_fraction)):
                if roles[name] == roles["train"]:
                    left -= 1
                    count = min(max(round(share * len(ids)), 1), len(ids) - 1)
                    taken = take_whole(units[ids], count, left)
                    cuts[name].append(ids[taken])
                    ids = ids[~taken]
            cuts["train"].append(ids)
        return {name: np.sort(np.concatenate(c)) for name, c in cuts.items() if c}

    @cached_property
    def train(self) -> Split:
        return self._decoded("train", self.gone("train"))

    @cached_property
    def val(self) -> Split:
        return self._decoded("val", self.gone("val"))

    def gone(self, name: str) -> set[int]:
        """Indices of images that a run no longer reads."""
        return {image.index for image in self.bad if image.split == name and image.is_out}

    def _decoded(self, name: str, gone: Collection[int] = ()) -> Split:
        """A split with its pixels in memory, where they fit. What cannot be read is left out where
        a training begins whose recipe skips it; else Unreadable is raised."""
        missing: Unread = {}
        split, most = self.split(name), self.recipe.memory_gib * 2**30
        kept = split.resident(self.recipe.workers, most, missing.update, gone)
        if not missing:
            return kept
        if not self._skips:
            raise Unreadable(name, missing)
        self.leave_out(Unreadable(name, missing))
        rest = np.setdiff1d(np.arange(len(split)), list(missing))
        assert isinstance(kept.pixels, np.ndarray)
        return replace(kept, labels=kept.labels[rest], pixels=kept.pixels[rest])

    @property
    def _skips(self) -> bool:
        return self._trained is None and self.recipe.bad_images == "skip"

    def leave_out(self, error: Unreadable) -> None:
        """Takes images that cannot be read out of their split before a run begins, and says so.
        Raises Unreadable beyond the share that the recipe allows."""
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
                "images of "
                f"{name}: repair or remove them, or allow more",
            )
        for path, reason in error.images.values():
            image = LeftOutImage(path=self.inside(path), split=name, reason=reason)
            self.left_out.append(image)
            say(f"warning: left out of {name}: {path}: {reason}")

    def note(self, error: Unreadable) -> int:
        """Says which images cannot be read, and lets the run know of those it does not know yet;
        how many these are."""
        shown = list(error.images.values())
        for path, reason in shown[:NAMED]:
            say(f"warning: {error.split}, left out: {path}: {reason}")
        if len(shown) > NAMED:
            say(f"warning: {error.split}, left out: {len(shown) - NAMED:,} more")
        if self._trained is None or not self.listed:
            return 0
        images = [
            BadImage(self.inside(path), error.split, i, reason, 0)
            for i, (path, reason) in error.images.items()
        ]
        if new := [image for image in images if image.path not in self._noted.paths]:
            try:
                self._noted.put(new)
            except CheckpointError as failed:  # what was read is worth more
                say(f"warning: not kept in the run: {failed}")
        return len(new)

    def inside(self, path: str) -> str:
        """What a file is called inside the set."""
        return path.removeprefix(os.path.join(self.source.path, ""))

    def size_then(self, name: str) -> int | None:
        """Bytes that a file of this name had when the run began, where that is known."""
        return self._sizes.get(name)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for files in self.listed.values():
            sizes |= zip(files.names, files.sizes.tolist(), strict=True)
        return sizes

    def _size(self, files: ImageFiles, index: int) -> int:
        """Bytes of a file: of one that the run could not read, those that it had."""
        name = self.inside(files.path(index))
        known = self.size_then(name) if name in self.bad.paths else None
        return files.size(index) if known is None else known

    def resized(self) -> list[tuple[str, int, str, int]]:
        """Files of train and val whose size is not that with which the run began, but for those
        that it could not read: their split, index, path and size then."""
        changed = []
        for name in ("train", "val"):
            pixels = self.split(name).pixels
            if not isinstance(pixels, ImageFiles):
                continue
            for index in range(len(pixels)):
                path = pixels.path(index)
                image, then = self.bad.get(name, index), self.size_then(self.inside(path))
                if image is not None:
                    then = image.size if image.fate == "replaced" else None
                if then is not None and pixels.size(index) != then:
                    changed.append((name, index, path, then))
        return changed

    @property
    def disturbed(self) -> bool:
        """Whether the run came upon images of train or val that it could not read."""
        return any(image.split in ("train", "val") for image in self.bad)

    def file_lists(self) -> dict[str, FileList]:
        """The files that train and val are cut from."""
        return list_files(self.source, (self._roles["train"], self._roles["val"]))

    def own_part(self, name: str) -> str | None:
        """The part of the source that is this split and no other, if there is one."""
        return None if self._shared(name) else self._roles[name]

    def is_large(self, split: Split) -> bool:
        """Whether the images of a split are decoded as they are used."""
        return len(split) * split.size**2 * split.channels > self.recipe.memory_gib * 2**30

    @cached_property
    def statistics(self) -> Statistics:
        """What preprocessing needs to know of train.

        Exact for splits in memory; of others, over the first 20,000 images of a fixed shuffle.
        """
        if self.source.statistics is not None:  # of the whole training part, val included
            return self.measure(self.split("train"), 0)
        train = self.train
        in_memory = isinstance(train.pixels, np.ndarray)
        return self.measure(train, len(train) if in_memory else STATISTICS_IMAGES)

    def measure(self, train: Split, images: int) -> Statistics:
        """Statistics of so many images of train, or what the source brings."""
        wants_image = self.recipe.normalize in ("image", "centre")
        if self.source.statistics is not None:
            found = cast("Statistics", self.source.statistics)
            return found if wants_image else replace(found, image=None)
        ids = np.arange(len(train))
        if images < len(train):
            ids = draws.permutation(0, 0, len(train), draws.SPLIT)[:images]
        missing: Unread = {}

        def read(ids: NDArray[np.intp]) -> NDArray[np.uint8]:
            if not self._skips:
                return train.read(ids)
            block, unread = train.try_read(ids)
            missing.update(unread)
            return block[~np.isin(ids, list(unread))]

        found = measure_statistics(
            read, ids, colours=self.recipe.colour > 0, mean_image=wants_image
        )
        if missing:
            self.leave_out(Unreadable("train", missing))
            self.__dict__.pop("train", None)
        if not all(std > 0 for std in found.std):
            raise DataError(f"{self.source.path}: every training image is one constant colour")
        return found

    @cached_property
    def digest(self) -> str:
        """That of what is trained on."""
        return self.digest_of(self.train, self.val)

    def digest_of(self, *parts: Split) -> str:
        """sha256 of splits of it (16 hex digits): labels, and pixels or names and sizes."""
        h = hashlib.sha256(repr(self.classes).encode())
        if self.source.digest:
            for part in parts:
                h.update(f"{self.source.digest}{part.name}".encode())
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
            else:  # the same bytes as of pixels in memory
                for start in range(0, len(part), 1024):
                    ids = np.arange(start, min(start + 1024, len(part)))
                    h.update(part.read(ids).data)
        return h.hexdigest()[:16]

    def describe(self, measured: Statistics) -> DataCard:
        """What a run directory keeps of its data: enough to test and classify without it.

        `measured` is what preprocessing uses: these images' statistics, or those of other weights.
        """
        counts = {"train": len(self.train), "val": len(self.val)}
        return DataCard(
            kind=self.source.kind,
            path=self.source.path,
            folders=self.source.folders,
            rules=None if self.source.folders is None else self.source.rules,
            digest=self.digest,
            listing=self.listing,
            classes=self.classes,
            titles=self.source.titles or None,
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


def _call(part: LabelledImages, root: str) -> list[str] | range:
    """What images are called in the record of a run: files by their names, others by number."""
    if isinstance(part.images, ImageFiles):
        return part.images.paths_below(root)
    return range(len(part.labels))


def open_dataset(recipe: Recipe, data: str | Path | None = None, *, rules: int = RULES) -> Dataset:
    """The data of a recipe, or a folder or named set in its place; see `open_image_set`."""
    return Dataset(open_image_set(find_data(recipe, data), rules=rules), recipe)


def find_data(recipe: Recipe, data: str | Path | None = None) -> str | Path:
    """Where the data of a recipe lies, or a folder or named set in its place."""
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
    """By which rules a run reads its class folders, see RULES: those that it began with."""
    if described.kind != "folder":
        return RULES
    return 0 if described.folders is None else described.rules or 1


def reopen_dataset(recipe: Recipe, described: DataCard, data: str | Path | None = None) -> Dataset:
    """The data that a run was trained on, where its description says it is, or where `data` says it
    is now. Where it changed, `split` refuses to cut it. For other images see `other_images`."""
    if data is None and described.kind == "imported":
        raise DataError(
            f"the weights were imported, and no images with them: name some with {option('data')}"
        )
    own = described.where if data is None else data
    found = open_dataset(recipe, own, rules=rules_of(described))
    if found.classes != (classes := tuple(described.classes)):
        odd = sorted(set(found.classes) ^ set(classes))
        raise DataError(
            f"{found.source.path or found.source.kind} has other classes than were trained on "
            f"({odd[0] if odd else 'another order'!r}): name the right folder with {option('data')}"
        )
    check_orient(found.source, recipe, described)
    same = data is None or found.source.path == described.path != ""
    if not same and described.groups:  # the same folder elsewhere is cut alike
        same = found.listing == described.listing
    return Dataset(found.source, recipe, described) if same else found


def check_orient(source: ImageSet, recipe: Recipe, described: DataCard) -> None:
    """DataError for a packed set with photos that lie otherwise than the run has its images. Runs
    from before `orient` did not say how theirs lay."""
    if (
        described.orient is not None
        and source.turned
        and source.orient not in (None, recipe.orient)
    ):
        raise DataError(
            f"{source.path} was packed with {option('orient', source.orient)}, and "
            f"{source.turned:,} of its "
            "photos have an EXIF orientation, which this run has with "
            f"{option('orient', recipe.orient)}: "
            f"pack them again with {option('orient', recipe.orient)}, or name the photos themselves"
        )
