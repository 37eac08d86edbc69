"""The figures of a run, as its metrics.jsonl has them, and whether they show learning.

Lines are events of `records`, or dictionaries with the same keys. Other programs may leave out
keys that `as_event` does not need.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from alexnet.records import Event, TrainEvent, ValEvent, as_event

Line = Event | Mapping[str, Any]
Learning = Literal["learnt", "nothing", "unknown"]

LEARNING_STEPS = 200  # steps that are judged; some good networks start with a plateau half as long
MIN_IMAGES = 100  # training images; fewer cannot show that nothing was learnt
SURE = 3.0  # standard errors beyond the figures of a constant answer


@dataclass(frozen=True)
class RunFigures:
    """Events of a run, and the share of each class among its training labels."""

    events: Sequence[Event]
    class_shares: Sequence[float]

    @classmethod
    def from_lines(cls, lines: Iterable[Line], class_shares: Sequence[float]) -> Self:
        return cls([as_event(line) for line in lines], class_shares)

    @cached_property
    def train(self) -> list[TrainEvent]:
        return [event for event in self.events if isinstance(event, TrainEvent)]

    @cached_property
    def val(self) -> list[ValEvent]:
        return [event for event in self.events if isinstance(event, ValEvent)]

    @property
    def largest_share(self) -> float:
        """Share of the most frequent class: top-1 of a constant answer."""
        return max(self.class_shares)

    @property
    def label_entropy(self) -> float:
        """Entropy of the labels in nats: the least loss of a network that ignores the images."""
        return -sum(p * math.log(p) for p in self.class_shares if p > 0)

    def learning(self, steps: int = LEARNING_STEPS) -> Learning:
        """Whether the figures of the last `steps` steps show that the network has learnt.

        "learnt": top-1 in training, its loss, or top-1 on validation is better than any constant
        answer could be; that has the share of the most frequent class and the entropy of the
        labels. Label smoothing, mixed images and an L2 term only add to the loss of such an answer.
        "nothing": enough images were seen for learning to show, and it does not. "unknown": too few
        images were seen, or lines do not say how many.
        """
        if not self.train:
            return "unknown"
        since, constant_top1 = self.train[-1].step - steps, self.largest_share
        last_val = self.val[-1] if self.val else None
        if last_val is not None and last_val.step > since:
            lower_bound = (last_val.top1_ci95 or (0, 1))[0]
            if lower_bound > constant_top1:
                return "learnt"
        n, hits, loss_sum = _training_sums(self.train, since)
        if n == 0:
            return "unknown"
        hits_error = math.sqrt(n * constant_top1 * (1 - constant_top1))
        if hits > n * constant_top1 + SURE * hits_error:
            return "learnt"
        entropy = self.label_entropy
        squares = sum(p * math.log(p) ** 2 for p in self.class_shares if p > 0)
        loss_deviation = math.sqrt(max(squares - entropy**2, 0.0))
        # A constant answer that is slightly wrong may be lucky, by at most SURE^2 / 2n nats.
        if loss_sum / n < entropy - SURE * loss_deviation / math.sqrt(n) - SURE**2 / (2 * n):
            return "learnt"
        return "nothing" if n >= MIN_IMAGES else "unknown"


def _training_sums(train: Sequence[TrainEvent], since: int) -> tuple[int, float, float]:
    """Images, hits and summed loss of the steps after `since`.

    A line has means over its epoch so far. Of two lines of one epoch the earlier one's sums are
    subtracted.
    """
    n, hits, loss_sum = 0, 0.0, 0.0
    before: TrainEvent | None = None
    sums_before = 0, 0.0, 0.0
    for event in train:
        if not event.n or event.top1 is None or event.loss_mean is None:
            before = None
            continue
        sums = event.n, event.n * event.top1, event.n * event.loss_mean
        if event.step > since:
            continues = before is not None and _continues_epoch(before, event)
            counted = sums_before if continues else (0, 0.0, 0.0)
            n += sums[0] - counted[0]
            hits += sums[1] - counted[1]
            loss_sum += sums[2] - counted[2]
        before, sums_before = event, sums
    return n, hits, loss_sum


def _continues_epoch(earlier: TrainEvent, later: TrainEvent) -> bool:
    """Whether the means of the later line include the images of the earlier one."""
    has_more = (earlier.n or 0) < (later.n or 0) and earlier.step < later.step
    return has_more and math.ceil(earlier.epoch) == math.ceil(later.epoch)
