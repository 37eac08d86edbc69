"""Evaluation of a network on all images of a split."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.data.augment import Preprocess
from alexnet.data.loader import batches_in_order
from alexnet.data.splits import Split, Unread
from alexnet.metrics import Tally
from alexnet.runtime import autocast
from alexnet.training.parallel import ALONE, Team


def predict_views(
    model: nn.Module, images: Tensor, preprocess: Preprocess, views: int, precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Return the scores that rank the classes, and the log-probabilities.

    Shapes: uint8 (N, size, size, C) -> (N, K) twice. For one view the scores are the logits, which
    do not tie by rounding. For several views they are the logarithm of the mean softmax output,
    computed so that small outputs are not rounded to 0.
    """
    dtype = getattr(model, "kind", torch.float32)  # input type of an `Inference` network
    crops = preprocess.views(images, views, dtype)
    with autocast(images.device, precision):
        logits = model(crops.flatten(0, 1)).float()
    if views == 1:
        return logits, logits.log_softmax(1)
    by_view = logits.log_softmax(1).reshape(views, len(images), -1)
    mean = by_view.logsumexp(0) - math.log(views)
    return mean, mean


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    split: Split,
    preprocess: Preprocess,
    classes: int,
    *,
    views: int = 1,
    precision: str = "fp32",
    batch: int = 500,
    workers: int = 2,
    each: Callable[[int, Tensor], None] | None = None,
    team: Team = ALONE,
    unread: Unread | None = None,
) -> Tally:
    """Compute loss, top-1, top-5 and confusion over a whole split.

    The ranks of a team take the batches in turn. Every rank returns the same tally, to the bit that
    of one process on the same hardware. An image that one rank cannot read ends all of them.

    With several views the softmax outputs are averaged, and the loss is that of the mean (paper,
    section 4.1). `each` is called for each batch of this rank with (index of the first image,
    probabilities (N, K) on the CPU). Images in `unread` are left out. Images that this rank cannot
    read are added to it instead of raising an error; their probabilities are NaN. The model returns
    to the mode (train or eval) that it had.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    starts = batch_starts(len(split), batch, views)
    rows, confusion = torch.zeros(len(starts), 8, dtype=torch.float64), Tally(classes).confusion

    with team.all_or_none():
        mine = starts[team.rank :: team.ranks]
        for block in batches_in_order(split, mine, starts.step, workers, device, unread):
            first = block.step * starts.step
            if not len(block.ids):
                if each is not None:
                    count = min(starts.step, len(split) - first)
                    each(first, torch.full((count, classes), math.nan))
                continue
            labels = block.labels.to(device, non_blocking=True)
            images = block.images.to(device, non_blocking=True)
            scores, log_p = predict_views(model, images, preprocess, views, precision)
            tally = Tally(classes)
            tally.add(scores, labels, F.nll_loss(log_p, labels, reduction="none"))
            rows[block.step] = tally.sums()
            confusion.add_(tally.confusion)
            if each is not None:
                probabilities = log_p.exp().cpu()
                count = min(starts.step, len(split) - first)
                if len(probabilities) < count:  # some images were left out
                    probabilities = probabilities.new_full((count, classes), math.nan).index_copy(
                        0, torch.from_numpy(block.ids - first), probabilities
                    )
                each(first, probabilities)
    model.train(was_training)
    return Tally.of(team.sum(rows), team.sum(confusion))


def batch_starts(n: int, batch: int, views: int) -> range:
    """Return the index of the first image of each batch; `batch` counts views."""
    return range(0, n, max(batch // views, 1))
