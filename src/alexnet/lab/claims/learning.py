"""Claims on how it is trained: activations, decay, dropout, augmentation, the rate's policy."""

from functools import partial

import numpy as np

from alexnet.data import Split, draws
from alexnet.lab.claims.ablations import without_norm, without_norm_with_tanh
from alexnet.lab.claims.architecture import IMAGES, SMALL, error
from alexnet.lab.claims.claim import Claim
from alexnet.lab.claims.comparison import Arm, Comparison, gap, test_error, train_error
from alexnet.lab.claims.one_training import chosen
from alexnet.lab.claims.study import Row

QUARTER = 0.25  # training error that figure 1 is read at
NEAR = 0.02  # of the lowest held-out error: there training counts as converged
TINT = 0.25  # most that a channel is made brighter or darker under changed illumination

# Four layers as in figure 1: cuda-convnet's three convolutions and one fully connected layer, here
# without its norms, and nothing against overfitting.
FOUR_LAYERS = SMALL.replace(
    model="cuda-convnet-18",
    flip=False,
    weight_decay=0.0,
    dropout=None,
    lr=1e-3,
    schedule="constant",
    warmup_epochs=0.0,
    epochs=100,
    eval_every=100,
    log_every=31,
)
LONG, LONG_IMAGES = SMALL.replace(epochs=16, eval_every=1), 3000


def learnt_a_quarter(point: list[float]) -> bool:
    return point[1] <= QUARTER


def steps_to_a_quarter(row: Row) -> float:
    """Steps until the training error is 25 %; all there were, where it never is."""
    return float(next((s for s, e, _ in row["curve"] if e <= QUARTER), row["curve"][-1][0]))


def far_from_a_quarter(row: Row) -> float:
    """The same, and more the further away it still is: to choose a rate by."""
    _, error, _ = row["curve"][-1]
    return steps_to_a_quarter(row) * (1 + max(float(error) - QUARTER, 0))


def steps_to_converge(row: Row) -> float:
    """Steps until the held-out error is within two points of its lowest."""
    lowest = min(e for _, e, _ in row["held_curve"])
    return float(next(s for s, e, _ in row["held_curve"] if e <= lowest + NEAR))


def relit(part: Split) -> Split:
    """The same images under other light: each channel of each made brighter or darker by itself.

    Gains are drawn by image, up to a quarter both ways.
    """
    part = chosen(part, np.arange(len(part)))
    assert isinstance(part.pixels, np.ndarray)
    ids = np.arange(len(part))
    purposes = (draws.RED, draws.GREEN, draws.BLUE)
    gains = [1 + TINT * (2 * draws.uniform(0, 0, ids, p) - 1) for p in purposes]
    part.pixels[:] = (part.pixels * np.stack(gains, 1)[:, None, None]).round().clip(0, 255)
    return part


DROPOUT = Arm("dropout 0.5", LONG.replace(dropout=0.5))
NO_DROPOUT = Arm("no dropout", LONG)
dropout = partial(Comparison, varies=("dropout",), images=LONG_IMAGES)

CLAIMS = (
    Claim(
        name="relu-speed",
        paper="ReLUs reach 25 % training error on CIFAR-10 six times faster than tanh",
        source="section 3.1, figure 1",
        unit="times as many steps with tanh",
        printed=6.0,
        data="cifar10",
        minutes=5,
        seeds=4,
        picture="Training error over epochs of a four-layer network on CIFAR-10: the solid line "
        "(ReLU) is at 25 % after about 6 epochs, the dashed one (tanh) after about 36.",
        measure=Comparison(
            arms=(
                Arm("ReLU", FOUR_LAYERS, without_norm),
                Arm("tanh", FOUR_LAYERS, without_norm_with_tanh),
            ),
            varies=("stage *",),
            score=steps_to_a_quarter,
            score_name="steps to 25 % training error",
            images=1000,
            ratio=True,
            choose=far_from_a_quarter,
            failed=lambda row: row["curve"][-1][1] > QUARTER,
            rates=(1.0, 3.0, 9.0),
            until=learnt_a_quarter,
        ),
    ),
    Claim(
        name="weight-decay",
        paper="weight decay of 0.0005 lowers the training error too",
        source="section 5",
        unit="points of training error more without decay",
        data="cifar10",
        minutes=10,
        seeds=5,
        measure=Comparison(
            arms=(Arm("decay 0.0005", SMALL), Arm("none", SMALL.replace(weight_decay=0.0))),
            varies=("weight_decay",),
            score=train_error,
            score_name="training error (%)",
            images=IMAGES,
        ),
    ),
    Claim(
        name="dropout-overfitting",
        paper="without dropout the network exhibits substantial overfitting",
        source="section 4.2",
        unit="points more between test and training error without it",
        data="cifar10",
        minutes=10,
        seeds=3,
        measure=dropout(
            arms=(DROPOUT, NO_DROPOUT), score=gap, score_name="test less training error (points)"
        ),
    ),
    Claim(
        name="dropout-iterations",
        paper="dropout roughly doubles the iterations to converge",
        source="section 4.2",
        unit="times as many steps with dropout",
        printed=2.0,
        data="cifar10",
        minutes=10,
        seeds=3,
        measure=dropout(
            arms=(NO_DROPOUT, DROPOUT),
            score=steps_to_converge,
            score_name="steps to within 2 points of the lowest held-out error",
            ratio=True,
        ),
    ),
    Claim(
        name="crops-mirrors",
        paper="without crops and mirror images the network suffers from substantial overfitting",
        source="section 4.1",
        unit="points more between test and training error without them",
        data="cifar10",
        minutes=10,
        seeds=5,
        measure=Comparison(
            arms=(
                Arm("moved and mirrored", SMALL.replace(shift=4)),
                Arm("as they are", SMALL.replace(flip=False)),
            ),
            varies=("shift", "flip"),
            score=gap,
            score_name="test less training error (points)",
            images=IMAGES,
        ),
    ),
    Claim(
        name="colour-noise",
        paper="PCA colour noise, for invariance to the illumination, takes over 1 point of top-1",
        source="section 4.1",
        unit="points of test error more without it, under changed light",
        printed=1.0,
        data="cifar10",
        minutes=9,
        seeds=5,
        measure=error(
            arms=(Arm("colour noise", SMALL.replace(colour=0.1)), Arm("none", SMALL)),
            varies=("colour",),
            score=test_error,
            score_name="test error under changed light (%)",
            alter_test=relit,
        ),
    ),
    Claim(
        name="plateau",
        paper="the rate is divided by 10 when the validation error stops improving, three times",
        source="section 5",
        unit="points of test error more at a constant rate",
        data="cifar10",
        minutes=8,
        seeds=4,
        measure=error(
            arms=(
                Arm("plateau", LONG.replace(schedule="plateau", plateau_patience=2)),
                Arm("constant", LONG.replace(schedule="constant", plateau_patience=2)),
            ),
            varies=("schedule",),
            images=LONG_IMAGES,
        ),
    ),
)
