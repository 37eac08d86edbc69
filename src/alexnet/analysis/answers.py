"""What a network says of every image of a split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet.data.augment import Preprocess
from alexnet.data.dataset import Slice
from alexnet.engine.evaluate import evaluate
from alexnet.metrics import Tally
from alexnet.recipe import Recipe
from alexnet.terminal import progress


@dataclass(frozen=True)
class Answers:
    """probabilities float32 (N, K) of the split's images, in order, and the sums over them."""

    split: Slice
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


def ask(
    net: nn.Module,
    split: Slice,
    preprocess: Preprocess,
    recipe: Recipe,
    classes: int,
    views: int = 1,
) -> Answers:
    """Runs every image of a split through a network made for inference, in the recipe's batches."""
    probabilities = np.empty((len(split), classes), np.float32)
    with progress(f"testing {split.name}", len(split), "images") as bar:

        def keep(first: int, block: torch.Tensor) -> None:
            probabilities[first : first + len(block)] = block.numpy()
            bar.advance(len(block))

        tally = evaluate(
            net,
            split,
            preprocess,
            classes,
            views=views,
            batch=recipe.eval_batch,
            workers=recipe.workers,
            each=keep,
        )
    return Answers(split, probabilities, tally)
