"""Verdicts on images and labels alone."""

import math
from collections.abc import Iterator

import torch

from alexnet.diagnosis.batches import CLEAR, FEWEST, shared
from alexnet.diagnosis.findings import BIG, SMALL, Findings
from alexnet.diagnosis.verdict import Verdict
from alexnet.options import call

ONE_CLASS = 256  # labels; in fewer a rare class may be missing by chance
ORDER = 0.7  # entropy of a batch's labels beside that of shuffled batches
WILD = 2.0  # first loss in ln K
# Standard errors above chance under which a probe has found nothing; with shuffled labels the best
# of two probes reaches 2.9.
FEW_SE = 3.5
MANY_SE = 4.0
HALF = 0.5  # of what a probe knows of train beyond chance
MANY, FEW = 500, 20  # images, and images of the rarest class, that a probe has to have failed on
APART = 0.5  # standard deviations between the means of two splits
SAME = 0.5  # share of validation images that are training images
SOME = 0.002


def find_data_faults(f: Findings) -> Iterator[Verdict]:
    """Everything that images and labels show."""
    yield from _labels(f)
    yield from _pixels(f)
    yield from _probe(f)
    yield from _splits(f)


def _labels(f: Findings) -> Iterator[Verdict]:
    labels = torch.cat(f.train.labels)
    low, high = int(labels.min()), int(labels.max())
    if f.classes < 2:
        return  # judged with the network
    if low < 0 or high >= f.classes:
        yield Verdict(
            "labels-out-of-range",
            "will not learn",
            f"labels go from {low} to {high}, and the network has {f.classes} outputs "
            f"(0 to {f.classes - 1})",
            "labels that count from 1, or a network built for another number of classes",
            f"build the network with classes={high + 1}, or subtract {low} from the labels",
            high, f.classes - 1, "the index of a class is one of its outputs",
        )  # fmt: skip
        return
    counts = torch.bincount(labels, minlength=f.classes)
    if int((counts > 0).sum()) == 1:
        yield Verdict(
            "one-class",
            "will not learn" if len(labels) >= ONE_CLASS else "note",
            f"all {len(labels):,} labels read are {int(labels[0])}",
            "a data set in class order that is not shuffled, or a folder read as one class",
            "shuffle the training set (shuffle=True), and look at its labels",
            1, 2, "there must be something to tell apart",
        )  # fmt: skip
        return
    order = f.order()
    if order is not None and order < ORDER and len(labels) >= FEWEST:
        yield Verdict(
            "class-order",
            "will not learn",
            f"the labels of a batch have {order:.0%} of the entropy that they would have shuffled",
            "images come in class order, or are shuffled within a small window only: every batch "
            "pulls all outputs towards its few classes",
            "shuffle the whole training set every epoch (shuffle=True)",
            order, ORDER, "healthy loaders measure 0.95 to 1.05",
        )  # fmt: skip
    missing = [k for k in range(f.classes) if counts[k] == 0]
    expected = len(labels) / f.classes
    if missing and expected > 10 and f.contract is not None:
        yield Verdict(
            "class-missing",
            "note",
            f"{len(missing)} of {f.classes} classes have no image among {len(labels):,}: first "
            f"{missing[0]}",
            "an empty class folder, or a network with more outputs than there are classes",
            "look at the class list; take outputs out that nothing teaches",
            len(missing), 0, "chance would leave a class out once in e^10 times",
        )  # fmt: skip


def _pixels(f: Findings) -> Iterator[Verdict]:
    t = f.train
    if t.bad:
        yield Verdict(
            "not-finite-input",
            "will not learn",
            f"{t.bad:,} of {t.n:,} images hold NaN or infinity",
            "a division by a deviation of zero, or damaged files; one such image makes every "
            "weight NaN",
            "find them where images are decoded or normalised, and refuse them there",
            t.bad / t.n, 0, "a single NaN spreads to the loss and all weights",
        )  # fmt: skip
    if f.val is not None and f.val.bad:
        yield Verdict(
            "not-finite-input",
            "misleads",
            f"{f.val.bad:,} of {f.val.n:,} validation images hold NaN or infinity",
            "a division by a deviation of zero, or damaged files",
            "find them where images are decoded or normalised, and refuse them there",
            f.val.bad / f.val.n, 0, "a figure over NaN is none", "validation",
        )  # fmt: skip
    if t.n and t.constant / t.n > 0.5:
        yield Verdict(
            "constant-input",
            "will not learn",
            f"{t.constant:,} of {t.n:,} images are one colour",
            "images that were not read (all zero), or were scaled to nothing and rounded",
            "look at a few images exactly as the network gets them",
            t.constant / t.n, 0.5, "a picture that is the same everywhere shows nothing",
        )  # fmt: skip
        return
    same = 1 - len(set(t.hashes)) / max(t.n, 1)
    if same > 0.9 and t.n > 20 and len(set(t.hashes)) < 8:  # a small set may come round again
        yield Verdict(
            "constant-input",
            "will not learn",
            f"of {t.n:,} images {len(set(t.hashes)):,} differ",
            "one image is read again and again: an index that does not move, or a stuck cache",
            "look at a few images exactly as the network gets them",
            same, 0.9, "images have to differ",
        )  # fmt: skip
        return
    std = float(t.std.mean())
    if f.misscaled():
        what = "0 to 255" if std > BIG else "divided twice"
        yield Verdict(
            "input-scale",
            # The paper's own inputs are not divided: its weights are drawn for them.
            "learns badly" if _suffers(f) else "note",
            f"the inputs have a standard deviation of {std:.3g} (largest {t.largest:.3g})",
            f"pixels that were not normalised as the initial weights expect ({what})",
            f"subtract the mean ({', '.join(f'{m:.3g}' for m in t.mean.tolist())}) and divide by "
            f"the deviation ({', '.join(f'{s:.3g}' for s in t.std.tolist())})",
            std, BIG if std > BIG else SMALL,
            "initial weights are drawn for inputs of a deviation near 1",
        )  # fmt: skip


