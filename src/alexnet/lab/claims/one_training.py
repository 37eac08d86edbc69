"""One training of a study, from the parts that every training is made of, and its figures."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import ImageFiles, Preprocess, Split, Statistics, measure_statistics, open_dataset
from alexnet.lab.claims.study import Row, Study
from alexnet.models import Net, Spec, model_spec, named_parts
from alexnet.recipe import Recipe
from alexnet.runtime import choose_precision, pick_device
from alexnet.training import Trainer, TrainingData, evaluate

HELD, TEST = 1000, 5000  # images at most of the slice for decisions, and of test
METHOD = 1  # part of every cell; one more where what a trial does changes

Change = Callable[[Spec], Spec]
Alter = Callable[[Split], Split]


@dataclass(frozen=True)
class Material:
    """The images of a study, the same in every arm: to train on, to decide by, to test on.
    `name` is what the user calls them."""

    name: str
    classes: int
    train: Split
    held: Split
    test: Split
    statistics: Statistics

    @cached_property
    def digest(self) -> str:
        """sha256 over classes, labels and pixels of all three (16 hex digits)."""
        h = hashlib.sha256(str(self.classes).encode())
        for part in (self.train, self.held, self.test):
            h.update(part.labels.tobytes())
            h.update(np.ascontiguousarray(part.pixels).data)
        return h.hexdigest()[:16]

    @property
    def described(self) -> dict[str, Any]:
        """What a record keeps of them."""
        counts = {name: len(getattr(self, name)) for name in ("train", "held", "test")}
        return {"data": self.name, "data_digest": self.digest, "images": counts}


def gather(recipe: Recipe, study: Study, images: int, alter_test: Alter | None = None) -> Material:
    """The images of a study in memory, `images` of train unless the user gave another number.

    Statistics are of these training images. `alter_test` makes other test images of them.
    """
    dataset = open_dataset(recipe, study.data)
    train = some(dataset.split("train"), study.images or images)
    test = some(dataset.split("test"), TEST)
    return Material(
        Path(study.data).name if study.data else recipe.data,
        len(dataset.classes),
        train,
        some(dataset.split("val"), HELD),
        alter_test(test) if alter_test else test,
        measure_statistics(
            train.read,
            np.arange(len(train)),
            colours=recipe.channels == 3,
            mean_image=recipe.normalize in ("image", "centre"),
        ),
    )


def some(part: Split, n: int) -> Split:
    """So many images of a slice, always the same, in memory."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:n].numpy()
    return chosen(part, order)


def chosen(part: Split, ids: NDArray[np.intp]) -> Split:
    """These images of a slice, in memory."""
    rows = ids if part.rows is None else part.rows[ids]
    pixels = part.pixels
    if isinstance(pixels, np.ndarray):
        return replace(part, labels=part.labels[ids], pixels=pixels[rows], rows=None)
    if isinstance(pixels, ImageFiles):
        files = pixels.take(rows)
        return replace(part, labels=part.labels[ids], pixels=files, rows=None).resident(2)
    return replace(part, labels=part.labels[ids], rows=rows).resident(2)


@dataclass
class Trained:
    """A network after its training. `curve` has (step, error, loss) of the training images between
    two points, `held` the same of the slice for decisions: errors are shares of 1."""

    net: Net
    preprocess: Preprocess
    recipe: Recipe
    material: Material
    curve: list[list[float]]
    held: list[list[float]]

    def figures(self, part: Split, views: int = 1, **options: Any) -> dict[str, float]:
        """error and loss on a slice."""
        evaluated = evaluate(
            self.net,
            part,
            self.preprocess,
            self.material.classes,
            views=views,
            precision=self.recipe.precision,
            workers=0,
            **options,
        ).figures()
        return {"error": 1 - evaluated.top1, "loss": evaluated.loss}


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with the precision that this machine would choose, which is part of a result."""
    return recipe.replace(precision=choose_precision(recipe.precision, pick_device()))


def network_digest(recipe: Recipe, classes: int, change: Change | None) -> str:
    """sha256 over every part of a network (16 hex digits)."""
    spec = model_spec(recipe.model, classes)
    parts = named_parts(change(spec) if change else spec)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def cell_of(recipe: Recipe, material: Material, change: Change | None = None) -> Row:
    """All that the figures of a training depend on, short."""
    return {
        "method": METHOD,
        "network": network_digest(recipe, material.classes, change),
        "recipe": recipe.digest,
        "data": material.digest,
        "device": pick_device().type,
        "seed": recipe.seed,
        "lr": recipe.lr,
    }


def train(
    recipe: Recipe,
    material: Material,
    change: Change | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    until: Callable[[list[float]], bool] | None = None,
) -> Trained:
    """Trains to the recipe's end, until its policy stops it, until `until` says so of a point of
    the curve, or until the loss is not a number."""
    data = TrainingData(material.train, material.held, material.classes, material.statistics)
    trainer = Trainer(recipe, data, weights=weights, change=change)
    trained = Trained(trainer.net, trainer.preprocess, recipe, material, [], [])
    sums = torch.zeros_like(trainer.state.sums)  # between two points of the curve
    for batch in trainer.batches():
        trainer.train_step(batch, sums=sums)
        step = trainer.state.step
        if step % recipe.log_every == 0 or trainer.is_at_end:
            n, loss, hits, _ = sums.tolist()
            sums.zero_()
            trained.curve.append([step, round(1 - hits / n, 5), round(loss / n, 5)])
            if not math.isfinite(loss) or (until and until(trained.curve[-1])):
                break
        if step % trainer.steps_per_validation == 0 or trainer.is_at_end:
            held_figures = trained.figures(material.held)
            trained.held.append(
                [step, round(held_figures["error"], 5), round(held_figures["loss"], 5)]
            )
            top1 = 1 - held_figures["error"]
            _, stop = trainer.state.watch.update(top1, held_figures["loss"], step, recipe)
            if stop:
                break
    return trained
