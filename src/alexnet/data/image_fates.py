"""Decides, before a run goes on, what becomes of each image that it could not read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from alexnet.data import draws
from alexnet.data.bad_images import bad_image_event, most_left_out, remedy
from alexnet.data.dataset import STATISTICS_IMAGES, Dataset
from alexnet.data.image_set import GONE, ImageFiles
from alexnet.data.loader import steps_per_epoch
from alexnet.data.splits import Unread
from alexnet.errors import Unreadable
from alexnet.options import AdvisedCall
from alexnet.runs.records import BadImage
from alexnet.runs.rundir import RunDir
from alexnet.terminal import say

TRAINED_ON = ("train", "val")
SAID = {
    "left out": "cannot be read, and is left out from here on",
    "removed": "is gone, and left out from here on",
    "repaired": "can be read again",
    "replaced": "is another image now, which is read from here on",
}


def update_fates(dataset: Dataset, run: RunDir, step: int, again: AdvisedCall) -> None:
    """Checks each image that the run stopped for, and files that changed since it began: one
    that can be read is read, one that is gone is left out, and one that cannot be read is left out
    where the recipe skips such; else Unreadable is raised, and the run knows of it.

    All of it is kept in the run, with what it means for bits.
    """
    waiting = [i for i in dataset.bad if i.fate == "reported" and i.split in TRAINED_ON]
    _keep(dataset, run, [_fate_of(dataset, image, step) for image in waiting], again)
    changed: dict[str, Unread] = {}
    for split, index, _, _ in dataset.resized():
        changed.setdefault(split, {}).update(dataset.split(split).try_read(np.array([index]))[1])
    for split, unread in changed.items():
        _meet(dataset, run, step, again, split, unread)
    for split in TRAINED_ON:  # where it is kept in memory it is read now
        try:
            getattr(dataset, split)
        except Unreadable as error:
            _meet(dataset, run, step, again, split, error.images)


def _fate_of(dataset: Dataset, image: BadImage, step: int) -> BadImage:
    """What became of an image since the run stopped for it."""
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
    if size == (dataset.size_then(image.path) or size) or not _was_read(dataset, image):
        return replace(image, fate="repaired")
    return replace(image, fate="replaced", size=size)


def _was_read(dataset: Dataset, image: BadImage) -> bool:
    """Whether anything of the run can come from what an image was before it could not be read."""
    split = dataset.split(image.split)
    if image.split != "train" or len(split) <= STATISTICS_IMAGES:
        return True
    seen = draws.permutation(0, 0, len(split), draws.SPLIT)[:STATISTICS_IMAGES]
    first_epoch = image.step < steps_per_epoch(len(split), dataset.recipe.batch_size)
    return not first_epoch or image.index in seen


def _meet(
    dataset: Dataset, run: RunDir, step: int, again: AdvisedCall, split: str, unread: Unread
) -> None:
    """Records images of a split that cannot be read any more."""
    skips = dataset.recipe.bad_images == "skip"
    new = [
        BadImage(dataset.inside(path), split, i, why, step, "left out" if skips else "reported")
        for i, (path, why) in unread.items()
    ]
    _keep(dataset, run, new, again)


def _keep(dataset: Dataset, run: RunDir, images: list[BadImage], again: AdvisedCall) -> None:
    """Keeps the fates of images, and reports new ones. Raises Unreadable where the
    run waits for some, or where more would be left out than the recipe allows."""
    over: dict[str, int] = {}
    for split in TRAINED_ON:
        new = [image for image in images if image.split == split and image.fate == "left out"]
        out = [image for image in dataset.bad if image.split == split and image.is_out]
        most = most_left_out(dataset.recipe.bad_share, len(dataset.split(split)))
        if new and len(out) + len(new) > most:
            over[split] = most
    images = [replace(i, fate="reported") if i.split in over else i for i in images]
    for image in images:
        known = dataset.bad.get(image.split, image.index)
        if known is None or known.fate != image.fate:
            run.log(bad_image_event(image))
            if image.fate != "reported":
                say(f"{image.split}: {_file(dataset, image)}: {SAID[image.fate]}")
    if images:
        dataset.bad.put(images)
    for split in TRAINED_ON:
        waiting = [i for i in dataset.bad if i.split == split and i.fate == "reported"]
        if waiting:
            share = dataset.recipe.bad_share if split in over else None
            advice = remedy(again, min(i.step for i in waiting), share, over.get(split, 0))
            named = {i.index: (str(_file(dataset, i)), i.reason) for i in waiting}
            raise Unreadable(split, named, advice)


def _file(dataset: Dataset, image: BadImage) -> Path:
    return Path(dataset.source.path) / image.path
