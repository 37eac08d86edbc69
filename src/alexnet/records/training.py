"""Results of `alexnet train` and `alexnet report`."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.records.base import Record, optional
from alexnet.records.evaluation import Interval


@dataclass(frozen=True, kw_only=True)
class LeftOutImage(Record):
    """An image that a training left out since it could not be read: its `path` in the data set, its
    `split`, and the `reason`. Where it was used at first, `step` is the first step without it."""

    path: str
    split: str
    reason: str
    step: int | None = optional()


@dataclass(frozen=True, kw_only=True)
class TrainResult(Record):
    """The result of `alexnet train`.

    `top1` and `top5` (fractions, with 95 % intervals `top1_ci95` and `top5_ci95`), `loss` (nats),
    and `n` (images) are those of the best validation, made after `best_step` with a number of
    `views` of each image. They are None where there was no validation, and `top5` also with five
    classes or fewer. `run` is the folder of the run, `checkpoint` its best checkpoint, `recipe` the
    name of the recipe, and `recipe_file` the recipe as a file to edit. The training ended at
    `step`, and `finished` says why. `images_per_s` is the rate of training steps alone, `wall_s`
    the time in all. `report` is the page of the run, None where it could not be written, and
    `figures` are its pictures. `left_out` are images that were not used. `choice` says why this
    recipe was chosen, where it was; it is None for a run that was continued.
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
    """The result of `alexnet report`: the path of the page (`out`), its size in `bytes`, and the
    `runs` it shows. `figures` are the pictures that were drawn, `left_out` the titles of those that
    did not fit into the page."""

    out: str
    bytes: int
    figures: Sequence[str]
    left_out: Sequence[str]
    runs: Sequence[str]
