"""Held-out images: a spread selection of them, and the accuracy of any function on them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.data.loader import read_in_order
from alexnet.data.splits import Split, Unread
from alexnet.errors import Unreadable
from alexnet.interchange.end_to_end import Function
from alexnet.metrics import Tally
from alexnet.support.terminal import progress, say

BATCH_SIZE = 64


def spread_indices(part: Split, count: int) -> NDArray[np.int64]:
    """At most `count` indices, evenly spread over a slice, which may be sorted by class."""
    return np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).astype(np.int64))


def spread_readable_indices(part: Split, count: int) -> NDArray[np.integer]:
    """The indices of `spread_indices` that can be read. Raises Unreadable where there is none."""
    ids = spread_indices(part, count)
    _, unread = part.try_read(ids)
    if len(unread) == len(ids):
        raise Unreadable(part.name, unread)
    return ids[~np.isin(ids, list(unread))]


@torch.inference_mode()
def tally_scores(
    scores: Function, part: Split, classes: int, skip: NDArray[np.int64] | None = None
) -> Tally:
    """Loss, top-1 and top-5 of a function on the images of a slice.

    `scores` maps stored images to logits or log probabilities. The indices in `skip` are left out,
    and so are images that cannot be read.
    """
    tally = Tally(classes)
    selected, unread = torch.ones(len(part), dtype=torch.bool), Unread()
    if skip is not None:
        selected[torch.from_numpy(skip)] = False
    with progress(f"measuring on {part.name}", len(part), "images") as bar:
        for start in range(0, len(part), BATCH_SIZE):
            block = read_in_order(part, start, BATCH_SIZE, unread)
            chosen = selected[torch.from_numpy(block.ids)]
            if chosen.any():
                logits, labels = scores(block.images[chosen]), block.labels[chosen]
                losses = F.cross_entropy(logits, labels, reduction="none")
                tally.add(logits, labels, losses)
            bar.advance(len(block.labels))
    if unread:
        path, why = next(iter(unread.values()))
        say(f"warning: {part.name}: {len(unread):,} images cannot be read: {path}: {why}, ...")
    if unread and not tally.n:
        raise Unreadable(part.name, unread)
    return tally
