"""Looks for images that cannot be read, before a training begins or goes on.

check_parts   the val and test parts, which a training reads late or never
update_fates  the images that a run could not read: each is read again, left out, or the run stops
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.data import draws
from alexnet.data.bad_images import bad_image_event, most_left_out, remedy
from alexnet.data.dataset import STATISTICS_IMAGES, Dataset
from alexnet.data.image_set import GONE, ImageFiles, Unlabelled
from alexnet.data.loader import steps_per_epoch
from alexnet.data.splits import Split, Unread
from alexnet.errors import DataError, Unreadable
from alexnet.records import BadImage, Fate
from alexnet.runs.rundir import RunDir
from alexnet.support.options import AdvisedCall, option
from alexnet.support.terminal import say

# Images of a val or test part that are decoded before a training, and the seconds after which no
# further ones are begun.
SAMPLE_IMAGES = 5_000
SAMPLE_S = 15.0
IMAGES_PER_CHUNK = 32
NAMED = 10  # images in a message

LEARNT_FROM = ("train", "val")
FATE_LINES = {
    "left out": "cannot be read, and is left out from here on",
    "removed": "is gone, and left out from here on",
    "repaired": "can be read again",
    "replaced": "is another image now, which is read from here on",
}


# Parts that are read late


def check_parts(dataset: Dataset) -> None:
    """Check the test and val parts of the set, before a training begins.

    Images of the test part that cannot be read, or a test part without labels, give a warning.
    Images of a large val part that cannot be read are left out, or raise Unreadable, as the recipe
    says. DataError for a test part of which only some images have labels.
    """
    if (part := dataset.own_part("test")) is not None and _is_labelled(dataset, part):
        _warn_of_unreadable(dataset, part)
    part = dataset.own_part("val")
    if (
        part is None
        or not _has_files(dataset, part)
        or not dataset.is_large(val := dataset.split("val"))
    ):
        return
    unread, _ = _read_sample(val, dataset.recipe.workers)
    if unread and dataset.recipe.bad_images == "skip":
        dataset.leave_out(Unreadable("val", unread))
    elif unread:
        raise Unreadable("val", unread).advised(f"leave it out with {option('bad_images', 'skip')}")


def _has_files(dataset: Dataset, part: str) -> bool:
    return isinstance(dataset.image_set.read(part).images, ImageFiles)


def _warn_of_unreadable(dataset: Dataset, part: str) -> None:
    if not _has_files(dataset, part):
        return
    test = dataset.split("test")
    unread, tried = _read_sample(test, dataset.recipe.workers)
    if unread:
        names = [f"{path} ({reason})" for path, reason in unread.values()]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        of = f"the {len(test):,}" if tried == len(test) else f"{tried:,} tried of {len(test):,}"
        say(
            f"warning: {len(unread):,} of {of} images of the test part cannot be read, and a "
            f"test will leave them out: {', '.join(names[:NAMED])}{more}"
        )
    elif tried < len(test):
        say(f"test part: {tried:,} of {len(test):,} images tried, all can be read")


def _is_labelled(dataset: Dataset, part: str) -> bool:
    try:
        labels = dataset.image_set.read(part).labels
    except Unlabelled as error:
        say(f"the test part has no labels, so nothing can be tested on it: {error}")
        return False
    if (labels < 0).all():
        say(
            "the test part has no labels, so nothing can be tested on it: use "
            f"{option('split', 'val')} then"
        )
        return False
    if unlabelled := int((labels < 0).sum()):
        raise DataError(
            f"{dataset.image_set.path}: {unlabelled:,} of {len(labels):,} images of the test part "
            "have no label: pack it with all labels, or without the part"
        )
    return True


def _read_sample(split: Split, workers: int) -> tuple[Unread, int]:
    """The images of a split that cannot be read, and how many were tried: the first ones of a fixed
    shuffle, as far as there is time."""
    order = draws.permutation(0, 0, len(split), draws.SPLIT)[:SAMPLE_IMAGES]
    chunks = [order[i : i + IMAGES_PER_CHUNK] for i in range(0, len(order), IMAGES_PER_CHUNK)]
    deadline, unread, tried = time.monotonic() + SAMPLE_S, Unread(), 0
    count = max(workers, 1)
    with ThreadPoolExecutor(count) as pool:
        for i in range(0, len(chunks), count):
            for chunk, (_, chunk_unread) in zip(
                chunks[i : i + count], pool.map(split.try_read, chunks[i : i + count]), strict=True
            ):
                unread |= chunk_unread
                tried += len(chunk)
            if time.monotonic() > deadline:
                break
    return {int(i): unread[i] for i in sorted(unread)}, tried


# Images that a run could not read


def update_fates(dataset: Dataset, run: RunDir, step: int, again: AdvisedCall) -> None:
    """Decide, before a run goes on, what becomes of the images that it stopped for, and of files
    whose size changed since it began.

    An image that can be read is read, and one that is gone is left out. One that cannot be read is
    left out where the recipe skips such images; otherwise it raises Unreadable. Every fate is
    recorded in the run, with what it means for the bits of the weights.
    """
    waiting = [i for i in dataset.bad_images if i.fate == "reported" and i.split in LEARNT_FROM]
    _record(dataset, run, [_fate_of(dataset, image, step) for image in waiting], again)
    resized: dict[str, Unread] = {}
    for split, index, _, _ in dataset.resized_files():
        resized.setdefault(split, {}).update(dataset.split(split).try_read(np.array([index]))[1])
    for split, unread in resized.items():
        _record_unread(dataset, run, step, again, split, unread)
    for split in LEARNT_FROM:  # a split that is kept in memory is read now
        try:
            getattr(dataset, split)
        except Unreadable as error:
            _record_unread(dataset, run, step, again, split, error.images)


def _fate_of(dataset: Dataset, image: BadImage, step: int) -> BadImage:
    """The image with its fate since the run stopped for it."""
    split = dataset.split(image.split)
    files = split.pixels if isinstance(split.pixels, ImageFiles) else None
    if files is not None and files.size(image.index) == GONE:
        return replace(image, fate="removed", step=step)
    unread = split.try_read(np.array([image.index]))[1]
    if unread:
        image = replace(image, reason=next(iter(unread.values()))[1])
        skips = dataset.recipe.bad_images == "skip"
        return replace(image, fate="left out", step=step) if skips else image
    size = GONE if files is None else files.size(image.index)
    same_size = size == (dataset.recorded_size(image.path) or size)
    if same_size or not _was_read_before(dataset, image):
        return replace(image, fate="repaired")
    return replace(image, fate="replaced", size=size)


def _was_read_before(dataset: Dataset, image: BadImage) -> bool:
    """Whether the run may have used an image before it could no longer read it."""
    split = dataset.split(image.split)
    if image.split != "train" or len(split) <= STATISTICS_IMAGES:
        return True
    in_statistics = draws.permutation(0, 0, len(split), draws.SPLIT)[:STATISTICS_IMAGES]
    first_epoch = image.step < steps_per_epoch(len(split), dataset.recipe.batch_size)
    return not first_epoch or image.index in in_statistics


def _record_unread(
    dataset: Dataset, run: RunDir, step: int, again: AdvisedCall, split: str, unread: Unread
) -> None:
    """Record images of a split that can no longer be read."""
    fate: Fate = "left out" if dataset.recipe.bad_images == "skip" else "reported"
    images = [
        BadImage(dataset.relative_path(path), split, i, reason, step, fate)
        for i, (path, reason) in unread.items()
    ]
    _record(dataset, run, images, again)


def _record(dataset: Dataset, run: RunDir, images: list[BadImage], again: AdvisedCall) -> None:
    """Record the fates of images in the run, and report those that are new.

    Unreadable where the run waits for an image, or where more images would be left out than the
    recipe allows.
    """
    limits: dict[str, int] = {}  # of splits that would lose more images than the recipe allows
    for split in LEARNT_FROM:
        new = [image for image in images if image.split == split and image.fate == "left out"]
        out = [image for image in dataset.bad_images if image.split == split and image.is_out]
        most = most_left_out(dataset.recipe.bad_share, len(dataset.split(split)))
        if new and len(out) + len(new) > most:
            limits[split] = most
    images = [replace(i, fate="reported") if i.split in limits else i for i in images]
    for image in images:
        before = dataset.bad_images.get(image.split, image.index)
        if before is None or before.fate != image.fate:
            run.log(bad_image_event(image))
            if image.fate != "reported":
                say(f"{image.split}: {_file(dataset, image)}: {FATE_LINES[image.fate]}")
    if images:
        dataset.bad_images.put(images)
    for split in LEARNT_FROM:
        waiting = [i for i in dataset.bad_images if i.split == split and i.fate == "reported"]
        if waiting:
            share = dataset.recipe.bad_share if split in limits else None
            advice = remedy(again, min(i.step for i in waiting), share, limits.get(split, 0))
            named = {i.index: (str(_file(dataset, i)), i.reason) for i in waiting}
            raise Unreadable(split, named, advice)


def _file(dataset: Dataset, image: BadImage) -> Path:
    return Path(dataset.image_set.path) / image.path
