"""Images that a network was not trained on, and what a file makes of them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.data.loader import read_in_order
from alexnet.data.splits import Split, Unread
from alexnet.errors import Unreadable
from alexnet.interchange.chain import Function
from alexnet.metrics import Tally
from alexnet.terminal import progress, say

BATCH = 64


def some_readable(part: Split, count: int) -> NDArray[np.integer]:
    """Those of `some_of` that can be read. Raises Unreadable where none can."""
    ids = some_of(part, count)
    _, unread = part.try_read(ids)
    if len(unread) == len(ids):
        raise Unreadable(part.name, unread)
    return ids[~np.isin(ids, list(unread))]


def some_of(part: Split, count: int) -> NDArray[np.int64]:
    """At most `count` indices, spread over a slice, which may be sorted by class."""
    return np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).astype(np.int64))


@torch.inference_mode()
def tally_scores(
    scores: Function, part: Split, classes: int, skip: NDArray[np.int64] | None = None
) -> Tally:
    """Loss, top-1 and top-5 of anything that gives logits, or logarithms of probabilities, of
    stored images. `skip` are indices that are left out; so is what cannot be read."""
    tally = Tally(classes)
    kept, unread = torch.ones(len(part), dtype=torch.bool), Unread()
    if skip is not None:
        kept[torch.from_numpy(skip)] = False
    with progress(f"measuring on {part.name}", len(part), "images") as bar:
        for start in range(0, len(part), BATCH):
            block = read_in_order(part, start, BATCH, unread)
            own = kept[torch.from_numpy(block.ids)]
            if own.any():
                found, labels = scores(block.images[own]), block.labels[own]
                losses = F.cross_entropy(found, labels, reduction="none")
                tally.add(found, labels, losses)
            bar.advance(len(block.labels))
    if unread:
        path, why = next(iter(unread.values()))
        say(f"warning: {part.name}: {len(unread):,} images cannot be read: {path}: {why}, ...")
    if unread and not tally.n:
        raise Unreadable(part.name, unread)
    return tally
