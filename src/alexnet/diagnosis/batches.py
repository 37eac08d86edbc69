"""What is fed to a network, looked at before anything is trained: images and labels of batches."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.errors import UsageError

PROBE_SIDE = 16  # pixels an image is shrunk to before a linear probe looks at it
PROBE_IMAGES = 300  # fewer say nothing
FEWEST = 64  # images that are read whatever the time
MEMORY = 1 << 30  # bytes of images that are kept of a split
PROBE_EACH = 20  # images a class
CLEAR = 4.0  # standard errors above chance
SEED = 6907755  # of what is drawn here: one that nobody shuffles by, or folds would follow classes
FILTERS, TEXTURE_SIDE = 48, 48


@dataclass
class BatchSample:
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

    def scale(self) -> Tensor:
        """`std`, but that of a constant channel a thousandth of the others': (C,), above 0."""
        return self.std.clamp(min=max(1e-3 * float(self.std.mean()), 1e-12))


def sample_batches(loader: Iterable[Any], *, images: int, seconds: float) -> BatchSample:
    """Reads batches (images, labels, ...) until so many images, so much time or memory.

    Raises UsageError for what is no batch of images with one class each.
    """
    sample, until = BatchSample(), time.monotonic() + seconds
    sums: list[tuple[Tensor, Tensor, int]] = []
    held = 0
    for batch in loader:
        x, y = _checked(batch)
        held += x.numel() * x.element_size()
        sample.images.append(x)
        sample.labels.append(y)
        flat = x.detach().float().flatten(1)
        finite = flat.isfinite().all(1)
        sample.bad += int((~finite).sum())
        sample.constant += int(((flat.amax(1) - flat.amin(1)) == 0)[finite].sum())
        for image in x.detach().cpu():
            data = image.contiguous().view(torch.uint8).numpy()
            sample.hashes.append(hashlib.blake2b(data, digest_size=12).digest())
        good = x.detach().float()[finite]
        if len(good):
            sums.append(
                (
                    good.sum((0, 2, 3)).double().cpu(),
                    good.square().sum((0, 2, 3)).double().cpu(),
                    good[:, 0].numel(),
                )
            )
            sample.largest = max(sample.largest, float(good.abs().max()))
        late = time.monotonic() > until or held > MEMORY
        if sample.n >= images or (sample.n >= FEWEST and late):
            break
    if sums:
        count = sum(n for _, _, n in sums)
        sample.mean = (sum((s for s, _, _ in sums), torch.zeros(1)) / count).float().cpu()
        square = (sum((s for _, s, _ in sums), torch.zeros(1)) / count).float().cpu()
        sample.std = (square - sample.mean**2).clamp(min=0).sqrt()
    return sample


def _checked(batch: Any) -> tuple[Tensor, Tensor]:
    pair = isinstance(batch, tuple | list) and len(batch) >= 2
    if not pair or not isinstance(batch[0], Tensor):
        raise UsageError(
            f"the loader gives a {type(batch).__name__}: wrap it so that a batch is "
            "(images, labels)"
        )
    x, y = batch[0], torch.as_tensor(batch[1])
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(
            f"images are {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}: give floats of "
            "(N, C, H, W)"
        )
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() != 1 or y.is_floating_point() or len(y) != len(x):
        raise UsageError(
            f"labels are {str(y.dtype).removeprefix('torch.')} {tuple(y.shape)} for {len(x)} "
            "images: give whole numbers (N,); of one-hot or soft labels argmax(1)"
        )
    return x, y.detach().long().cpu()


def entropy(counts: Tensor) -> float:
    """Of a distribution given as counts, in nats."""
    p = counts.double() / counts.sum().clamp(min=1)
    return float(-(p[p > 0] * p[p > 0].log()).sum())


def order_of_labels(sample: BatchSample, classes: int) -> tuple[float, float]:
    """The mean entropy of the labels of a batch, and what batches drawn by chance would have.

    By chance: the same labels, shuffled by a fixed seed and cut alike.
    """
    labels = torch.cat(sample.labels)
    shuffled = labels[mixed(len(labels))]
    sizes = [len(batch) for batch in sample.labels]

    def mean(parts: Iterable[Tensor]) -> float:
        found = [entropy(torch.bincount(part, minlength=classes)) for part in parts]
        return sum(found) / max(len(found), 1)

    return mean(sample.labels), mean(shuffled.split(sizes))  # type: ignore[no-untyped-call]


def shared(train: BatchSample, other: BatchSample) -> float:
    """The share of another split's images that are in train, bit for bit."""
    known = set(train.hashes)
    return sum(h in known for h in other.hashes) / max(len(other.hashes), 1)


