"""A network's answers for every image of a split: class probabilities, and its mistakes."""

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
from alexnet.support.terminal import progress
from alexnet.training.evaluate import batch_starts, evaluate
from alexnet.training.parallel import ALONE, Team


@dataclass(frozen=True)
class Answers:
    """Probabilities float32 (N, K) of the split's images, in order, and the sums over them."""

    split: Split
    probabilities: NDArray[np.float32]
    tally: Tally

    @property
    def predicted(self) -> NDArray[np.intp]:
        """The most likely class of each image (N,)."""
        predicted: NDArray[np.intp] = self.probabilities.argmax(1)
        return predicted

    @property
    def confusion(self) -> NDArray[Any]:
        """Number of images (K, K); rows are true classes, columns predicted ones."""
        return np.asarray(self.tally.confusion)


class Mistakes:
    """The `limit` wrongly classified images with the highest confidence, the highest first.

    They are selected batch by batch, so that memory does not grow with the split. `ids`,
    `predicted` (classes) and `confidence` (their probabilities) are (M,), M <= limit; `count` is
    the number of all mistakes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self.ids, self.predicted = np.zeros(0, np.intp), np.zeros(0, np.intp)
        self.confidence = np.zeros(0, np.float32)

    def add(
        self, first: int, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> None:
        """Add the images of the split from index `first` on.

        Shapes: probabilities (N, K), NaN for images that were not read; labels (N,).
        """
        classes = probabilities.argmax(1)
        wrong = np.flatnonzero((classes != labels) & ~np.isnan(probabilities[:, 0]))
        self.count += len(wrong)
        ids = np.append(self.ids, first + wrong)
        predicted = np.append(self.predicted, classes[wrong])
        confidence = np.append(self.confidence, probabilities.max(1)[wrong])
        highest = np.argsort(-confidence, kind="stable")[: self.limit]
        self.ids, self.predicted = ids[highest], predicted[highest]
        self.confidence = confidence[highest]

    def merge(self, team: Team) -> None:
        """Merge the mistakes of all ranks, on every rank, into those of a single process."""
        # Row 0: the count. Then a row for each mistake (id, predicted, confidence), -1 if unused.
        own = torch.full((1 + self.limit, 3), -1.0, dtype=torch.float64)
        own[0] = self.count
        mistakes = np.stack([self.ids, self.predicted, self.confidence], 1, dtype=np.float64)
        own[1 : 1 + len(mistakes)] = torch.from_numpy(mistakes)
        of_ranks = torch.stack(team.gather(own)).numpy()
        ids, predicted, confidence = of_ranks[:, 1:][of_ranks[:, 1:, 0] >= 0].T
        highest = np.lexsort((ids, -confidence))[: self.limit]
        self.count = int(of_ranks[:, 0, 0].sum())
        self.ids = ids[highest].astype(np.intp)
        self.predicted = predicted[highest].astype(np.intp)
        self.confidence = confidence[highest].astype(np.float32)


def ask(
    net: nn.Module,
    split: Split,
    preprocess: Preprocess,
    recipe: Recipe,
    classes: int,
    views: int = 1,
) -> Answers:
    """Run every image of a split through a network, and keep all probabilities."""
    probabilities = np.empty((len(split), classes), np.float32)

    def store(first: int, batch: NDArray[np.float32]) -> None:
        probabilities[first : first + len(batch)] = batch

    tally = count_answers(net, split, preprocess, recipe, classes, views, store)
    return Answers(split, probabilities, tally)


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
    """Run every image of a split through a network for inference, in the recipe's batches.

    Calls each(index of the first image, probabilities (N, K)) for every batch, so that memory is
    that of a few batches. The ranks of a team share the batches, and all return the same sums.
    Images that cannot be read are not counted; they go to `unread`, or raise an error without one.
    """
    starts = batch_starts(len(split), recipe.eval_batch, views)
    own_images = sum(min(starts.step, len(split) - i) for i in starts[team.rank :: team.ranks])
    share = f", the first of {team.ranks} shares" if team.ranks > 1 else ""
    with progress(f"testing {split.name}{share}", own_images, "images") as bar:

        def after_batch(first: int, batch: torch.Tensor) -> None:
            each(first, batch.numpy())
            bar.advance(len(batch))

        return evaluate(
            net,
            split,
            preprocess,
            classes,
            views=views,
            batch=recipe.eval_batch,
            workers=recipe.workers,
            each=after_batch,
            team=team,
            unread=unread,
        )
