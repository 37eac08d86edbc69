"""The labelled images that a trained network is evaluated on: the run's own, or an external set.

    own       the data that the run was trained on, at its place or moved: its splits, cut as before
    external  any other set: never cut, all of it or all of one part, classes joined by name

The images are compared with the digests of those that the run was trained and validated on. Images
that it has seen are counted, and left out unless the user asks for them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data import draws
from alexnet.data.dataset import SPLITS, Dataset, check_orient, find_data, reopen_dataset, rules_of
from alexnet.data.digests import UNREAD, ImageDigests, SplitDigests
from alexnet.data.external_set import ALL, ExternalSet, name_some
from alexnet.data.forms import open_image_set
from alexnet.data.image_set import ImageFiles
from alexnet.data.images import lies_turned
from alexnet.data.splits import Split, Unread
from alexnet.errors import CheckpointError, DataError, Unreadable, UsageError
from alexnet.recipe import Recipe
from alexnet.records import DataCard, EvalImages, UnreadFile
from alexnet.runs.rundir import RunDir
from alexnet.support.options import option
from alexnet.support.terminal import progress, say
from alexnet.training.parallel import ALONE, Team

T = TypeVar("T")

IMAGES_PER_REPORT = 1024  # images digested between two reports of progress
SAMPLE = 64  # training images that are compared to recognise a moved folder
ORIENTATION_SAMPLE = 500  # files that are checked for an EXIF orientation
LEARNT_FROM = ("train", "val")


@dataclass
class EvaluationSet:
    """Images with the labels of a network's classes, and the counts of those left out.

    images        to evaluate on: the rows `kept` of `dataset.split(split)`, in its order
    own           whether this is the run's own data
    seen          images that the run was trained or validated on, left out unless `with_seen`; None
                  where that is unknown, or where the split is train or val of the run
    near          further images that look like copies of seen ones; they are evaluated
    ignored       by class that the network does not know, the number of its images
    absent        classes of the network without an image here
    turned        files in a sample whose EXIF orientation the run ignores
    unreadable    images that could not be read so far; they are left out
    repeated      images that equal another one here, pixel by pixel
    contradicted  images that equal one of another class
    """

    dataset: Dataset
    split: str
    images: Split
    kept: NDArray[np.intp]
    own: bool
    seen: int | None
    near: int | None
    with_seen: bool
    ignored: Mapping[str, int]
    absent: tuple[str, ...]
    turned: int = 0
    unreadable: list[UnreadFile] = field(default_factory=list)
    repeated: int = 0
    contradicted: int = 0

    @property
    def path(self) -> str:
        """The path of the images, or their kind where they come with alexnet."""
        return self.dataset.image_set.where

    @cached_property
    def _all_names(self) -> list[str]:
        return self.dataset.names(self.split)

    @property
    def names(self) -> list[str]:
        """The name of each image, as `Dataset.names`."""
        return [self._all_names[i] for i in self.kept]

    def around(self, work: Callable[[Split], T]) -> T:
        """The result of `work` on the images. When it meets an image that cannot be read, it starts
        again without that image."""
        while True:
            try:
                return work(self.images)
            except Unreadable as error:
                self.leave_out(error)

    def leave_out(self, error: Unreadable) -> None:
        """Remove unreadable images from `images`, by the indices in the error, and report them."""
        if not isinstance(self.images.pixels, ImageFiles):
            raise error
        rest = np.setdiff1d(np.arange(len(self.images)), list(error.images))
        if not len(rest):
            raise Unreadable(self.split, error.images, "none of them can be read: see why")
        self.report_unreadable(error.images)
        self.images, self.kept = self.images.take(rest), self.kept[rest]

    def report_unreadable(self, unread: Unread) -> int:
        """Warn of unreadable images, by their indices in `images`, and record them in the run, so
        that these files may change. Returns the number that are new to the run."""
        if not unread:
            return 0
        by_row = {int(self.kept[i]): problem for i, problem in unread.items()}
        self.unreadable += [
            UnreadFile(path=self.dataset.relative_path(path), reason=why)
            for path, why in unread.values()
        ]
        return self.dataset.report_unreadable(Unreadable(self.split, by_row))

    def share(self, other: "EvaluationSet") -> bool:
        """Reduce two sets to the images that they have in common, in one order. False, without a
        change, where they differ by more than the images left out of them."""
        mine, theirs = self.names, other.names
        left_out = {*self._all_names} - {*mine} | {*other._all_names} - {*theirs}
        if {*mine} ^ {*theirs} - left_out:
            return False
        common = {*mine} & {*theirs}
        for one, names in ((self, mine), (other, theirs)):
            rows = np.array([i for i, name in enumerate(names) if name in common], np.intp)
            one.images, one.kept = one.images.take(rows), one.kept[rows]
        return self.names == other.names and bool(common)

    def figures(self) -> EvalImages:
        """The description of the images that stands beside a figure measured on them."""
        return EvalImages(
            split=self.split,
            own=self.own,
            seen=self.seen,
            near_seen=self.near,
            repeated=self.repeated,
            contradicted=self.contradicted,
            with_seen=bool(self.seen and self.with_seen),
            ignored=self.ignored,
            absent=self.absent,
        )

    def notes(self) -> list[str]:
        """Lines for people on the images, those left out, and doubts about them."""
        notes = []
        if not self.own:
            notes.append(
                f"{self.path}: {count_images(self._all)}, {self.dataset.describe_splits()}"
            )
        if self.seen:
            treatment = (
                "the figure counts them"
                if self.with_seen
                else f"left out ({option('with_seen', True)} keeps them)"
            )
            total = count_images(self._all)
            notes.append(
                f"the run was trained or validated on {self.seen:,} of {total}: {treatment}"
            )
        if self.near:
            notes.append(
                f"warning: at least {count_images(self.near)} of these look like copies of what it "
                "was trained on (saved anew, resized, mirrored, turned or grey): they count, and "
                "the figure flatters"
            )
        if self.repeated:
            notes.append(
                f"warning: {count_images(self.repeated)} repeat another one here: each counts, so "
                "the interval is narrower than it should be"
            )
        if self.contradicted:
            notes.append(
                f"warning: {count_images(self.contradicted)} are in two classes' folders, so that "
                "one of their labels is wrong"
            )
        if self.turned:
            notes.append(
                f"warning: {count_images(self.turned)} or more have an EXIF orientation, and are "
                "read as they are stored: so the run has its images (orient ignore)"
            )
        if self.seen is None and not self.own:
            notes.append(
                "whether it was trained on any of them is not known: there are no digests of what "
                "it was trained on"
            )
        if self.ignored:
            count = count_images(sum(self.ignored.values()))
            notes.append(f"{count} of unknown classes left out: {name_some([*self.ignored])}")
        if self.absent:
            absent = len(self.absent)
            total_classes = absent + len(np.unique(self.images.labels))
            notes.append(
                f"{absent} of {total_classes} classes have no image here: {name_some(self.absent)}"
            )
        return notes

    @property
    def _all(self) -> int:
        return len(self.kept) if self.with_seen else len(self.kept) + (self.seen or 0)


def open_evaluation_set(
    recipe: Recipe,
    described: DataCard,
    data: str | Path | None,
    split: str | None = None,
    *,
    run: RunDir | None = None,
    ignore_unknown: bool = False,
    with_seen: bool = False,
    default: str = "test",
    team: Team = ALONE,
) -> EvaluationSet:
    """Open a split of the run's own data, or the images of `data`.

    `described` is the run's record of its data, and `run` its folder, which holds the digests.
    `split` is `default` for the run's own data; for an external set it is test, else val, else all.
    The processes of a team share the reading. UsageError for a split that does not exist. DataError
    where `data` has a class that the network does not know (unless `ignore_unknown`), or only
    images that the run has seen (unless `with_seen`).
    """
    with team.all_or_none():
        digests = read_digests(run) if run is not None else None
        own = open_own(recipe, described, data, digests)
    first_has_own = team.broadcast(own is not None)
    with team.all_or_none():
        if first_has_own != (own is not None):
            raise DataError(
                f"the data in {data} is not what the first process reads: give all of them the same"
            )
        dataset, external = own, None
        if own is None:
            assert data is not None
            dataset = external = _open_external(recipe, described, data, split, ignore_unknown)
            images = external.split(name := external.split_name)
        else:
            images = own.split(name := _own_split(split, ignore_unknown, default))
            if own.own_part(name) is None and digests and not _same_images(own, digests, recipe):
                raise DataError(
                    f"{own.image_set.path}: images changed since the run began, under the same "
                    f"names, and {name} is cut out of them: some images that the run was trained "
                    f"on would be in {name} now; put them back, or name other images with "
                    f"{option('data')}"
                )
    assert dataset is not None
    if external is not None and digests is None and run is not None and team.leads:
        digests = _digest_own(recipe, described, run)
    evaluation = EvaluationSet(
        dataset,
        name,
        images,
        np.arange(len(images)),
        external is None,
        None,
        None,
        with_seen,
        external.ignored if external else {},
        external.absent if external else (),
        _count_turned(images) if external else 0,
    )
    if team.size == 1:  # the images are read twice: for digests, then for answers
        evaluation.around(lambda whole: _load_into_memory(evaluation, whole, recipe))
    if external is not None or name not in LEARNT_FROM:
        exact, matches = _find_seen(evaluation.images, digests, recipe.workers, team)
        if matches is not None:
            is_seen, is_near = matches
            evaluation.seen, evaluation.near = int(is_seen.sum()), int(is_near.sum())
            if evaluation.seen and not with_seen:
                rest = np.flatnonzero(~is_seen)
                with team.all_or_none():
                    evaluation.images = _take(evaluation.images, rest, dataset)
                evaluation.kept, exact = evaluation.kept[rest], exact[rest]
        evaluation.repeated, evaluation.contradicted = _count_repeated(
            exact, evaluation.images.labels
        )
    return evaluation


def _open_external(
    recipe: Recipe,
    described: DataCard,
    data: str | Path,
    split: str | None,
    ignore_unknown: bool,
) -> ExternalSet:
    """Open images that are not the run's own."""
    image_set = open_image_set(find_data(recipe, data), to_train=False, known=described.classes)
    check_orient(image_set, recipe, described)
    return ExternalSet(image_set, recipe, described.classes, split, ignore_unknown=ignore_unknown)


