"""What a training returns, and what it keeps beside its weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.runs.records.base import Record, optional
from alexnet.runs.records.evaluation import Interval


@dataclass(frozen=True, kw_only=True)
class LeftOutImage(Record):
    """An image that a training did not use, since it could not be read: its `path` inside the set,
    its `split`, the `reason` and, of one that was used before, the `step` from which on."""

    path: str
    split: str
    reason: str
    step: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class TrainResult(Record):
    """What `alexnet train` returns.

    `top1`, `top5` (fractions, with 95 % intervals `top1_ci95`, `top5_ci95`), `loss` (nats) and `n`
    (images) are those of the best validation, at `best_step`, with so many `views` an image; None
    where there was none, and of top-5 with five classes or fewer. `run` is the run's folder,
    `checkpoint` its best one, `recipe` the recipe's name and `recipe_file` the recipe as a file to
    edit. The training ended at `step`, and `finished` says why. `images_per_s` is of training steps
    alone, `wall_s` seconds in all. `report` is the run's page, None where it could not be written,
    `figures` are its pictures. `left_out` are images that were not used. `choice` says why it is
    this recipe, where one was chosen; None of a run that was continued.
    """

    top1: float | None
    top1_ci95: Interval | None
    top5: float | None
    top5_ci95: Interval | None
    loss: float | None
    n: int | None
    run: str
    checkpoint: str
    recipe: str
    recipe_file: str
    step: int
    best_step: int
    views: int
    finished: str
    images_per_s: float | None
    wall_s: float
    report: str | None
    figures: Sequence[str]
    left_out: Sequence[LeftOutImage]
    choice: Sequence[str] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ReportResult(Record):
    """What `alexnet report` returns: the page `out`, of so many `bytes`, on `runs`. `figures` are
    the pictures drawn, `left_out` the titles of those that did not fit into the page."""

    out: str
    bytes: int
    figures: Sequence[str]
    left_out: Sequence[str]
    runs: Sequence[str]
