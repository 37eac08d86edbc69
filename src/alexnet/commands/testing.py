"""alexnet test: every image of a split through a run's network."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet import figures
from alexnet.commands.proving import prove
from alexnet.data.dataset import Slice, reopen_dataset
from alexnet.engine.evaluate import evaluate
from alexnet.errors import CheckpointError, DataError
from alexnet.interchange.certificate import certify_run
from alexnet.predict import Predictor, load
from alexnet.terminal import progress, say


def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    views: int = 1,
    checkpoint: str = "best",
    certificate: bool = False,
) -> dict[str, Any]:
    """Every image of a split through a run's network, never a sample.

    Returns loss, top-1 and top-5 with 95 % intervals and under three tie rules, right and total
    per class, and the pictures made: the confusion matrix and the surest mistakes. With
    `certificate` a run or an exported file is held against its certificate instead, see `prove`.
    """
    if certificate:
        return prove(run, data=data)
    predictor = load(run, checkpoint)
    recipe, described = predictor.recipe, predictor.data
    dataset = reopen_dataset(recipe, described, data)
    if dataset.classes != predictor.classes:
        odd = sorted(set(dataset.classes) ^ set(predictor.classes))
        raise DataError(
            f"{dataset.source.path} has other classes than {run} was trained on "
            f"({odd[0] if odd else 'another order'!r}): name the right folder with --data"
        )
    part = dataset.split(split).resident(recipe.workers)
    probabilities = np.empty((len(part), len(dataset.classes)), np.float32)
    began = time.monotonic()
    with progress(f"testing {split}", len(part), "images") as bar:

        def keep(first: int, block: torch.Tensor) -> None:
            probabilities[first : first + len(block)] = block.numpy()
            bar.advance(len(block))

        tally = evaluate(
            predictor.model,
            part,
            predictor.preprocess,
            len(dataset.classes),
            views=views,
            precision=recipe.precision,
            batch=recipe.eval_batch,
            workers=recipe.workers,
            each=keep,
        )
    wall = time.monotonic() - began
    if warning := tally.tie_warning():
        say(f"warning: {warning}")
    suffix = split if views == 1 else f"{split}-{views}-views"
    drawn: list[Path] = []
    try:
        drawn = _draw_test(predictor, part, probabilities, tally.confusion.numpy(), suffix)
    except CheckpointError as error:  # the figures are worth more than their pictures
        say(f"warning: no pictures: {error}")
    classes = zip(dataset.classes, tally.per_class(), strict=True)
    result = {
        **tally.figures(),
        "split": split,
        "views": views,
        "images_per_s": round(len(part) / wall, 1),
        "wall_s": round(wall, 2),
        "run": str(run),
        "checkpoint": str(predictor.checkpoint),
        "data": dataset.source.path or dataset.source.kind,
        "per_class": [{"class": c, "right": right, "n": n} for c, (right, n) in classes],
        "figures": [str(path) for path in drawn],
    }
    try:
        predictor.run.log({"event": "test", **result})
        if checkpoint == "best":
            certify_run(predictor)
    except CheckpointError as error:
        say(f"warning: not logged: {error}")
    predictor.run.close()
    return result


def _draw_test(
    predictor: Predictor, part: Slice, probabilities: Any, confusion: Any, suffix: str
) -> list[Path]:
    run, classes = predictor.run, predictor.classes
    said = probabilities.argmax(1)
    sure = probabilities.max(1)
    wrong = np.flatnonzero(said != part.labels)
    count = len(wrong)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:24]
    paths = [run.figures / f"confusion-{suffix}.png", run.figures / f"mistakes-{suffix}.png"]
    figures.draw_confusion(confusion, classes, paths[0], f"{run.path.name}, {part.name}")
    figures.draw_mistakes(
        part.read(wrong) if count else np.zeros((0, 1, 1, 1), np.uint8),
        part.labels[wrong],
        said[wrong],
        sure[wrong],
        classes,
        paths[1],
        f"{run.path.name}, {part.name}: the surest of {count:,} mistakes",
    )
    return paths