@dataclass(frozen=True)
class LabelProbe:
    """How well a linear probe on small pictures names images it has not seen.

    `accuracy` is the mean over the classes, which sets no prize on naming the commonest; `chance`
    is one of the classes present, `error` its standard error, `least` the images of the rarest
    class. `shifts` are the same on val where its labels are moved by 0, 1, ..., over the classes
    that it has; `renamed` is that of the best exchange of class numbers.
    """

    n: int
    accuracy: float
    chance: float
    error: float
    least: int
    val_n: int = 0
    shifts: tuple[float, ...] = ()
    renamed: float = 0.0


def mixed(n: int) -> Tensor:
    """0 ... n - 1 in an order that is always the same."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(SEED))


def probe_labels(train: BatchSample, val: BatchSample | None, classes: int) -> LabelProbe | None:
    """Ridge regression from images to labels, two folds of train, then val.

    From pictures of 16 pixels, and where those say nothing from how strongly random filters answer:
    orientation and texture are not linear in pixels. None where there are too few images.
    """
    y = torch.cat(train.labels)
    known = (y >= 0) & (y < classes)
    best: LabelProbe | None = None
    for describe in (_pictures, _textures):
        x = describe(train)
        keep = known & x.isfinite().all(1)
        if int(keep.sum()) < max(PROBE_IMAGES, PROBE_EACH * classes) or float(x[keep].std()) == 0:
            return best
        probe = _probed(x[keep], y[keep], classes)
        if val is not None and val.n:
            fitted = _ridge(x[keep], y[keep], classes)
            probe = _on_val(probe, _scores(describe(val), fitted).argmax(1), val, classes)
        if best is None or probe.accuracy > best.accuracy:
            best = probe
        if best.accuracy > best.chance + CLEAR * best.error:
            break
    return best


def _probed(x: Tensor, y: Tensor, classes: int) -> LabelProbe:
    fold = mixed(len(y)) % 2 == 0
    right = torch.zeros(classes)
    for part in (fold, ~fold):
        hits = _scores(x[~part], _ridge(x[part], y[part], classes)).argmax(1) == y[~part]
        right += torch.bincount(y[~part][hits], minlength=classes)
    counts = torch.bincount(y, minlength=classes)
    present = counts > 0
    chance = 1 / int(present.sum())
    error = float((chance * (1 - chance) / counts[present]).sum().sqrt()) * chance
    accuracy = float((right[present] / counts[present]).mean())
    return LabelProbe(len(y), accuracy, chance, error, int(counts[present].min()))


def _on_val(probe: LabelProbe, named: Tensor, val: BatchSample, classes: int) -> LabelProbe:
    truth = torch.cat(val.labels)
    keep = (truth >= 0) & (truth < classes)
    named, truth = named[keep], truth[keep]
    # Of the images of each true class, the share that is given each name.
    table = torch.zeros(classes, classes)
    table.index_put_((truth, named), torch.ones(len(truth)), accumulate=True)
    counts = table.sum(1)
    present = (counts > 0).nonzero()[:, 0]
    share = table / counts.clamp(min=1)[:, None]
    shifts = tuple(
        float(share[present, (present - shift) % classes].mean()) for shift in range(classes)
    )
    most = share[present].max(1)
    exchanged = len(set(most.indices.tolist())) == len(present)
    renamed = float(most.values.mean()) if exchanged else 0.0
    return replace(probe, val_n=len(truth), shifts=shifts, renamed=renamed)


def _pictures(sample: BatchSample) -> Tensor:
    small = [F.adaptive_avg_pool2d(x.detach().float().cpu(), PROBE_SIDE) for x in sample.images]
    return torch.cat(small).flatten(1)


def _textures(sample: BatchSample) -> Tensor:
    """The mean and the largest answer of random filters, in four quarters of an image."""
    channels = sample.images[0].shape[1]
    chance = torch.Generator().manual_seed(SEED)
    filters = torch.randn(FILTERS, channels, 7, 7, generator=chance)
    filters -= filters.mean((1, 2, 3), keepdim=True)
    found = []
    for x in sample.images:
        for part in x.detach().float().cpu().split(64):  # type: ignore[no-untyped-call]
            side = min(*part.shape[-2:], TEXTURE_SIDE)
            answer = F.conv2d(F.adaptive_avg_pool2d(part, side), filters, padding=3).relu_()
            pooled = F.adaptive_avg_pool2d(answer, 2), F.adaptive_max_pool2d(answer, 2)
            found.append(torch.cat(pooled, 1).flatten(1))
    return torch.cat(found)


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