def _own_split(split: str | None, ignore_unknown: bool, default: str) -> str:
    """The split of the run's own data that a call names."""
    if ignore_unknown:
        raise UsageError(
            f"{option('ignore_unknown', True)} is for images of {option('data')}: the run knows "
            "its own"
        )
    if split == ALL:
        raise UsageError(
            f"{option('split', ALL)} is for images of {option('data')}: of the run's own name "
            f"{', '.join(SPLITS)}"
        )
    return split or default


def _count_repeated(exact: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[int, int]:
    """The number of images that equal an earlier one, and of those that equal one with another
    label. Shapes: (N,), (N,)."""
    was_read = exact != UNREAD
    first_labels: dict[int, int] = {}
    two_labels: set[int] = set()
    exact, labels = exact[was_read], labels[was_read]
    for digest, label in zip(exact.tolist(), labels.tolist(), strict=True):
        if first_labels.setdefault(digest, label) != label:
            two_labels.add(digest)
    return len(exact) - len(first_labels), int(np.isin(exact, list(two_labels)).sum())


def _load_into_memory(evaluation: EvaluationSet, images: Split, recipe: Recipe) -> None:
    """Decode the images where they fit into memory. Raises Unreadable."""
    unread: Unread = {}
    resident = images.resident(recipe.workers, recipe.memory_gib * 2**30, unread.update)
    if unread:
        raise Unreadable(images.name, unread)
    evaluation.images = resident


def _count_turned(images: Split) -> int:
    """The number of files in a sample that have an EXIF orientation which the run ignores."""
    if images.orient != "ignore" or not isinstance(images.pixels, ImageFiles):
        return 0
    ids = np.unique(np.linspace(0, len(images.pixels) - 1, ORIENTATION_SAMPLE).astype(int))
    return sum(lies_turned(images.pixels.source(i)) for i in ids)


def count_images(n: int) -> str:
    """A number of images in words."""
    return f"{n:,} image" if n == 1 else f"{n:,} images"


def read_digests(run: RunDir) -> ImageDigests | None:
    """The digests of the images that a run learnt from; None where it has none."""
    splits = run.digests()
    if splits is None:
        return None
    try:
        return ImageDigests.of_arrays({name: x.numpy() for name, x in splits.items()})
    except ValueError as error:
        raise CheckpointError(
            f"{run.path}: its digests of images are damaged ({error}): restore a copy"
        ) from None


def open_own(
    recipe: Recipe,
    described: DataCard,
    data: str | Path | None = None,
    digests: ImageDigests | None = None,
) -> Dataset | None:
    """Open the data that a run was trained on: at its recorded path, or at `data` if it was moved.

    None where `data` holds other images. A moved folder must list the same files, and a sample of
    the training images (all of them where the run has no digests) must be the same.
    """
    if data is None:
        return reopen_dataset(recipe, described)
    try:
        image_set = open_image_set(find_data(recipe, data), rules=rules_of(described), aloud=False)
    except DataError:
        return None
    if image_set.kind != described.kind or image_set.classes != tuple(described.classes):
        return None
    dataset = Dataset(image_set, recipe, described)
    if described.path == image_set.path:
        check_orient(image_set, recipe, described)
        return dataset
    if described.listing not in (None, dataset.listing):
        return None
    if image_set.digest and described.listing is not None:  # of a packed set it is of the content
        return dataset
    if digests is not None:
        same = _same_images(dataset, digests, recipe)
    else:
        same = dataset.digest == described.digest
    return dataset if same else None


def _same_images(dataset: Dataset, digests: ImageDigests, recipe: Recipe) -> bool:
    """Whether a fixed sample of training images has the digests that the run recorded, apart from
    images that the run could not read."""
    train, recorded = dataset.split("train"), digests.splits["train"].exact
    if len(recorded) != len(train):
        return False
    ids = draws.permutation(0, 0, len(train), draws.SPLIT)
    bad = [image.index for image in dataset.bad_images if image.split == "train"]
    ids = ids[(recorded[ids] != UNREAD) & ~np.isin(ids, bad)][:SAMPLE]
    current = SplitDigests.unread(len(train))
    current.read(train, ids, recipe.workers)
    ids = ids[current.exact[ids] != UNREAD]
    return bool((current.exact[ids] == recorded[ids]).all())


def _digest_own(recipe: Recipe, described: DataCard, run: RunDir) -> ImageDigests | None:
    """Compute the digests of a run that has none, if its data is at hand and fits into memory."""
    try:
        dataset = reopen_dataset(recipe, described)
        splits = [dataset.split(name) for name in LEARNT_FROM]
        pixels = recipe.size**2 * recipe.channels
        if sum(map(len, splits)) * pixels > recipe.memory_gib * 2**30:
            return None
        if dataset.digest != described.digest:
            return None
        digests = ImageDigests.unread(**{part.name: len(part) for part in splits})
        for part in (dataset.train, dataset.val):
            digests.read_all(part, recipe.workers)
    except (DataError, UsageError, OSError):
        return None
    say("the run has no digests of its images: computed now, from the images at their old place")
    try:
        run.write_digests({k: torch.from_numpy(v) for k, v in digests.to_arrays().items()})
    except CheckpointError as error:
        say(f"warning: the digests are not kept in the run: {error}")
    return digests


def _find_seen(
    images: Split, digests: ImageDigests | None, workers: int, team: Team
) -> tuple[NDArray[np.int64], tuple[NDArray[np.bool_], NDArray[np.bool_]] | None]:
    """The digest of each image, and (seen, near): which images the run learnt from, and which
    others look like copies of those; None where the run has no digests.

    Each process of a team reads a share of the images, and the first one compares.
    """
    run_has_digests = team.broadcast(digests is not None)
    rank, ranks, n = team.rank, team.ranks, len(images)
    own_ids = np.arange(n * rank // ranks, n * (rank + 1) // ranks)
    current = SplitDigests.unread(n)

    with team.all_or_none():
        title = f"looking for images of {images.name} that it was trained on"
        with progress(title, len(own_ids), "images") as bar:
            for start in range(0, len(own_ids), IMAGES_PER_REPORT):
                ids = own_ids[start : start + IMAGES_PER_REPORT]
                current.read(images, ids, workers)
                bar.advance(len(ids))
    exact, perceptual = (
        torch.stack(team.gather(torch.from_numpy(share))).sum(0)
        for share in (current.exact, current.perceptual)
    )
    if not run_has_digests:
        return exact.numpy(), None
    matches = torch.zeros(2, n, dtype=torch.int64)
    if team.leads and digests is not None:
        is_seen = digests.has(exact.numpy())
        matches[0] = torch.from_numpy(is_seen)
        matches[1] = torch.from_numpy(digests.has_near(perceptual.numpy()) & ~is_seen)
    seen, near = team.sum(matches).numpy() > 0
    return exact.numpy(), (seen, near)


def _take(images: Split, ids: NDArray[np.intp], dataset: Dataset) -> Split:
    """Some images of a split. DataError where there is none."""
    if not len(ids):
        raise DataError(
            f"{dataset.image_set.path}: the run was trained or validated on all of its "
            f"{len(images):,} images: name new ones with {option('data')} "
            f"({option('with_seen', True)} measures on them all the same)"
        )
    return images.take(ids)
