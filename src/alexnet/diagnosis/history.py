"""Verdicts on a run's figures: the lines of metrics.jsonl, by whoever wrote them.

A line has `event` (train, val, resume or diverged), `step`, `loss`, and where known `loss_mean`,
`top1`, `top5` with its tie rules, `lr`, `n`, `data_wait`. Of a line of training `n` is how many
images `loss_mean` and `top1` are of, since the epoch began.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from alexnet.diagnosis.verdict import Verdict

Event = dict[str, Any]

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


def learning(events: Sequence[Event], shares: Sequence[float], steps: int = SPAN) -> Learning:
    """Whether the figures of the last so many `steps` show that anything is learnt.

    "learnt" where top-1 in training, its loss, or top-1 on validation is better than any answer
    that ignores the image: the commonest class, or the entropy of the labels. Label smoothing,
    mixed images and an L2 term only add to the loss of such an answer. "nothing" where enough
    images were seen for that to show; "unknown" where fewer were, or lines do not say how many.
    """
    train = [e for e in events if e["event"] == "train"]
    if not train:
        return "unknown"
    since = train[-1]["step"] - steps
    common = max(shares)
    last = next((e for e in reversed(events) if e["event"] == "val"), None)
    if last is not None and last["step"] > since and last.get("top1_ci95", (0, 1))[0] > common:
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


def _pooled(train: Sequence[Event], since: int) -> tuple[int, float, float]:
    """Images, hits and summed loss of training after step `since`: the means of an epoch so far,
    taken apart where two lines are of one epoch."""
    n, hits, loss = 0, 0.0, 0.0
    before: Event | None = None
    for e in train:
        known = e.get("n") and "top1" in e and "loss_mean" in e
        if known and e["step"] > since:
            more, right, lost = e["n"], e["n"] * e["top1"], e["n"] * e["loss_mean"]
            if before is not None and _same_epoch(before, e):
                more -= before["n"]
                right -= before["n"] * before["top1"]
                lost -= before["n"] * before["loss_mean"]
            n, hits, loss = n + more, hits + right, loss + lost
        before = e if known else None
    return n, hits, loss


def _same_epoch(one: Event, other: Event) -> bool:
    """Whether the means of the later line hold those of the earlier one."""
    grows = bool(one["n"] < other["n"] and one["step"] < other["step"])
    return grows and math.ceil(one.get("epoch", 0.0)) == math.ceil(other.get("epoch", 0.0))


def _entropy(shares: Sequence[float]) -> float:
    """The least loss of who ignores the images, in nats."""
    return -sum(p * math.log(p) for p in shares if p > 0)


def _rising(lines: Sequence[Event]) -> bool:
    """Whether the learning rate still rises: steps have not had their size yet."""
    return (lines[-1].get("lr") or 0.0) > (lines[0].get("lr") or 0.0)


def find_run_faults(events: Sequence[Event], shares: Sequence[float]) -> Iterator[Verdict]:
    """Everything that the figures of a run show. `shares` of the classes among training labels."""
    train = [e for e in events if e["event"] == "train"]
    val = [e for e in events if e["event"] == "val"]
    yield from _diverged(events)
    yield from _stuck(train, val, shares)
    yield from _same(train, val)
    yield from _jumped(events)
    yield from _ties(val)
    yield from _overfitting(train, val)
    yield from _waiting(train)


def _diverged(events: Sequence[Event]) -> Iterator[Verdict]:
    for e in events:
        finite = math.isfinite(float(e.get("loss", 0.0)))
        if e["event"] == "diverged" or not finite:
            where = e.get("where", "a weight")
            yield Verdict(
                "not-finite-loss",
                "will not learn",
                f"{where} is not finite at step {e['step']:,}, where the loss was still "
                f"{float(e['loss']):.4g}"
                if finite
                else f"the loss is {e.get('loss')} at step {e['step']:,}",
                "steps that overshoot, or an image that is not finite",
                "lower the learning rate tenfold; run `alexnet doctor RECIPE` on the data",
                None, None, "a loss is a number",
            )  # fmt: skip
            return


def _stuck(train: list[Event], val: list[Event], shares: Sequence[float]) -> Iterator[Verdict]:
    ln_k, last = math.log(max(len(shares), 2)), train[-LINES:]
    if len(last) < LINES:
        return
    apart = max(abs(e["loss"] - ln_k) for e in last)
    if apart < EXACT:
        yield Verdict(
            "loss-is-ln-k",
            "will not learn",
            f"the loss is {last[-1]['loss']:.6f}, which is ln {len(shares)} to six digits, since "
            f"step {last[0]['step']:,}",
            "all logits are equal: an activation on the logits that is off for every image, or "
            "weights that are all zero",
            "look at the last layer: logits need no activation",
            apart, EXACT, "a network that is only near guessing misses ln K by more",
        )  # fmt: skip
        return
    since = [e for e in train if e["step"] >= last[-1]["step"] - SPAN]
    if last[-1]["step"] < 2 * SPAN or len(since) < LINES or _rising(since):
        return
    if learning([*since, *val[-1:]], shares) == "learnt":
        return
    prior = _entropy(shares)
    losses = [float(e["loss_mean"] if "loss_mean" in e else e["loss"]) for e in since]
    half = len(losses) // 2
    level, fall = statistics.fmean(losses), statistics.fmean(losses[:half])
    fall -= statistics.fmean(losses[half:])
    hits, common = val[-1] if val else last[-1], max(shares)
    chance = common + 3 * math.sqrt(common * (1 - common) / (hits.get("n") or 1000))
    flat = abs(fall) < FLAT * prior
    if BELOW * prior < level < ABOVE * prior and flat and hits["top1"] < chance:
        early = float(last[-1].get("epoch", 1.0)) < 1
        yield Verdict(
            "loss-is-prior",
            "learns badly" if early else "will not learn",
            f"the loss is {level:.3f} on average and falls no more since step "
            f"{since[0]['step']:,}, top-1 is {hits['top1']:.1%}; who ignores the images has "
            f"{prior:.3f} and {common:.1%}",
            "a constant predictor: the image does not reach the logits, or the labels are not the "
            "images' own",
            "run `alexnet doctor RECIPE` on the same data: it measures where the image is lost",
            level / prior, ABOVE, "the entropy of the labels is the loss of who ignores the images",
        )  # fmt: skip


def _same(train: list[Event], val: list[Event]) -> Iterator[Verdict]:
    losses = {e["step"]: e["loss"] for e in train}
    told = [e for e in val if e["loss"] > TINY]  # tiny ones agree by themselves
    alike = [e for e in told if abs(losses.get(e["step"], math.inf) - e["loss"]) < EXACT]
    if len(alike) >= 2 and len({e["loss"] for e in alike}) > 1:
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
    before: list[Event] = []
    resumed = False
    for e in events:
        resumed = resumed or e["event"] == "resume"
        if e["event"] != "train" or not e.get("lr"):
            continue
        if resumed and before:
            last = before[-1]
            rise = last["lr"] / before[-2]["lr"] if len(before) > 1 else 1.0
            at = f"when the run was continued at step {e['step']:,}"
            if e["lr"] > JUMP * max(rise, 1.0) ** 2 * last["lr"]:
                yield Verdict(
                    "rate-jumped",
                    "learns badly",
                    f"the learning rate went from {last['lr']:.3g} to {e['lr']:.3g} {at}",
                    "the schedule began anew: step, epoch or optimiser were not restored",
                    "restore the step and the schedule with the weights",
                    e["lr"] / last["lr"], JUMP, "a schedule does not know of restarts",
                )  # fmt: skip
            if e["step"] > last["step"] and e.get("epoch", 0.0) < last.get("epoch", 0.0):
                yield Verdict(
                    "order-jumped",
                    "learns badly",
                    f"the epoch went from {last['epoch']:.3f} back to {e['epoch']:.3f} {at}",
                    "the epoch began anew: some images come twice in it, others never",
                    "restore the place in the epoch and the seed of its order with the weights",
                    last["epoch"] - e["epoch"], 0, "steps and epochs go forward together",
                )  # fmt: skip
        before, resumed = [*before[-1:], e], False


def _ties(val: list[Event]) -> Iterator[Verdict]:
    for key in ("top1", "top5"):
        for e in val:
            high, low = e.get(f"{key}_optimistic"), e.get(f"{key}_pessimistic")
            if high is not None and low is not None and high - low > TIES:
                yield Verdict(
                    "ties",
                    "misleads",
                    f"{key} is {low:.1%} or {high:.1%} at step {e['step']:,}, as ties are counted",
                    "logits that are exactly equal: cut off at 0, or rounded to few bits",
                    "compute the last layer in float32, without an activation",
                    high - low, TIES, "float32 logits do not tie",
                )  # fmt: skip
                return


def _overfitting(train: list[Event], val: list[Event]) -> Iterator[Verdict]:
    if len(val) < LINES + 1 or not train:
        return
    best = min(val, key=lambda e: float(e["loss"]))
    after = [e for e in val if e["step"] > best["step"]]
    rising = len(after) >= LINES and min(e["loss"] for e in after[-LINES:]) > RISE * best["loss"]
    falling = train[-1].get("loss_mean", train[-1]["loss"]) < best["loss"] / RISE
    pays = val[-1]["top1"] > best["top1"] + math.sqrt(0.25 / (val[-1].get("n") or 1000))
    if rising and falling and not pays:
        gap = train[-1].get("top1", 0.0) - val[-1]["top1"]
        yield Verdict(
            "overfitting",
            "learns badly",
            f"validation loss rose from {best['loss']:.3f} (step {best['step']:,}) to "
            f"{val[-1]['loss']:.3f}; top-1 is {train[-1].get('top1', 0):.1%} in training and "
            f"{val[-1]['top1']:.1%} on validation, {gap:.1%} apart",
            "more steps than the images have to teach: the network learns them by heart",
            "use the best checkpoint; shift, mirror or mix the images (--shift, --flip, --cutmix), "
            "raise --dropout or --weight-decay, or stop early (--early-stop)",
            val[-1]["loss"] / best["loss"], RISE, "the lowest validation loss of the run",
           
        )  # fmt: skip


def _waiting(train: list[Event]) -> Iterator[Verdict]:
    waits = [e["data_wait"] for e in train[1:] if e.get("data_wait") is not None]
    if len(waits) >= LINES and sorted(waits)[len(waits) // 2] > STARVED:
        middle = sorted(waits)[len(waits) // 2]
        yield Verdict(
            "starved-loader",
            "note",
            f"training waits for images {middle:.0%} of the time",
            "images are read and decoded more slowly than the network takes them",
            "pack them (`alexnet data pack`), or raise --workers",
            middle, STARVED, "a packed set keeps it under 5 %",
        )  # fmt: skip
