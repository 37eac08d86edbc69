"""Every image of a split through a network, once."""

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
    """What to rank classes by, and their log-probabilities.

    Shapes: uint8 (N, size, size, C) -> (N, K) twice. Of one view the first are the logits, in
    which no two tie by rounding; of several the logarithm of the mean of the softmax outputs,
    taken without rounding a small one to 0.
    """
    kind = getattr(model, "kind", torch.float32)  # what a network made for answers takes
    crops = preprocess.views(images, views, kind)
    with autocast(images.device, precision):
        logits = model(crops.flatten(0, 1)).float()
    if views == 1:
        return logits, logits.log_softmax(1)
    each = logits.log_softmax(1).reshape(views, len(images), -1)
    mean = each.logsumexp(0) - math.log(views)
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
    """Loss, top-1, top-5 and confusion over the whole split.

    The ranks of a team take the batches in turn; what is found is to the bit what one process finds
    on the same hardware, and every rank has it. `each` sees the rank's own. What one rank cannot
    read ends all of them.

    With several views the softmax outputs are averaged and the loss is that of the mean (paper,
    section 4.1). `each` is given (index of the first image, probabilities (N, K)) a batch, on the
    CPU. Where `unread` is given, the images in it are left out, and those that cannot be read come
    to it, the rank's own; their probabilities are NaN. The mode (train or eval) of the model is
    put back afterwards.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))  # another runtime
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
                found = log_p.exp().cpu()
                whole = min(starts.step, len(split) - first)
                if len(found) < whole:
                    found = found.new_full((whole, classes), math.nan).index_copy(
                        0, torch.from_numpy(block.ids - first), found
                    )
                each(first, found)
    model.train(was_training)
    return Tally.of(team.sum(rows), team.sum(confusion))


def batch_starts(n: int, batch: int, views: int) -> range:
    """The index of the first image of every batch; `batch` counts views."""
    return range(0, n, max(batch // views, 1))
