"""A sample of the batches that a network is fed: images, labels and simple statistics of both."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alexnet.errors import UsageError

MIN_IMAGES = 64  # images to read, however long reading takes
MAX_SAMPLE_BYTES = 1 << 30  # of the images of one split
# Seed of everything that is drawn here. Nobody else shuffles by it: with a loader's own seed the
# folds of the label probe could follow the classes.
SEED = 6907755


@dataclass
class BatchSample:
    """Some batches of a split.

    `images` are tensors (N, C, H, W), `labels` class indices (N,), `hashes` one digest an image.
    `non_finite` and `constant` count images with NaN or infinity, and images of one colour. `mean`
    and `std` (C,) are over the pixels of finite images, `largest` is their largest absolute value.
    """

    images: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    non_finite: int = 0
    constant: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(1))
    std: Tensor = field(default_factory=lambda: torch.ones(1))
    largest: float = 0.0

    @property
    def n(self) -> int:
        return sum(len(batch) for batch in self.labels)

    def scale(self) -> Tensor:
        """`std` (C,) with a floor above 0: a constant channel gets a thousandth of the mean."""
        return self.std.clamp(min=max(1e-3 * float(self.std.mean()), 1e-12))

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) less this sample's mean, divided by its deviation, by channel."""
        mean, scale = (v[:, None, None].to(images) for v in (self.mean, self.scale()))
        return (images - mean) / scale


def sample_batches(loader: Iterable[Any], *, images: int, seconds: float) -> BatchSample:
    """Reads batches (images, labels, ...) until `images` images, `seconds` or the memory limit.

    Raises UsageError where a batch does not hold float images (N, C, H, W) and one class each.
    """
    sample, deadline = BatchSample(), time.monotonic() + seconds
    sums: list[tuple[Tensor, Tensor, int]] = []  # of pixels, of their squares, and pixel counts
    sample_bytes = 0
    for batch in loader:
        x, y = _check_batch(batch)
        sample_bytes += x.numel() * x.element_size()
        sample.images.append(x)
        sample.labels.append(y)
        flat = x.detach().float().flatten(1)
        finite = flat.isfinite().all(1)
        sample.non_finite += int((~finite).sum())
        sample.constant += int(((flat.amax(1) - flat.amin(1)) == 0)[finite].sum())
        for image in x.detach().cpu():
            data = image.contiguous().view(torch.uint8).numpy()
            sample.hashes.append(hashlib.blake2b(data, digest_size=12).digest())
        finite_images = x.detach().float()[finite]
        if len(finite_images):
            sums.append(
                (
                    finite_images.sum((0, 2, 3)).double().cpu(),
                    finite_images.square().sum((0, 2, 3)).double().cpu(),
                    finite_images[:, 0].numel(),
                )
            )
            sample.largest = max(sample.largest, float(finite_images.abs().max()))
        over_limit = time.monotonic() > deadline or sample_bytes > MAX_SAMPLE_BYTES
        if sample.n >= images or (sample.n >= MIN_IMAGES and over_limit):
            break
    if sums:
        pixels = sum(n for _, _, n in sums)
        sample.mean = (sum((s for s, _, _ in sums), torch.zeros(1)) / pixels).float().cpu()
        square = (sum((s for _, s, _ in sums), torch.zeros(1)) / pixels).float().cpu()
        sample.std = (square - sample.mean**2).clamp(min=0).sqrt()
    return sample


def _check_batch(batch: Any) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,) of a batch, or UsageError."""
    is_pair = isinstance(batch, tuple | list) and len(batch) >= 2
    if not is_pair or not isinstance(batch[0], Tensor):
        raise UsageError(
            f"the loader yields a {type(batch).__name__}, expected a pair (images, labels): wrap "
            "the loader so that it yields such pairs"
        )
    x, y = batch[0], torch.as_tensor(batch[1])
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(
            f"images are {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}, expected floats "
            "of shape (N, C, H, W): convert them in the loader"
        )
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() != 1 or y.is_floating_point() or len(y) != len(x):
        raise UsageError(
            f"labels are {str(y.dtype).removeprefix('torch.')} {tuple(y.shape)} for {len(x)} "
            "images, expected whole numbers of shape (N,): take argmax(1) of one-hot or soft labels"
        )
    return x, y.detach().long().cpu()


def entropy(counts: Tensor) -> float:
    """Entropy in nats of a distribution that is given as counts."""
    p = counts.double() / counts.sum().clamp(min=1)
    return float(-(p[p > 0] * p[p > 0].log()).sum())


def batch_label_entropy(sample: BatchSample, classes: int) -> tuple[float, float]:
    """Mean entropy of a batch's labels in nats: of the batches as they are, and of shuffled ones.

    The shuffled batches hold the same labels, shuffled by a fixed seed, in batches of the same
    sizes.
    """
    labels = torch.cat(sample.labels)
    shuffled = labels[fixed_permutation(len(labels))]
    sizes = [len(batch) for batch in sample.labels]

    def mean_entropy(batches: Iterable[Tensor]) -> float:
        entropies = [entropy(torch.bincount(batch, minlength=classes)) for batch in batches]
        return sum(entropies) / max(len(entropies), 1)

    return mean_entropy(sample.labels), mean_entropy(shuffled.split(sizes))  # type: ignore[no-untyped-call]


def shared_share(train: BatchSample, other: BatchSample) -> float:
    """Share of another split's images that are also in train, bit for bit."""
    train_hashes = set(train.hashes)
    return sum(h in train_hashes for h in other.hashes) / max(len(other.hashes), 1)


def fixed_permutation(n: int) -> Tensor:
    """0 ... n - 1 (n,) in an order that is the same at every call."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(SEED))
