"""What a network says of every image of a split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.data.augment import Preprocess
from alexnet.data.splits import Split, Unread
from alexnet.metrics import Tally
from alexnet.recipe import Recipe
from alexnet.terminal import progress
from alexnet.training.evaluate import batch_starts, evaluate
from alexnet.training.parallel import ALONE, Team


@dataclass(frozen=True)
class Answers:
    """probabilities float32 (N, K) of the split's images, in order, and the sums over them."""

    split: Split
    probabilities: NDArray[np.float32]
    tally: Tally

    @property
    def said(self) -> NDArray[np.intp]:
        """The likeliest class of each image (N,)."""
        found: NDArray[np.intp] = self.probabilities.argmax(1)
        return found

    @property
    def confusion(self) -> NDArray[Any]:
        """Counts (K, K), rows the true classes."""
        return np.asarray(self.tally.confusion)


class Mistakes:
    """The images named wrongly that a network is surest of, `limit` of them, the surest first.

    Kept while a split goes by, so that memory does not grow with it. ids, said (the class that was
    named) and sure (its probability) are (M,), M <= limit; `count` is of all mistakes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self.ids, self.said = np.zeros(0, np.intp), np.zeros(0, np.intp)
        self.sure = np.zeros(0, np.float32)

    def add(
        self, first: int, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> None:
        """The next images of the split: probabilities (N, K), NaN where there are none, labels
        (N,)."""
        said = probabilities.argmax(1)
        wrong = np.flatnonzero((said != labels) & ~np.isnan(probabilities[:, 0]))
        self.count += len(wrong)
        ids, said = np.append(self.ids, first + wrong), np.append(self.said, said[wrong])
        sure = np.append(self.sure, probabilities.max(1)[wrong])
        best = np.argsort(-sure, kind="stable")[: self.limit]
        self.ids, self.said, self.sure = ids[best], said[best], sure[best]

    def merge(self, team: Team) -> None:
        """Makes of what each rank kept what one process would have kept, on every rank."""
        own = torch.full((1 + self.limit, 3), -1.0, dtype=torch.float64)
        own[0] = self.count
        kept = np.stack([self.ids, self.said, self.sure], 1, dtype=np.float64)
        own[1 : 1 + len(kept)] = torch.from_numpy(kept)
        every = torch.stack(team.gather(own)).numpy()
        ids, said, sure = every[:, 1:][every[:, 1:, 0] >= 0].T
        best = np.lexsort((ids, -sure))[: self.limit]
        self.count = int(every[:, 0, 0].sum())
        self.ids, self.said = ids[best].astype(np.intp), said[best].astype(np.intp)
        self.sure = sure[best].astype(np.float32)


def ask(
    net: nn.Module,
    split: Split,
    preprocess: Preprocess,
    recipe: Recipe,
    classes: int,
    views: int = 1,
) -> Answers:
    """Runs every image of a split through a network and keeps each one's probabilities."""
    probabilities = np.empty((len(split), classes), np.float32)

    def keep(first: int, block: NDArray[np.float32]) -> None:
        probabilities[first : first + len(block)] = block

    return Answers(
        split, probabilities, count_answers(net, split, preprocess, recipe, classes, views, keep)
    )


def count_answers(
    net: nn.Module,
    split: Split,
    preprocess: Preprocess,
    recipe: Recipe,
    classes: int,
    views: int,
    each: Callable[[int, NDArray[np.float32]], None],
    team: Team = ALONE,
    unread: Unread | None = None,
) -> Tally:
    """Runs every image of a split through a network made for inference, in the recipe's batches.

    `each` is given (index of the first image, probabilities (N, K)) a batch; memory is that of a
    few batches. The ranks of a team take the batches in turn, and all have the sums. Where `unread`
    is given, images that cannot be read come to it, and are not counted.
    """
    starts = batch_starts(len(split), recipe.eval_batch, views)
    own = sum(min(starts.step, len(split) - i) for i in starts[team.rank :: team.ranks])
    share = f", the first of {team.ranks} shares" if team.ranks > 1 else ""
    with progress(f"testing {split.name}{share}", own, "images") as bar:

        def note(first: int, block: torch.Tensor) -> None:
            each(first, block.numpy())
            bar.advance(len(block))

        return evaluate(
            net,
            split,
            preprocess,
            classes,
            views=views,
            batch=recipe.eval_batch,
            workers=recipe.workers,
            each=note,
            team=team,
            unread=unread,
        )
