"""Accuracy with its intervals: hits under three rules for ties, and sums over a split."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alexnet.records import EvalResult

TIE_RULES = ("optimistic", "pessimistic", "expected")


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion, as fractions; it also holds near 0 and 1 (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding would put the upper end a little below 1 where all succeed, and the lower end above
    # 0 where none does.
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    return low, 1.0 if successes == n else min(centre + half, 1.0)


def topk_hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether each image's label is among the k best scores, under three rules for ties.

    Shapes: scores (N, K), labels (N,) -> float64 (N, 3) in the order of TIE_RULES. A tie on the
    boundary counts as a hit (optimistic), as a miss (pessimistic), or as the probability that a
    random order of the tied classes puts the label among the k best (expected). An image with a
    score that is not finite is a miss under all three.
    """
    label_scores = scores.gather(1, labels[:, None])
    above = (scores > label_scores).sum(1)
    tied = (scores == label_scores).sum(1).clamp(min=1)
    expected = ((k - above) / tied).clamp(0, 1)
    hits = torch.stack([(above < k).double(), (above + tied <= k).double(), expected.double()], 1)
    return hits * scores.isfinite().all(1, keepdim=True)


@dataclass
class Tally:
    """Sums over a split, from which all its figures are computed; no image is kept.

    With five classes or fewer there is no top-5: it would be 100 % for every network.
    `terminal.shows_top5` decides from how many classes on it is shown.
    """

    classes: int
    n: int = 0
    loss_sum: float = 0.0
    hits1: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    hits5: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    confusion: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)

    def add(self, scores: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch: scores (N, K), logits or probabilities; labels (N,); losses (N,)."""
        self.n += len(labels)
        self.loss_sum += float(losses.double().sum())
        self.hits1 += topk_hits(scores, labels, 1).sum(0).cpu()
        self.hits5 += topk_hits(scores, labels, 5).sum(0).cpu()
        cells = labels * self.classes + scores.argmax(1)
        counts = torch.bincount(cells.cpu(), minlength=self.classes**2)
        self.confusion += counts.view(self.classes, self.classes)

    def sums(self) -> Tensor:
        """Number of images, sum of losses, and hits under each rule, float64 (8,); no confusion."""
        return torch.cat(
            [torch.tensor([self.n, self.loss_sum], dtype=torch.float64), self.hits1, self.hits5]
        )

    @staticmethod
    def of(rows: Tensor, confusion: Tensor) -> "Tally":
        """A tally of the `sums` of batches (B, 8), added in order, and confusion counts (K, K)."""
        tally = Tally(len(confusion))
        for row in rows:
            tally.n += int(row[0])
            tally.loss_sum += float(row[1])
            tally.hits1 += row[2:5]
            tally.hits5 += row[5:]
        tally.confusion = confusion
        return tally

    def figures(self) -> EvalResult:
        """Loss, number of images, top-1 and top-5 with intervals, and both under each tie rule.

        top1 and top5 are fractions, and count ties by the "expected" rule.
        """
        accuracies: dict[str, Any] = {}
        for name, hits in (("top1", self.hits1), ("top5", self.hits5)):
            if name == "top5" and self.classes <= 5:
                continue
            by_rule = dict(zip(TIE_RULES, (hits / max(self.n, 1)).tolist(), strict=True))
            accuracies |= {f"{name}_{rule}": share for rule, share in by_rule.items()}
            accuracies |= {
                name: by_rule["expected"],
                f"{name}_ci95": wilson(float(hits[2]), self.n),
            }
        return EvalResult(n=self.n, loss=self.loss_sum / max(self.n, 1), **accuracies)

    def tie_warning(self) -> str | None:
        """A warning where the tie rules disagree, else None."""
        for name, hits in (("top-1", self.hits1), ("top-5", self.hits5)):
            if hits[0] - hits[1] > 1e-9 and not (name == "top-5" and self.classes <= 5):
                high, low, expected = (f"{100 * float(h) / self.n:.2f} %" for h in hits)
                return (
                    f"{name} depends on how ties are counted: {high} with ties as hits, {low} as "
                    f"misses, {expected} expected; many equal outputs mean a dead or constant "
                    "network"
                )
        return None

    def per_class(self) -> list[tuple[int, int]]:
        """(correct, total) images of each class, by argmax."""
        return list(
            zip(self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist(), strict=True)
        )
