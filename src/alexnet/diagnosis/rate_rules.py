"""Verdicts on the learning rate and on what trial steps do."""

import math
import statistics
from collections.abc import Iterator

import torch

from alexnet.diagnosis.findings import ROSE, Findings
from alexnet.diagnosis.rules import DEAD
from alexnet.diagnosis.verdict import Verdict

UPDATE = 0.05  # rms of the first update beside that of the weight, the median over weights
SHRINKING = 0.7  # cosine between an update and minus the weight; Adam gives 0.8 by decay alone
RECOVERED = 0.75  # of the highest loss
DIED = 0.99  # of a layer: seed-004 unbroken measures 0.90 to 0.97, networks that steps kill 1.0
LEARNT = 0.9  # of the entropy of the labels
SLOW = 300.0  # times smaller than the best rate


def decay_alone(shrinking: float, when: str) -> Verdict:
    """That steps do nothing but make the weights smaller."""
    return Verdict(
        "decay-alone",
        "will not learn",
        f"{when} the weights move straight towards zero: the cosine between an update and minus "
        f"the weight is {shrinking:.3f}, the median over weights",
        "weight decay, or an L2 term in the loss, is all that arrives: the loss may fall by it, "
        "and nothing is learnt from the images",
        "look for what keeps the loss from depending on the weights; log the loss without L2",
        shrinking, SHRINKING, "updates that come from images measure -0.1 to 0.1",
    )  # fmt: skip


def _died(f: Findings) -> tuple[str, float] | None:
    """The first layer whose units the trial steps switched off, and their share."""
    if f.after is None or f.signals is None:
        return None
    before = {layer.name for layer in f.signals.layers if layer.dead > DEAD}
    off = (item for item in f.after.items() if item[1] > DIED and item[0] not in before)
    return next(off, None)


def _recovers(losses: list[float]) -> bool:
    """Whether a loss that rose comes down again: biases of 1 cost some networks a dozen steps."""
    return statistics.fmean(losses[-2:]) < RECOVERED * max(losses)


def _creeps(f: Findings) -> bool:
    """Whether the trial got nowhere, and the rate of the rate test does get somewhere."""
    if f.trial is None or f.overfit is None:
        return False
    tried, better = f.trial.losses, f.overfit.losses
    return statistics.fmean(tried[-4:]) > 0.98 * tried[0] and min(better) < 0.7 * better[0]


def find_rate_faults(f: Findings) -> Iterator[Verdict]:
    """Everything that steps show."""
    t, ln_k = f.trial, math.log(max(f.classes, 2))
    if t is not None and t.losses and f.rate is not None:
        first, last = t.losses[0], statistics.fmean(t.losses[-4:])
        update = f.update() or 0.0
        limit = f.rates.limit if f.rates else None
        advised = f.rates.best if f.rates and f.rates.best else f.rate / 10
        died = _died(f)
        if f.rate == 0 or (t.moves and max(m.ratio for m in t.moves.values()) == 0):
            yield Verdict(
                "no-steps", "will not learn",
                f"a step changes nothing (learning rate {f.rate:g})",
                "a learning rate of zero, or gradients that are all zero",
                "set a learning rate, and look at the gradients above",
                update, 0, "an update has to move the weights",
            )  # fmt: skip
        elif (f.shrinking() or 0.0) > SHRINKING and not f.has_learnt():
            yield decay_alone(f.shrinking() or 0.0, "in trial steps")
        elif (
            not math.isfinite(last)
            or (last > max(first, ln_k) + ROSE * ln_k and not _recovers(t.losses))
            or update > UPDATE
            or died
        ):
            why = f"the loss went from {first:.3g} to {last:.3g} in {len(t.losses)} steps"
            if not math.isfinite(last):
                why = "the loss is not finite"
            elif died:
                why += f", {died[1]:.0%} of the units of {died[0]} died"
            high = last > 2 * ln_k and not _recovers(t.losses)
            fatal = bool(died) or not math.isfinite(last) or high
            yield Verdict(
                "rate-too-high",
                "will not learn" if fatal else "learns badly",
                f"at learning rate {f.rate:g} {why}, and the first update moved the weights by "
                f"{update:.2g} of their size"
                + (f"; the loss bursts from {limit:.1g} on" if limit else ""),
                "steps that overshoot",
                f"try a learning rate of {min(advised, f.rate / 3):.1g}",
                update, UPDATE, "healthy first updates measure 1e-4 to 3e-2",
            )  # fmt: skip
        elif f.rates and f.rates.best and f.rate < f.rates.best / SLOW and _creeps(f):
            yield Verdict(
                "rate-too-low",
                "learns badly",
                f"the learning rate is {f.rate:g}; the loss falls fastest at {f.rates.best:.1g}",
                "a rate for another optimiser, or a schedule that starts too low",
                f"try {f.rates.best / 3:.1g}",
                f.rate, f.rates.best / SLOW, "the rate test above, on one batch",
            )  # fmt: skip
    if f.overfit is not None and f.overfit.losses:
        labels = torch.bincount(torch.cat(f.train.labels).clamp(min=0))
        least = min(f.prior(), math.log(max(int((labels > 0).sum()), 1)))
        best = min(
            statistics.fmean(f.overfit.losses[i : i + 3])
            for i in range(max(len(f.overfit.losses) - 2, 1))
        )
        if best > LEARNT * least:
            yield Verdict(
                "cannot-overfit",
                "note",
                f"in {len(f.overfit.losses)} steps on 32 images the loss came to {best:.3g}; "
                f"who ignores the images gets {least:.3g}",
                "the network learns slowly at first (small initial weights), or not at all",
                "see the other findings; without any, give it more steps",
                best, LEARNT * least, "entropy of the labels",
            )  # fmt: skip
