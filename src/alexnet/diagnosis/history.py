"""Verdicts on a run's figures: the lines of metrics.jsonl, by whoever wrote them.

Lines are events of `runs.records`, or dictionaries with their keys, of which other programs may
leave out what `as_event` does not need. Of a line of training `n` is how many images `loss_mean`
and `top1` are of, since the epoch began.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from alexnet.diagnosis.verdict import Verdict
from alexnet.options import Placeholder, call, option
from alexnet.runs.records import DivergedEvent, Event, ResumeEvent, TrainEvent, ValEvent, as_event

Line = Event | Mapping[str, Any]

LINES = 3  # so many in a row are no chance
SPAN = 200  # steps on a plateau, half of all: some good networks begin on one
EXACT = 1e-6  # nats
TINY = 1e-3
BELOW, ABOVE = 0.985, 1.06  # of the entropy of the labels; small batches hold it above 1
FLAT = 0.01  # of it, from one half of the plateau to the other
RISE = 1.1  # validation loss beside its lowest
ENOUGH = 100  # training images, of fewer nobody can say that nothing was learnt
SURE = 3.0  # standard errors beyond what a constant answer gets
JUMP = 1.5  # learning rate after a resume beside the one before
TIES = 0.01
STARVED = 0.2


Learning = Literal["learnt", "nothing", "unknown"]


def learning(lines: Sequence[Line], shares: Sequence[float], steps: int = SPAN) -> Learning:
    """Whether the figures of the last so many `steps` show that anything is learnt.

    "learnt" where top-1 in training, its loss, or top-1 on validation is better than any answer
    that ignores the image: the commonest class, or the entropy of the labels. Label smoothing,
    mixed images and an L2 term only add to the loss of such an answer. "nothing" where enough
    images were seen for that to show; "unknown" where fewer were, or lines do not say how many.
    """
    events = [as_event(line) for line in lines]
    train = [e for e in events if isinstance(e, TrainEvent)]
    if not train:
        return "unknown"
    since = train[-1].step - steps
    common = max(shares)
    last = next((e for e in reversed(events) if isinstance(e, ValEvent)), None)
    if last is not None and last.step > since and (last.top1_ci95 or (0, 1))[0] > common:
        return "learnt"
    n, hits, loss = _pooled(train, since)
    if n == 0:
        return "unknown"
    if hits > n * common + SURE * math.sqrt(n * common * (1 - common)):
        return "learnt"
    prior = _entropy(shares)
    spread = math.sqrt(max(sum(p * math.log(p) ** 2 for p in shares if p > 0) - prior**2, 0.0))
    # A constant answer that is wrong by a little has its luck: at most SURE^2 / 2n nats of it.
    if loss / n < prior - SURE * spread / math.sqrt(n) - SURE**2 / (2 * n):
        return "learnt"
    return "nothing" if n >= ENOUGH else "unknown"


def _pooled(train: Sequence[TrainEvent], since: int) -> tuple[int, float, float]:
    """Images, hits and summed loss of training after step `since`: the means of an epoch so far,
    taken apart where two lines are of one epoch."""
    n, hits, loss = 0, 0.0, 0.0
    before: TrainEvent | None = None
    sums_before = 0, 0.0, 0.0
    for e in train:
        if not e.n or e.top1 is None or e.loss_mean is None:
            before = None
            continue
        sums = e.n, e.n * e.top1, e.n * e.loss_mean
        if e.step > since:
            fresh = before is None or not _same_epoch(before, e)
            more, right, lost = (0, 0.0, 0.0) if fresh else sums_before
            n, hits, loss = n + sums[0] - more, hits + (sums[1] - right), loss + (sums[2] - lost)
        before, sums_before = e, sums
    return n, hits, loss


def _same_epoch(one: TrainEvent, other: TrainEvent) -> bool:
    """Whether the means of the later line hold those of the earlier one."""
    grows = (one.n or 0) < (other.n or 0) and one.step < other.step
    return grows and math.ceil(one.epoch) == math.ceil(other.epoch)


def _entropy(shares: Sequence[float]) -> float:
    """The least loss of who ignores the images, in nats."""
    return -sum(p * math.log(p) for p in shares if p > 0)


def _rising(lines: Sequence[TrainEvent]) -> bool:
    """Whether the learning rate still rises: steps have not had their size yet."""
    return (lines[-1].lr or 0.0) > (lines[0].lr or 0.0)


def find_run_faults(lines: Sequence[Line], shares: Sequence[float]) -> Iterator[Verdict]:
    """Everything that the figures of a run show. `shares` of the classes among training labels."""
    events = [as_event(line) for line in lines]
    train = [e for e in events if isinstance(e, TrainEvent)]
    val = [e for e in events if isinstance(e, ValEvent)]
    yield from _diverged(events)
    yield from _stuck(train, val, shares)
    yield from _same(train, val)
    yield from _jumped(events)
    yield from _ties(val)
    yield from _overfitting(train, val)
    yield from _waiting(train)


def _diverged(events: Sequence[Event]) -> Iterator[Verdict]:
    for e in events:
        said = getattr(e, "loss", None)
        finite = math.isfinite(loss := 0.0 if said is None else float(said))
        if isinstance(e, DivergedEvent) or not finite:
            where = getattr(e, "where", None) or "a weight"
            yield Verdict(
                "not-finite-loss",
                "will not learn",
                f"{where} is not finite at step {e.step or 0:,}, where the loss was still "
                f"{loss:.4g}"
                if finite
                else f"the loss is {said} at step {e.step or 0:,}",
                "steps that overshoot, or an image that is not finite",
                f"lower the learning rate tenfold; run `{call('doctor', Placeholder('RECIPE'))}` "
                "on the data",
                None, None, "a loss is a number",
            )  # fmt: skip
            return


def _stuck(
    train: list[TrainEvent], val: list[ValEvent], shares: Sequence[float]
) -> Iterator[Verdict]:
    ln_k, last = math.log(max(len(shares), 2)), train[-LINES:]
    if len(last) < LINES:
        return
    apart = max(abs(e.loss - ln_k) for e in last)
    if apart < EXACT:
        yield Verdict(
            "loss-is-ln-k",
            "will not learn",
            f"the loss is {last[-1].loss:.6f}, which is ln {len(shares)} to six digits, since "
            f"step {last[0].step:,}",
            "all logits are equal: an activation on the logits that is off for every image, or "
            "weights that are all zero",
            "look at the last layer: logits need no activation",
            apart, EXACT, "a network that is only near guessing misses ln K by more",
        )  # fmt: skip
        return
    since = [e for e in train if e.step >= last[-1].step - SPAN]
    if last[-1].step < 2 * SPAN or len(since) < LINES or _rising(since):
        return
    if learning([*since, *val[-1:]], shares) == "learnt":
        return
    prior = _entropy(shares)
    losses = [e.loss if e.loss_mean is None else e.loss_mean for e in since]
    half = len(losses) // 2
    level, fall = statistics.fmean(losses), statistics.fmean(losses[:half])
    fall -= statistics.fmean(losses[half:])
    hits, common = val[-1] if val else last[-1], max(shares)
    chance = common + 3 * math.sqrt(common * (1 - common) / (hits.n or 1000))
    flat = abs(fall) < FLAT * prior
    at_prior = BELOW * prior < level < ABOVE * prior
    if at_prior and flat and hits.top1 is not None and hits.top1 < chance:
        early = 0 < last[-1].epoch < 1
        yield Verdict(
            "loss-is-prior",
            "learns badly" if early else "will not learn",
            f"the loss is {level:.3f} on average and falls no more since step "
            f"{since[0].step:,}, top-1 is {hits.top1:.1%}; who ignores the images has "
            f"{prior:.3f} and {common:.1%}",
            "a constant predictor: the image does not reach the logits, or the labels are not the "
            "images' own",
            f"run `{call('doctor', Placeholder('RECIPE'))}` on the same data: it measures where "
            "the image is lost",
            level / prior, ABOVE, "the entropy of the labels is the loss of who ignores the images",
        )  # fmt: skip


def _same(train: list[TrainEvent], val: list[ValEvent]) -> Iterator[Verdict]:
    losses = {e.step: e.loss for e in train}
    told = [e for e in val if e.loss > TINY]  # tiny ones agree by themselves
    alike = [e for e in told if abs(losses.get(e.step, math.inf) - e.loss) < EXACT]
    if len(alike) >= 2 and len({e.loss for e in alike}) > 1:
        yield Verdict(
            "validation-is-training",
            "misleads",
            f"validation and training loss agree to six digits at {len(alike)} of {len(val)} steps",
            "the training batch is used for validation",
            "give validation its own images",
            len(alike), 2, "two splits do not agree by chance",
        )  # fmt: skip


def _jumped(events: Sequence[Event]) -> Iterator[Verdict]:
    """What a restart changed: a rate above what its rise before would have made it, or an epoch
    that began anew."""
    before: list[tuple[TrainEvent, float]] = []  # the last two lines, with their rates
    resumed = False
    for e in events:
        resumed = resumed or isinstance(e, ResumeEvent)
        if not isinstance(e, TrainEvent) or not e.lr:
            continue
        if resumed and before:
            last, lr = before[-1]
            rise = lr / before[-2][1] if len(before) > 1 else 1.0
            at = f"when the run was continued at step {e.step:,}"
            if e.lr > JUMP * max(rise, 1.0) ** 2 * lr:
                yield Verdict(
                    "rate-jumped",
                    "learns badly",
                    f"the learning rate went from {lr:.3g} to {e.lr:.3g} {at}",
                    "the schedule began anew: step, epoch or optimiser were not restored",
                    "restore the step and the schedule with the weights",
                    e.lr / lr, JUMP, "a schedule does not know of restarts",
                )  # fmt: skip
            if e.step > last.step and e.epoch < last.epoch:
                yield Verdict(
                    "order-jumped",
                    "learns badly",
                    f"the epoch went from {last.epoch:.3f} back to {e.epoch:.3f} {at}",
                    "the epoch began anew: some images come twice in it, others never",
                    "restore the place in the epoch and the seed of its order with the weights",
                    last.epoch - e.epoch, 0, "steps and epochs go forward together",
                )  # fmt: skip
        before, resumed = [*before[-1:], (e, e.lr)], False


def _ties(val: list[ValEvent]) -> Iterator[Verdict]:
    for key in ("top1", "top5"):
        for e in val:
            high, low = getattr(e, f"{key}_optimistic"), getattr(e, f"{key}_pessimistic")
            if high is not None and low is not None and high - low > TIES:
                yield Verdict(
                    "ties",
                    "misleads",
                    f"{key} is {low:.1%} or {high:.1%} at step {e.step:,}, as ties are counted",
                    "logits that are exactly equal: cut off at 0, or rounded to few bits",
                    "compute the last layer in float32, without an activation",
                    high - low, TIES, "float32 logits do not tie",
                )  # fmt: skip
                return


def _overfitting(train: list[TrainEvent], val: list[ValEvent]) -> Iterator[Verdict]:
    if len(val) < LINES + 1 or not train:
        return
    best, last, learnt = min(val, key=lambda e: e.loss), val[-1], train[-1]
    after = [e for e in val if e.step > best.step]
    rising = len(after) >= LINES and min(e.loss for e in after[-LINES:]) > RISE * best.loss
    falling = (learnt.loss if learnt.loss_mean is None else learnt.loss_mean) < best.loss / RISE
    if last.top1 is None or best.top1 is None:
        return
    pays = last.top1 > best.top1 + math.sqrt(0.25 / (last.n or 1000))
    if rising and falling and not pays:
        gap = (learnt.top1 or 0.0) - last.top1
        yield Verdict(
            "overfitting",
            "learns badly",
            f"validation loss rose from {best.loss:.3f} (step {best.step:,}) to "
            f"{last.loss:.3f}; top-1 is {learnt.top1 or 0:.1%} in training and "
            f"{last.top1:.1%} on validation, {gap:.1%} apart",
            "more steps than the images have to teach: the network learns them by heart",
            f"use the best checkpoint; shift, mirror or mix the images ({option('shift')}, "
            f"{option('flip', True)}, {option('cutmix')}), "
            f"raise {option('dropout')} or {option('weight_decay')}, or stop early "
            f"({option('early_stop')})",
            last.loss / best.loss, RISE, "the lowest validation loss of the run",
           
        )  # fmt: skip


def _waiting(train: list[TrainEvent]) -> Iterator[Verdict]:
    waits = [e.data_wait for e in train[1:] if e.data_wait is not None]
    if len(waits) >= LINES and sorted(waits)[len(waits) // 2] > STARVED:
        middle = sorted(waits)[len(waits) // 2]
        yield Verdict(
            "starved-loader",
            "note",
            f"training waits for images {middle:.0%} of the time",
            "images are read and decoded more slowly than the network takes them",
            f"pack them (`{call('data pack')}`), or raise {option('workers')}",
            middle, STARVED, "a packed set keeps it under 5 %",
        )  # fmt: skip
