"""The labelled images that a trained network is measured on: its own held-out ones, or others.

    own       the data that the run was trained on, where it was or where it was moved to: its
              splits, cut as they were
    others    anything else: never cut, all of it or all of one part, classes joined by name

Whatever is measured on is held against the digests of the images that the run was trained and
validated on. Those that it has seen are counted, and left out unless they are asked for.
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
from alexnet.options import option
from alexnet.recipe import Recipe
from alexnet.runs.records import DataCard, EvalImages, UnreadFile
from alexnet.runs.rundir import RunDir
from alexnet.terminal import progress, say
from alexnet.training.parallel import ALONE, Team

T = TypeVar("T")

AT_ONCE = 1024  # images between two reports of progress
SAMPLE = 64  # images by which a moved folder is known again
LOOKED_AT = 500  # files, for an EXIF orientation that is ignored
LEARNT_FROM = ("train", "val")


@dataclass
class EvaluationSet:
    """Images with the labels of a network's classes, and what was left out of them.

    `images` are those to measure on, in the order of `dataset.split(split)`, of which they are the
    rows `kept`. `own` tells the run's own data from others. `seen` counts the images that the run
    was trained or validated on, which are left out unless `with_seen`; None where that is not
    known, or where the split is one that it learnt from. `near` counts others that look like copies
    of such images, saved anew, resized or mirrored, which are measured all the same. `ignored`
    counts the images of classes that the network does not know; `absent` are those of its classes
    that have no image here. `lying` counts files whose EXIF orientation the run ignores, of as many
    as were looked at. `unreadable` are the images that cannot be read, as far as
    they have been: they are left out too. `repeated` counts those that are the same as another one
    here, pixel for pixel, and `contradicted` those that have such a copy of another class.
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
    lying: int = 0
    unreadable: list[UnreadFile] = field(default_factory=list)
    repeated: int = 0
    contradicted: int = 0

    @property
    def path(self) -> str:
        """Where the images lie, or the kind of data that comes along."""
        return self.dataset.source.where

    @cached_property
    def _all_names(self) -> list[str]:
        return self.dataset.names(self.split)

    @property
    def names(self) -> list[str]:
        """What each image is called, as `Dataset.names`."""
        return [self._all_names[i] for i in self.kept]

    def around(self, work: Callable[[Split], T]) -> T:
        """What `work` makes of the images, without those that cannot be read: once it comes upon
        one, it is begun anew without it."""
        while True:
            try:
                return work(self.images)
            except Unreadable as error:
                self.leave_out(error)

    def leave_out(self, error: Unreadable) -> None:
        """Takes images that cannot be read out of `images`, whose indices the error has, and lets
        people and the run know."""
        if not isinstance(self.images.pixels, ImageFiles):
            raise error
        rest = np.setdiff1d(np.arange(len(self.images)), list(error.images))
        if not len(rest):
            raise Unreadable(self.split, error.images, "none of them can be read: see why")
        self.note(error.images)
        self.images, self.kept = self.images.take(rest), self.kept[rest]

    def note(self, unread: Unread) -> int:
        """Names images that cannot be read, by their indices in `images`, and lets the run know of
        them, so that the folder may change in these; how many it did not know."""
        if not unread:
            return 0
        by_place = {int(self.kept[i]): why for i, why in unread.items()}
        self.unreadable += [
            UnreadFile(path=self.dataset.inside(path), reason=why) for path, why in unread.values()
        ]
        return self.dataset.note(Unreadable(self.split, by_place))

    def share(self, other: "EvaluationSet") -> bool:
        """Keeps in both sets the images that they have in common, in one order; False, and nothing
        is changed, where they differ by more than what was left out of them."""
        mine, theirs = self.names, other.names
        gone = {*self._all_names} - {*mine} | {*other._all_names} - {*theirs}
        if {*mine} ^ {*theirs} - gone:
            return False
        common = {*mine} & {*theirs}
        for one, names in ((self, mine), (other, theirs)):
            rows = np.array([i for i, name in enumerate(names) if name in common], np.intp)
            one.images, one.kept = one.images.take(rows), one.kept[rows]
        return self.names == other.names and bool(common)

    def figures(self) -> EvalImages:
        """What a figure of these images is to say of them."""
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
        """What was left out, a line each, for people."""
        notes = []
        if not self.own:
            notes.append(
                f"{self.path}: {count_images(self._all)}, {self.dataset.describe_splits()}"
            )
        if self.seen:
            what = (
                "the figure counts them"
                if self.with_seen
                else f"left out ({option('with_seen', True)} keeps them)"
            )
            of = count_images(self._all)
            notes.append(f"the run was trained or validated on {self.seen:,} of {of}: {what}")
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
        if self.lying:
            notes.append(
                f"warning: {count_images(self.lying)} or more have an EXIF orientation, and are "
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
            many = len(self.absent)
            known = many + len(np.unique(self.images.labels))
            notes.append(f"{many} of {known} classes have no image here: {name_some(self.absent)}")
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
    """The run's own split, or the images of `data`.

    `described` is what the run says of its data, `run` its folder, where its digests are. Without
    `split` it is `default` of the run's own data, and of others test, else val, else all.
    The processes of a team share the reading. Raises UsageError for a split that is not there, and
    DataError where `data` holds a class that the network does not know (unless `ignore_unknown`),
    or nothing but images that it has seen (unless `with_seen`).
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
        dataset, others = own, None
        if own is None:
            assert data is not None
            dataset = others = _open_others(recipe, described, data, split, ignore_unknown)
            images = others.split(name := others.split_name)
        else:
            images = own.split(name := _own_split(split, ignore_unknown, default))
            if own.own_part(name) is None and digests and not _same_images(own, digests, recipe):
                raise DataError(
                    f"{own.source.path}: images changed since the run began, under the names that "
                    f"they had, and {name} is cut out of them: what was trained on would be in "
                    f"{name} now; put them back, or name other images with {option('data')}"
                )
    assert dataset is not None
    if others is not None and digests is None and run is not None and team.leads:
        digests = _digest_own(recipe, described, run)
    found = EvaluationSet(
        dataset,
        name,
        images,
        np.arange(len(images)),
        others is None,
        None,
        None,
        with_seen,
        others.ignored if others else {},
        others.absent if others else (),
        _count_lying(images) if others else 0,
    )
    if team.size == 1:  # read twice: for digests, then for answers
        found.around(lambda whole: _in_memory(found, whole, recipe))
    if others is not None or name not in LEARNT_FROM:
        exact, matches = _find_seen(found.images, digests, recipe.workers, team)
        if matches is not None:
            is_seen, is_near = matches
            found.seen, found.near = int(is_seen.sum()), int(is_near.sum())
            if found.seen and not with_seen:
                rest = np.flatnonzero(~is_seen)
                with team.all_or_none():
                    found.images = _take(found.images, rest, dataset)
                found.kept, exact = found.kept[rest], exact[rest]
        found.repeated, found.contradicted = _count_repeated(exact, found.images.labels)
    return found


def _open_others(
    recipe: Recipe,
    described: DataCard,
    data: str | Path,
    split: str | None,
    ignore_unknown: bool,
) -> ExternalSet:
    """Images that the run does not have for its own."""
    source = open_image_set(find_data(recipe, data), to_train=False, known=described.classes)
    check_orient(source, recipe, described)
    return ExternalSet(source, recipe, described.classes, split, ignore_unknown=ignore_unknown)


def _own_split(split: str | None, ignore_unknown: bool, default: str) -> str:
    """Which split of the run's own data is meant."""
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
    """How many images are the same as one before them, and how many have a copy with another
    label. Shapes: (N,), (N,)."""
    known = exact != UNREAD
    first_labels: dict[int, int] = {}
    odd: set[int] = set()
    for digest, label in zip(exact[known].tolist(), labels[known].tolist(), strict=True):
        if first_labels.setdefault(digest, label) != label:
            odd.add(digest)
    return int(known.sum()) - len(first_labels), int(np.isin(exact[known], list(odd)).sum())


def _in_memory(found: EvaluationSet, images: Split, recipe: Recipe) -> None:
    """Decodes the images, where they fit; raises Unreadable for those that cannot be read."""
    missing: Unread = {}
    kept = images.resident(recipe.workers, recipe.memory_gib * 2**30, missing.update)
    if missing:
        raise Unreadable(images.name, missing)
    found.images = kept


def _count_lying(images: Split) -> int:
    """Of up to LOOKED_AT files, those whose EXIF orientation is ignored."""
    if images.orient != "ignore" or not isinstance(images.pixels, ImageFiles):
        return 0
    ids = np.unique(np.linspace(0, len(images.pixels) - 1, LOOKED_AT).astype(int))
    return sum(lies_turned(images.pixels.source(i)) for i in ids)


def count_images(n: int) -> str:
    return f"{n:,} image" if n == 1 else f"{n:,} images"


def read_digests(run: RunDir) -> ImageDigests | None:
    """The digests of the images that a run learnt from, where it kept them."""
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
    """The data that a run was trained on: where it says, or at `data` if it was moved there.

    None where `data` holds other images: another folder is the run's own if it lists the same files
    and some of the images that it was trained on, or where it kept no digests all, are the same.
    """
    if data is None:
        return reopen_dataset(recipe, described)
    try:
        source = open_image_set(find_data(recipe, data), rules=rules_of(described), aloud=False)
    except DataError:
        return None
    if source.kind != described.kind or source.classes != tuple(described.classes):
        return None
    dataset = Dataset(source, recipe, described)
    if described.path == source.path:
        check_orient(source, recipe, described)
        return dataset
    if described.listing not in (None, dataset.listing):
        return None
    if source.digest and described.listing is not None:  # of a packed set it is of the content
        return dataset
    if digests is not None:
        same = _same_images(dataset, digests, recipe)
    else:
        same = dataset.digest == described.digest
    return dataset if same else None


def _same_images(dataset: Dataset, digests: ImageDigests, recipe: Recipe) -> bool:
    """Whether some training images, drawn by a fixed rule, are those that the run kept digests of;
    those that it could not read are not asked."""
    train, kept = dataset.split("train"), digests.splits["train"].exact
    if len(kept) != len(train):
        return False
    ids = draws.permutation(0, 0, len(train), draws.SPLIT)
    out = [image.index for image in dataset.bad if image.split == "train"]
    ids = ids[(kept[ids] != UNREAD) & ~np.isin(ids, out)][:SAMPLE]
    here = SplitDigests.unread(len(train))
    here.read(train, ids, recipe.workers)
    ids = ids[here.exact[ids] != UNREAD]
    return bool((here.exact[ids] == kept[ids]).all())


def _digest_own(recipe: Recipe, described: DataCard, run: RunDir) -> ImageDigests | None:
    """Digests for a run that kept none, where its data is still at hand and not too large."""
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
    say("the run kept no digests of its images: made now, from where they were")
    try:
        run.write_digests({k: torch.from_numpy(v) for k, v in digests.to_arrays().items()})
    except CheckpointError as error:
        say(f"warning: not kept: {error}")
    return digests


def _find_seen(
    images: Split, digests: ImageDigests | None, workers: int, team: Team
) -> tuple[NDArray[np.int64], tuple[NDArray[np.bool_], NDArray[np.bool_]] | None]:
    """The digest of each image; and which ones the run learnt from, and which others look like
    copies of such, or None where that is not known. The processes of a team read a share each, and
    the first one judges."""
    known = team.broadcast(digests is not None)
    rank, ranks, n = team.rank, team.ranks, len(images)
    own = np.arange(n * rank // ranks, n * (rank + 1) // ranks)
    here = SplitDigests.unread(n)

    with team.all_or_none():
        title = f"looking for images of {images.name} that it was trained on"
        with progress(title, len(own), "images") as bar:
            for start in range(0, len(own), AT_ONCE):
                ids = own[start : start + AT_ONCE]
                here.read(images, ids, workers)
                bar.advance(len(ids))
    exact, perceptual = (
        torch.stack(team.gather(torch.from_numpy(share))).sum(0)
        for share in (here.exact, here.perceptual)
    )
    if not known:
        return exact.numpy(), None
    matches = torch.zeros(2, n, dtype=torch.int64)
    if team.leads and digests is not None:
        is_seen = digests.has(exact.numpy())
        matches[0] = torch.from_numpy(is_seen)
        matches[1] = torch.from_numpy(digests.has_near(perceptual.numpy()) & ~is_seen)
    seen, near = team.sum(matches).numpy() > 0
    return exact.numpy(), (seen, near)


def _take(images: Split, kept: NDArray[np.intp], dataset: Dataset) -> Split:
    if not len(kept):
        raise DataError(
            f"{dataset.source.path}: the run was trained or validated on all of its "
            f"{len(images):,} images: name new ones with {option('data')} "
            f"({option('with_seen', True)} measures them all "
            "the same)"
        )
    return images.take(kept)
