"""Accuracy that says how sure it is: counts, tie rules, intervals."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alexnet.runs.records import EvalResult

RULES = ("optimistic", "pessimistic", "expected")


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), right also near 0 and 1. Fractions."""
    if n == 0:
        return (0.0, 1.0)
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding would leave the end of "all right" a little below 1, and of "none" above 0.
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    return low, 1.0 if successes == n else min(centre + half, 1.0)


def topk_hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Per image, is the label among the k best scores, under three rules for ties.

    Shapes: scores (N, K), labels (N,) -> float64 (N, 3) in the order of RULES. A tie on the
    boundary counts as a hit (optimistic), a miss (pessimistic), or the chance that a random order
    of the tied classes puts the label inside (expected). An image with a score that is not finite
    is a miss under all three.
    """
    own = scores.gather(1, labels[:, None])
    above = (scores > own).sum(1)
    tied = (scores == own).sum(1).clamp(min=1)
    expected = ((k - above) / tied).clamp(0, 1)
    hits = torch.stack([(above < k).double(), (above + tied <= k).double(), expected.double()], 1)
    return hits * scores.isfinite().all(1, keepdim=True)


@dataclass
class Tally:
    """Sums over a split, from which every figure is made; holds K x K counts and no image.

    top5 is None where there are five classes or fewer: it would be 100 % whatever the network does.
    Whether people are shown it is for `terminal.shows_top5` to say.
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
        """A batch: scores (N, K) logits or probabilities, labels (N,), losses (N,)."""
        self.n += len(labels)
        self.loss_sum += float(losses.double().sum())
        self.hits1 += topk_hits(scores, labels, 1).sum(0).cpu()
        self.hits5 += topk_hits(scores, labels, 5).sum(0).cpu()
        cells = labels * self.classes + scores.argmax(1)
        counts = torch.bincount(cells.cpu(), minlength=self.classes**2)
        self.confusion += counts.view(self.classes, self.classes)

    def sums(self) -> Tensor:
        """All but the confusion: float64 (8,)."""
        return torch.cat(
            [torch.tensor([self.n, self.loss_sum], dtype=torch.float64), self.hits1, self.hits5]
        )

    @staticmethod
    def of(rows: Tensor, confusion: Tensor) -> "Tally":
        """From the sums of batches (B, 8), added in their order, and confusion counts (K, K)."""
        tally = Tally(len(confusion))
        for row in rows:
            tally.n += int(row[0])
            tally.loss_sum += float(row[1])
            tally.hits1 += row[2:5]
            tally.hits5 += row[5:]
        tally.confusion = confusion
        return tally

    def figures(self) -> EvalResult:
        """loss, n, top1, top5 (fractions, expected under ties), intervals, and the tie rules."""
        found: dict[str, Any] = {}
        for name, hits in (("top1", self.hits1), ("top5", self.hits5)):
            if name == "top5" and self.classes <= 5:
                continue
            by_rule = dict(zip(RULES, (hits / max(self.n, 1)).tolist(), strict=True))
            found |= {f"{name}_{rule}": share for rule, share in by_rule.items()}
            found |= {name: by_rule["expected"], f"{name}_ci95": wilson(float(hits[2]), self.n)}
        return EvalResult(n=self.n, loss=self.loss_sum / max(self.n, 1), **found)

    def tie_warning(self) -> str | None:
        """A line where the tie rules disagree: the figure then depends on who counts."""
        for name, hits in (("top-1", self.hits1), ("top-5", self.hits5)):
            if hits[0] - hits[1] > 1e-9 and not (name == "top-5" and self.classes <= 5):
                high, low, fair = (f"{100 * float(h) / self.n:.2f} %" for h in hits)
                return (
                    f"{name} depends on how ties are counted: {high} with ties as hits, {low} as "
                    f"misses, {fair} expected; many equal outputs mean a dead or constant network"
                )
        return None

    def per_class(self) -> list[tuple[int, int]]:
        """(right, total) for each class, by argmax."""
        return list(
            zip(self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist(), strict=True)
        )
