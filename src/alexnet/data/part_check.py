"""Checks the parts that a training reads late or never, before it begins."""

import time
from concurrent.futures import ThreadPoolExecutor

from alexnet.data import draws
from alexnet.data.dataset import Dataset
from alexnet.data.image_set import ImageFiles, Unlabelled
from alexnet.data.splits import Split, Unread
from alexnet.errors import DataError, Unreadable
from alexnet.options import option
from alexnet.terminal import say

MOST = 5_000  # images of a part that are decoded to see whether they can be
SECONDS = 15.0  # after which those must do that were decoded
AT_ONCE = 32
NAMED = 10


def check_parts(dataset: Dataset) -> None:
    """Refuses a test or validation part of its own that contradicts the training part, and names
    images of it that cannot be read. A test part without any labels is no fault: it is said."""
    if (part := dataset.own_part("test")) is not None and _is_labelled(dataset, part):
        _name_damaged(dataset, part)
    part = dataset.own_part("val")
    if (
        part is None
        or not _has_files(dataset, part)
        or not dataset.is_large(val := dataset.split("val"))
    ):
        return
    unread, _ = _sample(val, dataset.recipe.workers)
    if unread and dataset.recipe.bad_images == "skip":
        dataset.leave_out(Unreadable("val", unread))
    elif unread:
        raise Unreadable("val", unread).advised(f"leave it out with {option('bad_images', 'skip')}")


def _has_files(dataset: Dataset, part: str) -> bool:
    return isinstance(dataset.source.read(part).images, ImageFiles)


def _name_damaged(dataset: Dataset, part: str) -> None:
    if not _has_files(dataset, part):
        return
    test = dataset.split("test")
    unread, tried = _sample(test, dataset.recipe.workers)
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
        labels = dataset.source.read(part).labels
    except Unlabelled as error:
        say(f"the test part has no labels, so nothing can be tested on it: {error}")
        return False
    if (labels < 0).all():
        say(
            "the test part has no labels, so nothing can be tested on it: use "
            f"{option('split', 'val')} then"
        )
        return False
    if unknown := int((labels < 0).sum()):
        raise DataError(
            f"{dataset.source.path}: {unknown:,} of {len(labels):,} images of the test part have "
            "no label: pack it with all labels, or without the part"
        )
    return True


def _sample(split: Split, workers: int) -> tuple[Unread, int]:
    """Images of a split that cannot be read, and how many were tried: all, or as many of a fixed
    shuffle as there is time for."""
    order = draws.permutation(0, 0, len(split), draws.SPLIT)[:MOST]
    chunks = [order[i : i + AT_ONCE] for i in range(0, len(order), AT_ONCE)]
    until, unread, tried = time.monotonic() + SECONDS, Unread(), 0
    count = max(workers, 1)
    with ThreadPoolExecutor(count) as pool:
        for i in range(0, len(chunks), count):
            for chunk, (_, missing) in zip(
                chunks[i : i + count], pool.map(split.try_read, chunks[i : i + count]), strict=True
            ):
                unread |= missing
                tried += len(chunk)
            if time.monotonic() > until:
                break
    return {int(i): unread[i] for i in sorted(unread)}, tried
