"""alexnet test: every image of a split through a run's network."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from alexnet import figures
from alexnet.analysis.answers import Mistakes, count
from alexnet.commands.proving import prove
from alexnet.data.dataset import Slice, reopen_dataset
from alexnet.errors import CheckpointError, DataError
from alexnet.interchange.certificate import certify_run
from alexnet.interchange.runtimes import EngineName, with_engine
from alexnet.metrics import Tally
from alexnet.predict import Predictor, load
from alexnet.terminal import say

SHOWN = 24  # mistakes in the picture


def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    views: int = 1,
    checkpoint: str = "best",
    certificate: bool = False,
    engine: EngineName = "torch",
) -> dict[str, Any]:
    """Every image of a split through a run's network, never a sample.

    Returns loss, top-1 and top-5 with 95 % intervals and under three tie rules, right and total
    per class, and the pictures made: the confusion matrix and the surest mistakes. With
    `certificate` a run or an exported file is held against its certificate instead, see `prove`.
    `engine` is what computes: torch, onnx or openvino.
    """
    if certificate:
        return prove(run, data=data)
    predictor = with_engine(load(run, checkpoint), engine)
    recipe, described = predictor.recipe, predictor.data
    dataset = reopen_dataset(recipe, described, data)
    if dataset.classes != predictor.classes:
        odd = sorted(set(dataset.classes) ^ set(predictor.classes))
        raise DataError(
            f"{dataset.source.path} has other classes than {run} was trained on "
            f"({odd[0] if odd else 'another order'!r}): name the right folder with --data"
        )
    part = dataset.split(split)
    mistakes = Mistakes(SHOWN)
    began = time.monotonic()
    tally = count(
        predictor.inference, part, predictor.preprocess, recipe, len(dataset.classes), views,
        lambda first, p: mistakes.add(first, p, part.labels[first : first + len(p)]),
    )  # fmt: skip
    wall = time.monotonic() - began
    if warning := tally.tie_warning():
        say(f"warning: {warning}")
    suffix = split if views == 1 else f"{split}-{views}-views"
    drawn: list[Path] = []
    try:
        drawn = _draw_test(predictor, part, tally, mistakes, suffix)
    except CheckpointError as error:  # the figures are worth more than their pictures
        say(f"warning: no pictures: {error}")
    classes = zip(dataset.classes, tally.per_class(), strict=True)
    result = {
        **tally.figures(),
        "split": split,
        "views": views,
        "engine": engine,
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
    predictor: Predictor, part: Slice, tally: Tally, mistakes: Mistakes, suffix: str
) -> list[Path]:
    run, classes, wrong = predictor.run, predictor.classes, mistakes.ids
    paths = [run.figures / f"confusion-{suffix}.png", run.figures / f"mistakes-{suffix}.png"]
    confusion = np.asarray(tally.confusion)
    figures.draw_confusion(confusion, classes, paths[0], f"{run.path.name}, {part.name}")
    title = f"{run.path.name}, {part.name}: the surest of {mistakes.count:,} mistakes"
    if not mistakes.count:
        figures.draw_nothing(f"no mistakes in {tally.n:,} images", paths[1], title)
        return paths
    figures.draw_mistakes(
        part.read(wrong), part.labels[wrong], mistakes.said, mistakes.sure, classes, paths[1], title
    )
    return paths