def _suffers(f: Findings) -> bool:
    """Whether the network is ill at ease from the start, gets bare bytes, or is made worse by its
    first steps and would not be if the inputs were normalised."""
    if f.explodes():
        return False  # at any scale of the inputs
    if f.signals is None or f.signals.loss > WILD * math.log(max(f.classes, 2)):
        return True
    return f.raw() or (f.bursts(f.trial) and not f.bursts(f.normalised))


def _probe(f: Findings) -> Iterator[Verdict]:
    p = f.probe
    if p is None:
        return
    if p.accuracy < p.chance + FEW_SE * p.error:
        yield Verdict(
            "labels-unrelated",
            # Cats and dogs are hard for a linear probe: few images prove nothing.
            "will not learn" if p.n >= MANY and p.least >= FEW else "note",
            f"a linear probe on small pictures and random filters names {p.accuracy:.1%} of images "
            f"it has not seen, the mean over classes, and guessing {p.chance:.1%} (n {p.n:,})",
            "labels that are not those of the images: shuffled, or joined by another order",
            "join labels to images by file name, and look at twenty images with their labels",
            p.accuracy, p.chance, f"{FEW_SE:g} standard errors above chance",
        )  # fmt: skip
        return
    if len(p.shifts) < 2 or not f.val_is_mixed():
        return
    best = max(range(len(p.shifts)), key=lambda s: p.shifts[s])
    error = math.sqrt(0.25 / max(p.val_n, 1))
    as_well = p.chance + HALF * (p.accuracy - p.chance)  # of what the probe does on train
    if best and p.shifts[best] > p.shifts[0] + MANY_SE * error:
        numbered = f"with the labels moved by {best} it names {p.shifts[best]:.1%}"
    elif p.shifts[0] + MANY_SE * error < min(p.renamed, as_well):
        numbered = f"with the classes renumbered it names {p.renamed:.1%}"
    elif p.accuracy > p.chance + CLEAR * p.error and p.shifts[0] + MANY_SE * error < as_well:
        numbered = f"of images of train that it has not seen it names {p.accuracy:.1%}"
    else:
        return
    yield Verdict(
        "splits-shifted",
        "misleads",
        f"a linear probe fitted on train names {p.shifts[0]:.1%} of validation (n {p.val_n:,}, the "
        f"mean over classes); {numbered}",
        "the two splits number their classes differently (lists sorted differently, one counted "
        "from 1, a class left out of one), or validation's labels are not those of its images",
        "number the classes once, from the training set's names, use that for both, and look at "
        "twenty validation images with their labels",
        p.shifts[0], max(p.shifts[best], p.renamed, as_well), f"{MANY_SE:g} standard errors",
    )  # fmt: skip


def _splits(f: Findings) -> Iterator[Verdict]:
    if f.val is None or not f.val.n:
        return
    share = shared(f.train, f.val)
    if share > SAME:
        yield Verdict(
            "validation-is-training",
            "misleads",
            f"{share:.0%} of {f.val.n:,} validation images are training images, bit for bit",
            "the training batch or the training loader is used for validation",
            "give validation its own images, which training never sees",
            share, SAME, "splits must be disjoint",
        )  # fmt: skip
    elif share > SOME:
        yield Verdict(
            "shared-images",
            "misleads",
            f"{share:.2%} of {f.val.n:,} validation images are among {f.train.n:,} training images",
            "copies of the same image in both splits",
            f"take them out of one: `{call('data check')}` lists duplicates across splits",
            share, SOME, "published sets have under 0.1 %",
        )  # fmt: skip
    apart, stretch = f.apart() or (0.0, 1.0)
    if share <= SAME and f.val_is_mixed() and (apart > APART or stretch > 1 + APART):
        yield Verdict(
            "splits-differ",
            "misleads",
            f"validation's mean is {apart:.2f} of train's deviations away, and its deviation is "
            f"{stretch:.2f} times as large or small",
            "validation images are normalised otherwise than training images",
            "use the training set's mean and deviation for both, by the same function",
            max(apart, stretch - 1), APART, "splits of one set measure under 0.1",
        )  # fmt: skip
