"""The verbs as functions: each does what its command does and returns what --json prints."""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from alexnet import figures
from alexnet.data import fetch
from alexnet.data.dataset import Dataset, open_dataset
from alexnet.data.images import IMAGE_SUFFIXES
from alexnet.data.loader import steps_per_epoch
from alexnet.data.sources import open_source
from alexnet.engine.evaluate import evaluate
from alexnet.engine.train import fit
from alexnet.errors import AlexNetError, DataError, UsageError
from alexnet.models.layers import BatchNorm
from alexnet.models.net import summarize
from alexnet.models.zoo import model_spec
from alexnet.predict import load, read_recipe
from alexnet.recipe import Recipe, nearest
from alexnet.recipebook import RECIPES, choose_recipe, find_recipe
from alexnet.runtime import changed_since, choose_precision, environment, pick_device
from alexnet.store.board import Board
from alexnet.store.checkpoint import find_checkpoint, load_latest
from alexnet.store.files import read_json, write_json
from alexnet.store.rundir import RunDir, fresh_run_path, latest_run
from alexnet.terminal import progress, say

RUNS = Path("runs")
CLASSIFY_BATCH = 64  # images decoded and shown at a time


def train(
    recipe: str | Recipe | None = None,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """Trains a recipe, or continues a run.

    `fields` replace fields of the recipe. Without recipe and data it is `digits`; with data alone
    a recipe is chosen and said why. Returns the best validation's figures, run and checkpoint.
    """
    if resume:
        return _resume(recipe, data, run, tensorboard, fields)
    if recipe is None and data is not None:
        recipe, why = choose_recipe(open_source(data))
        say(why)
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "digits")
    chosen = chosen.replace(**fields)
    chosen = chosen.replace(precision=choose_precision(chosen.precision, pick_device()))
    dataset = open_dataset(chosen, data)
    folder = RunDir.create(Path(run) if run else fresh_run_path(RUNS, chosen.name))
    with folder.lock():
        try:
            given = (chosen.channels, chosen.crop, chosen.crop)
            spec = model_spec(chosen.model, len(dataset.classes))
            summarize(spec, given)  # refuses what cannot be built
            if chosen.batch_size == 1 and any(isinstance(part, BatchNorm) for part in spec):
                raise UsageError(
                    f"batch_size is 1, and the batch norms of {chosen.model} need at least 2 "
                    "images: use --batch-size 2"
                )
            steps_per_epoch(len(dataset.train), chosen.batch_size)
            described = dataset.describe()
            _announce(chosen, dataset)
            saved = {"recipe": chosen.to_dict(), "digest": chosen.digest, "data": described}
            write_json(folder.path / "environment.json", environment())
            folder.write_recipe(saved)
            return _fit(chosen, dataset, folder, None, tensorboard)
        except BaseException:
            if not (folder.checkpoints / "last").is_symlink():  # there is nothing to continue
                shutil.rmtree(folder.path, ignore_errors=True)  # it was empty before
            raise


def _resume(
    recipe: str | Recipe | None,
    data: str | Path | None,
    run: str | Path | None,
    tensorboard: bool,
    fields: dict[str, Any],
) -> dict[str, Any]:
    named = recipe.name if isinstance(recipe, Recipe) else recipe
    path = Path(run) if run else _latest(named)
    folder = RunDir.open(path)
    with folder.lock():
        saved, described = read_recipe(folder)
        asked = saved.replace(**fields)
        if named is not None and named != saved.name:
            raise UsageError(f"{path} is a run of {saved.name!r}, not of {named!r}: name its own")
        if changed := saved.conflicts(asked):
            name = changed[0]
            raise UsageError(
                f"{name} is {getattr(saved, name)!r} in {path} and {getattr(asked, name)!r} was "
                "asked for: a continued run keeps its recipe; drop that, or start a new run"
            )
        start = load_latest(folder.checkpoints, say)
        dataset = open_dataset(asked, data or described["path"] or described["kind"])
        if dataset.digest != described["digest"]:
            raise DataError(
                f"the data in {dataset.source.path} changed since {path} began "
                f"(digest {described['digest']} then, {dataset.digest} now): "
                "put it back, name the old one with --data, or start a new run"
            )
        if moved := changed_since(read_json(folder.path / "environment.json")):
            say(f"warning: not the machine it began on, so bits may differ: {moved}")
        folder.log({"event": "resume", "step": start.step})
        say(f"continuing {path} from step {start.step:,}")
        return _fit(asked, dataset, folder, start, tensorboard)


def _latest(name: str | None) -> Path:
    names = [name] if name else sorted({p.name.rpartition("-")[0] for p in RUNS.glob("*-*")})
    found = [path for n in names if n and (path := latest_run(RUNS, n))]
    if not found:
        wanted = f"run of {name!r}" if name else "run"
        raise UsageError(
            f"--resume: there is no {wanted} in {RUNS.absolute()} to continue: name one with "
            "--run DIR, or leave --resume out to start one"
        )
    return max(found, key=lambda path: (path / "recipe.json").stat().st_mtime)


def _announce(recipe: Recipe, dataset: Dataset) -> None:
    n_train, n_val = len(dataset.train), len(dataset.val)
    say(
        f"recipe {recipe.name} ({recipe.model}, {recipe.opt}, {recipe.schedule}, seed "
        f"{recipe.seed}, {recipe.precision}): {n_train:,} images to train on, {n_val:,} to "
        f"validate, {len(dataset.classes)} classes"
    )
    say(f"splits: {dataset.describe_splits()}; test is not read here")


