"""What is fed to a network, looked at before anything is trained: images and labels of batches."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROBE_SIDE = 16  # pixels an image is shrunk to before a linear probe looks at it
PROBE_IMAGES = 300  # fewer say nothing
FEWEST = 64  # images that are read whatever the time
PROBE_EACH = 20  # images a class


@dataclass
class Seen:
    """What some batches of a split hold. `mean`, `std` (C,) are over the finite images' pixels."""

    images: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    bad: int = 0
    constant: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1))
    std: Tensor = field(default_factory=lambda: torch.ones(1))
    largest: float = 0.0

    @property
    def n(self) -> int:
        return sum(len(batch) for batch in self.labels)


def look_at(loader: Iterable[Any], *, images: int, seconds: float) -> Seen:
    """Reads batches (images, labels) until so many images or so much time."""
    seen, until = Seen(), time.monotonic() + seconds
    sums: list[tuple[Tensor, Tensor, int]] = []
    for batch in loader:
        x, y = batch[0], batch[1]
        seen.images.append(x)
        seen.labels.append(torch.as_tensor(y).long().cpu())
        flat = x.detach().float().flatten(1)
        finite = flat.isfinite().all(1)
        seen.bad += int((~finite).sum())
        seen.constant += int(((flat.amax(1) - flat.amin(1)) == 0)[finite].sum())
        for image in x.detach().cpu():
            data = image.contiguous().view(torch.uint8).numpy()
            seen.hashes.append(hashlib.blake2b(data, digest_size=12).digest())
        good = x.detach().float()[finite]
        if len(good):
            sums.append(
                (
                    good.sum((0, 2, 3)).double().cpu(),
                    good.square().sum((0, 2, 3)).double().cpu(),
                    good[:, 0].numel(),
                )
            )
            seen.largest = max(seen.largest, float(good.abs().max()))
        if seen.n >= images or (seen.n >= FEWEST and time.monotonic() > until):
            break
    if sums:
        count = sum(n for _, _, n in sums)
        seen.mean = (sum((s for s, _, _ in sums), torch.zeros(1)) / count).float().cpu()
        square = (sum((s for _, s, _ in sums), torch.zeros(1)) / count).float().cpu()
        seen.std = (square - seen.mean**2).clamp(min=0).sqrt()
    return seen


def entropy(counts: Tensor) -> float:
    """Of a distribution given as counts, in nats."""
    p = counts.double() / counts.sum().clamp(min=1)
    return float(-(p[p > 0] * p[p > 0].log()).sum())


def order_of_labels(seen: Seen, classes: int) -> tuple[float, float]:
    """The mean entropy of the labels of a batch, and what batches drawn by chance would have.

    By chance: the same labels, shuffled by a fixed seed and cut alike.
    """
    labels = torch.cat(seen.labels)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    sizes = [len(batch) for batch in seen.labels]

    def mean(parts: Iterable[Tensor]) -> float:
        found = [entropy(torch.bincount(part, minlength=classes)) for part in parts]
        return sum(found) / max(len(found), 1)

    return mean(seen.labels), mean(shuffled.split(sizes))  # type: ignore[no-untyped-call]


def shared(train: Seen, other: Seen) -> float:
    """The share of another split's images that are in train, bit for bit."""
    known = set(train.hashes)
    return sum(h in known for h in other.hashes) / max(len(other.hashes), 1)


@dataclass(frozen=True)
class Probe:
    """How well a linear probe on small pictures names images it has not seen.

    `accuracy` is the mean over the classes, which sets no prize on naming the commonest; `chance`
    is one of the classes present, `error` its standard error, `least` the images of the rarest
    class. `shifts` are the accuracies on val where its labels are moved by 0, 1, ...
    """

    n: int
    accuracy: float
    chance: float
    error: float
    least: int
    val_n: int = 0
    shifts: tuple[float, ...] = ()


def probe_labels(train: Seen, val: Seen | None, classes: int) -> Probe | None:
    """Ridge regression from pictures of 16 pixels to labels, two folds of train, then val.

    None where there are too few images for it to say anything.
    """
    x, y = _pictures(train), torch.cat(train.labels)
    keep = x.isfinite().all(1) & (y >= 0) & (y < classes)
    x, y = x[keep], y[keep]
    if len(y) < max(PROBE_IMAGES, PROBE_EACH * classes) or float(x.std()) == 0:
        return None
    fold = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)) % 2 == 0
    named_right = torch.zeros(classes)
    for part in (fold, ~fold):
        weights = _ridge(x[part], y[part], classes)
        hits = _scores(x[~part], weights).argmax(1) == y[~part]
        named_right += torch.bincount(y[~part][hits], minlength=classes)
    counts = torch.bincount(y, minlength=classes)
    present = counts > 0
    accuracy = float((named_right[present] / counts[present]).mean())
    chance = 1 / int(present.sum())
    error = float((chance * (1 - chance) / counts[present]).sum().sqrt()) * chance
    if val is None or not val.n:
        return Probe(len(y), accuracy, chance, error, int(counts[present].min()))
    named = _scores(_pictures(val), _ridge(x, y, classes)).argmax(1)
    truth = torch.cat(val.labels)
    shifts = tuple(
        float((named == (truth - shift) % classes).float().mean()) for shift in range(classes)
    )
    least = int(counts[present].min())
    return Probe(len(y), accuracy, chance, error, least, len(truth), shifts)


def _pictures(seen: Seen) -> Tensor:
    small = [F.adaptive_avg_pool2d(x.detach().float().cpu(), PROBE_SIDE) for x in seen.images]
    return torch.cat(small).flatten(1)


def _ridge(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / std
    # Every class weighs the same, however many images it has.
    counts = torch.bincount(y, minlength=classes).clamp(min=1)
    target = F.one_hot(y, classes).float() / counts - 1 / len(y)
    # Through the smaller of the two Gram matrices; a tenth of its mean diagonal as the ridge.
    if len(x) <= x.shape[1]:
        gram = x @ x.T
        gram.diagonal().add_(0.3 * gram.diagonal().mean())
        return mean, std, x.T @ torch.linalg.solve(gram, target)
    gram = x.T @ x
    gram.diagonal().add_(0.3 * gram.diagonal().mean())
    return mean, std, torch.linalg.solve(gram, x.T @ target)


def _scores(x: Tensor, fitted: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    mean, std, weights = fitted
    return ((x - mean) / std) @ weights
