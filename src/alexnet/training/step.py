"""One training step: augment, forward, backward, update."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.data.device import to_device
from alexnet.data.loader import Batch, Piece
from alexnet.metrics import topk_hits
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.runtime import autocast
from alexnet.training.optim import set_rate
from alexnet.training.parallel import ALONE, Team


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lr: float,
    recipe: Recipe,
    preprocess: Preprocess,
    sums: Tensor,
    weight: Tensor | None = None,
    team: Team = ALONE,
) -> Tensor:
    """Update the weights once, from a batch or from a rank's share of it, on the model's device.

    `model` is a Net, or the result of `distribute` or `compiled`. `weight` (K,) is the weight of
    each class in the loss. Returns this rank's share of the mean loss: the sum over the ranks is
    the mean. Adds images, loss, top-1 and top-5 hits to `sums` (4,) without waiting for the device.
    """
    size = batch.size or len(batch.labels)
    pieces = batch.pieces or (Piece(slice(0, size), range(size)),)
    set_rate(optimizer, lr, batch.epoch)
    optimizer.zero_grad(set_to_none=True)
    total = None
    for piece in pieces:
        last = piece is pieces[-1]
        no_sync = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if no_sync else nullcontext():  # type: ignore[operator]
            loss = _add_gradients(model, batch, piece, size, recipe, preprocess, sums, weight, team)
        total = loss if total is None else total + loss
    optimizer.step()
    assert total is not None
    return total


def plain_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    labels: Tensor,
    precision: str = "fp32",
) -> Tensor:
    """Update any network once by the mean cross-entropy of preprocessed images.

    Shapes: (N, C, H, W), (N,). Returns the loss, on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    with autocast(x.device, precision):
        logits = model(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def class_weights(
    recipe: Recipe, counts: NDArray[np.integer], device: torch.device
) -> Tensor | None:
    """Return the weight of each class in the loss, (K,), with mean 1 over the images.

    `counts` (K,) are the images of each class. None if all classes have the same weight.
    """
    if recipe.class_weights == "none":
        return None
    weights = counts.sum() / (len(counts) * counts)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _add_gradients(
    model: Any,
    batch: Batch,
    piece: Piece,
    size: int,
    recipe: Recipe,
    preprocess: Preprocess,
    sums: Tensor,
    weight: Tensor | None,
    team: Team,
) -> Tensor:
    """Add the gradients of a micro-batch; return its share of the mean loss."""
    net: Net = getattr(model, "module", model)
    rows, n = piece.rows, len(piece.places)
    ids, labels = batch.ids[rows], batch.labels[rows]
    leaders = None if batch.leaders is None else batch.leaders[rows]
    x = augment(batch.images[rows], ids, batch.epoch, recipe, preprocess, leaders)
    x, other_labels, share = mix(x, labels, batch.step, recipe)
    x, labels, other_labels = (v[piece.before :] for v in (x, labels, other_labels))
    if recipe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    elif x.is_cuda:  # stored images are channels last, which cuDNN would follow
        x = x.contiguous()
    if (mask_slice := team.mask_slice(piece.places, size)) is not None:
        net.set_mask_slice(mask_slice)
    torch.manual_seed(draws.net_seed(recipe.seed, batch.step))
    with autocast(x.device, recipe.precision):
        logits = model(x)

    def part_of_mean(labels: Tensor) -> Tensor:
        part: Tensor | float = n / size
        if weight is not None:
            every = labels if batch.of_all is None else to_device(batch.of_all, labels.device)
            part = weight[labels].sum() / weight[every].sum()
        return part * F.cross_entropy(
            logits, labels, weight, label_smoothing=recipe.label_smoothing
        )

    loss = part_of_mean(labels)
    if share < 1:
        loss = share * loss + (1 - share) * part_of_mean(other_labels)
    (loss * team.loss_factor).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        hits = [topk_hits(logits, labels, k)[:, 2].sum() for k in (1, 5)]
        sums += torch.stack([loss.new_full((), n), loss.detach() * size, *hits]).double()
    return loss.detach()
