"""alexnet doctor: whether a recipe will learn on its data, and what a run's figures say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.data.augment import augment
from alexnet.data.dataset import Dataset, open_dataset
from alexnet.data.loader import read_batch, steps_per_epoch
from alexnet.data.sources import open_source
from alexnet.data.statistics import Statistics
from alexnet.doctor.diagnose import diagnose
from alexnet.doctor.history import judge_history
from alexnet.doctor.verdict import is_healthy, ranked
from alexnet.engine.network import build_net, preprocessing
from alexnet.engine.optim import build_optimizer, set_rate
from alexnet.errors import UsageError
from alexnet.models.zoo import model_spec
from alexnet.predict import read_recipe
from alexnet.recipe import Recipe
from alexnet.recipebook import choose_recipe, find_recipe
from alexnet.runtime import pick_device
from alexnet.store.rundir import RunDir

MEMORY = 256 << 20  # bytes of images that are looked at


def doctor(
    target: str | Path | Recipe | None = None,
    *,
    data: str | Path | None = None,
    seconds: float = 60.0,
    **fields: Any,
) -> dict[str, Any]:
    """Says whether a recipe will learn on its data, or what went wrong in a run.

    `target` is a recipe or a run directory; `fields` replace fields of the recipe. Returns
    `healthy` and `verdicts` (name, severity, evidence, advice, cause, measured, threshold, source,
    where), worst first; of a recipe also `layers` and `figures`.
    """
    if isinstance(target, str | Path) and (Path(target) / "recipe.json").is_file():
        if fields or data is not None:
            raise UsageError("a run has its recipe and data already: give no others")
        return _of_run(RunDir.open(Path(target)))
    if target is None and data is not None:
        target, _ = choose_recipe(open_source(data))
    chosen = target if isinstance(target, Recipe) else find_recipe(str(target or "digits"))
    recipe = chosen.replace(**fields)
    dataset = open_dataset(recipe, data)
    return {"recipe": recipe.name, **examine(recipe, dataset, dataset.statistics, seconds)}


def examine(
    recipe: Recipe, dataset: Dataset, statistics: Statistics, seconds: float, steps: int = 24
) -> dict[str, Any]:
    """A recipe's own batches, network and optimiser through `diagnose`, in float32.

    Without `steps` nothing is trained, and fewer images are looked at.
    """
    classes = len(dataset.classes)
    given = (recipe.channels, recipe.crop, recipe.crop)
    model_spec(recipe.model, classes, given)
    device = pick_device()
    net = build_net(recipe, classes).to(device)
    optimizer = build_optimizer(net, recipe)
    set_rate(optimizer, recipe.lr, 0)
    count = max(min(2000 if steps else 400, MEMORY // (4 * recipe.channels * recipe.crop**2)), 64)
    return diagnose(
        net,
        _training(recipe, dataset, statistics),
        optimizer,
        val_loader=_validation(recipe, dataset, statistics),
        classes=classes,
        steps=steps,
        seconds=seconds,
        images=count,
        warmup=recipe.schedule == "onecycle" or recipe.warmup_epochs > 0,
    )


def _training(
    recipe: Recipe, dataset: Dataset, statistics: Statistics
) -> Iterator[tuple[Tensor, Tensor]]:
    preprocess = preprocessing(recipe, statistics)
    for step in range(steps_per_epoch(len(dataset.train), recipe.batch_size)):
        batch = read_batch(dataset.train, recipe, step)
        yield augment(batch.images, batch.ids, 0, recipe, preprocess), batch.labels


def _validation(
    recipe: Recipe, dataset: Dataset, statistics: Statistics
) -> Iterator[tuple[Tensor, Tensor]]:
    preprocess = preprocessing(recipe, statistics)
    order = torch.randperm(len(dataset.val), generator=torch.Generator().manual_seed(0)).numpy()
    for start in range(0, len(order), 100):
        ids = order[start : start + 100]
        images = torch.from_numpy(dataset.val.read(ids))
        yield preprocess.views(images, 1)[0], torch.from_numpy(dataset.val.labels[ids])


def _of_run(run: RunDir) -> dict[str, Any]:
    recipe, data = read_recipe(run)
    verdicts = ranked(judge_history(run.events(), len(data["classes"])))
    return {
        "run": str(run.path),
        "recipe": recipe.name,
        "healthy": is_healthy(verdicts),
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