def _fit(
    recipe: Recipe, dataset: Dataset, folder: RunDir, start: Any, tensorboard: bool
) -> dict[str, Any]:
    board = Board(folder.path, start.step if start else 0) if tensorboard else None
    try:
        state = fit(recipe, dataset, folder, start, board)
    finally:
        if board is not None:
            board.close()
        folder.close()
    events = folder.events()
    validations = (e for e in events if e["event"] == "val")
    best = next((e for e in validations if e["step"] == state.watch.best_step), {})
    curves = folder.figures / "curves.png"
    figures.draw_curves(events, curves, f"{recipe.name}, seed {recipe.seed}")
    result = {k: best.get(k) for k in ("top1", "top1_ci95", "top5", "top5_ci95", "loss", "n")}
    return {
        **result,
        "run": str(folder.path),
        "checkpoint": str(find_checkpoint(folder.checkpoints, "best")),
        "recipe": recipe.name,
        "step": state.step,
        "best_step": state.watch.best_step,
        "finished": state.finished,
        "images_per_s": round(state.step * recipe.batch_size / max(state.seconds, 1e-9), 1),
        "wall_s": round(state.seconds, 2),
        "figures": [str(curves)],
    }


def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    views: int = 1,
    checkpoint: str = "best",
) -> dict[str, Any]:
    """Every image of a split through a run's network, never a sample.

    Returns loss, top-1 and top-5 with 95 % intervals and under three tie rules, right and total
    per class, and the pictures made: the confusion matrix and the surest mistakes.
    """
    predictor = load(run, checkpoint)
    recipe, described = predictor.recipe, predictor.data
    dataset = open_dataset(recipe, data or described["path"] or described["kind"])
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
    drawn = _draw_test(predictor.run, part, probabilities, tally.confusion.numpy(), split, views)
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
    predictor.run.log({"event": "test", **result})
    predictor.run.close()
    return result


def _draw_test(
    run: RunDir, part: Any, probabilities: Any, confusion: Any, split: str, views: int
) -> list[Path]:
    classes = run.recipe["data"]["classes"]
    said = probabilities.argmax(1)
    sure = probabilities.max(1)
    wrong = np.flatnonzero(said != part.labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:24]
    suffix = split if views == 1 else f"{split}-{views}-views"
    paths = [run.figures / f"confusion-{suffix}.png", run.figures / f"mistakes-{suffix}.png"]
    figures.draw_confusion(confusion, classes, paths[0], f"{run.path.name}, {split}")
    figures.draw_mistakes(
        part.read(wrong) if len(wrong) else np.zeros((0, 1, 1, 1), np.uint8),
        part.labels[wrong],
        said[wrong],
        sure[wrong],
        classes,
        paths[1],
        f"{run.path.name}, {split}: the surest of {(said != part.labels).sum():,} mistakes",
    )
    return paths


def classify(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    views: int = 1,
    checkpoint: str = "best",
    stdin: BinaryIO | None = None,
) -> dict[str, Any]:
    """The likeliest classes of images: files, folders (searched whole), "-" for standard input.

    Returns `results` [{path, top: [{class, index, probability}]}] and `errors` [{path, reason}]
    for the files that could not be read; the others are classified all the same.
    """
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1")
    predictor = load(run, checkpoint)
    top = min(top, len(predictor.classes))
    results, errors = [], []
    paths = list(_find_images(images))
    with progress("classifying", len(paths), "images") as bar:
        for start in range(0, len(paths), CLASSIFY_BATCH):
            block, decoded = paths[start : start + CLASSIFY_BATCH], []
            for path in block:
                try:
                    raw = (stdin or sys.stdin.buffer).read() if path == "-" else Path(path)
                    decoded.append((path, predictor.decode(raw, name=path)))
                except AlexNetError as error:
                    errors.append({"path": path, "reason": str(error)})
            probabilities = predictor.predict([pixels for _, pixels in decoded], views)
            for (path, _), row in zip(decoded, probabilities, strict=True):
                best = np.argsort(-row, kind="stable")[:top]
                ranked = [
                    {"class": predictor.classes[i], "index": int(i), "probability": float(row[i])}
                    for i in best
                ]
                results.append({"path": path, "top": ranked})
            bar.advance(len(block))
    checkpoint_path = str(predictor.checkpoint)
    return {"results": results, "errors": errors, "run": str(run), "checkpoint": checkpoint_path}


def _find_images(images: Iterable[str | Path]) -> Iterable[str]:
    for name in map(str, images):
        if name == "-" or not Path(name).is_dir():
            yield name
            continue
        found = sorted(
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if Path(file).suffix.lower() in IMAGE_SUFFIXES and not file.startswith(".")
        )
        if not found:
            raise UsageError(f"{name} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        yield from found


def recipes(name: str | None = None) -> dict[str, Any]:
    """All recipes, or one whole: its fields and its network layer by layer (for ten classes)."""
    if name is None:
        return {"recipes": [{"name": n, "about": make().about} for n, make in RECIPES.items()]}
    recipe = find_recipe(name)
    given = (recipe.channels, recipe.crop, recipe.crop)
    rows = summarize(model_spec(recipe.model, 10), given)
    return {
        **recipe.to_dict(),
        "digest": recipe.digest,
        "classes": 10,
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "layers": [asdict(row) for row in rows],
    }


def data_get(name: str, *, offline: bool = False) -> dict[str, Any]:
    """Fetches a data set into the cache, checksum verified; returns where it is."""
    if name not in fetch.NAMES:
        raise UsageError(f"no data set {name!r} to fetch{nearest(name, fetch.NAMES)}")
    total = sum(file.size for file in fetch.NAMES[name].files)
    with progress(f"fetching {name}", total, "bytes") as bar:
        path = fetch.fetch(
            name, offline=offline, progress=lambda done, _: bar.advance(done - bar.done)
        )
    return {"name": name, "path": str(path)}
