"""alexnet train: a recipe from its beginning, or a run from where it stopped."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.commands.beginning import begin
from alexnet.commands.boarding import Show
from alexnet.commands.diagnosing import examine
from alexnet.commands.reporting import report
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.loader import steps_per_epoch
from alexnet.data.statistics import Statistics
from alexnet.engine.network import build_net, preprocessing
from alexnet.engine.record import Doctor
from alexnet.engine.settings import chosen_threads, measure_steps, settle
from alexnet.engine.train import fit
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.files import read_json, sha256_of, write_atomic, write_json
from alexnet.interchange.certificate import certify_run
from alexnet.models.layers import BatchNorm
from alexnet.models.zoo import model_spec
from alexnet.predict import load, read_recipe, read_statistics
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe
from alexnet.recipebook.written import SUFFIX, write_recipe
from alexnet.runtime import changed_since, environment, threads
from alexnet.store.board import Board
from alexnet.store.checkpoint import find_checkpoint, load_checkpoint, load_latest
from alexnet.store.rundir import RunDir, fresh_run_path, latest_run
from alexnet.store.weights import read_weights
from alexnet.terminal import say

RUNS = Path("runs")
RECIPE_FILE = "recipe.toml"
BRIEF_S = 5.0  # for the doctor's look before the first step
INHERITED = ("model", "channels", "size", "crop", "normalize")  # from --init RUN


def train(
    recipe: str | Recipe | None = None,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    init: str | Path | None = None,
    doctor: Doctor = "stop",
    minutes: float | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Trains a recipe, or continues a run.

    `recipe` is a name, a file (.toml) or a value; `fields` replace fields of it. Without recipe and
    data it is `digits`; with data alone one is chosen that fits into about `minutes` (default 20)
    on this machine, with `init` one that fine-tunes, and said why. `init` is a run or a file of
    weights to start from: of a run the network and what its images go through come along, unless
    `fields` say otherwise; the head is made anew where the classes differ. `doctor` is what is done
    when something is found that keeps it from learning: stop, say, or off, which does not look.
    Returns the figures of the best validation, run and checkpoint; `choice`, the reasons where a
    recipe was chosen, and `recipe_file`, the recipe as a file to edit.
    """
    if run == "" or recipe == "" or data == "":
        raise UsageError("an empty name: leave the option out, or say which")
    if resume and minutes is not None:
        raise UsageError("--minutes chooses a recipe and --resume keeps one: leave one out")
    if resume:
        if init is not None:
            raise UsageError("--init starts a run and --resume continues one: leave one out")
        return _resume(recipe, data, run, tensorboard, doctor, fields)
    given = _read_init(init, fields) if init is not None else _Given()
    reasons: tuple[str, ...] = ()
    if given.inherited:
        kept = ", ".join(f"{k} {v}" for k, v in given.inherited.items())
        say(f"from {init}: {kept}")
    if recipe is None and data is not None:
        # Of a file of weights only --model says what they are of.
        brought = given.inherited or (
            {"model": fields["model"]} if init and "model" in fields else {}
        )
        choice = begin(data, minutes, brought, fields)
        recipe, reasons = choice.recipe, choice.reasons
    elif minutes is not None:
        raise UsageError(
            f"--minutes {minutes:g} is for a recipe that is chosen from --data; with one that is "
            "named say --epochs or --steps"
        )
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "digits")
    chosen = chosen.replace(**{**given.inherited, **fields})
    dataset = open_dataset(chosen, data)
    folder = RunDir.create(Path(run) if run else fresh_run_path(RUNS, chosen.name))
    with folder.lock():
        try:
            spec = model_spec(
                chosen.model, len(dataset.classes), (chosen.channels, chosen.crop, chosen.crop)
            )
            if chosen.batch_size == 1 and any(isinstance(part, BatchNorm) for part in spec):
                raise UsageError(
                    f"batch_size is 1, and the batch norms of {chosen.model} need at least 2 "
                    "images: use --batch-size 2"
                )
            if chosen.freeze or chosen.part_lr:
                with torch.device("meta"):  # refuses parts that are not there, draws no weights
                    build_net(chosen, len(dataset.classes))
            steps_per_epoch(len(dataset.train), chosen.batch_size)
            statistics = given.statistics or dataset.statistics
            if chosen.colour and not statistics.covariance:  # that run had no colour noise
                statistics = replace(statistics, covariance=dataset.statistics.covariance)
            total = (chosen.steps or 0) * chosen.batch_size or chosen.epochs * len(dataset.train)
            chosen, settings = settle(
                chosen, len(dataset.classes), round(total), fields,
                measure_steps(preprocessing(chosen, statistics), len(dataset.classes)),
            )  # fmt: skip
            described = dataset.describe(statistics)
            _announce(chosen, dataset)
            saved = {"recipe": chosen.to_dict(), "digest": chosen.digest, "data": described}
            if given.weights is not None:
                saved["init"] = {"path": str(init), "sha256": given.digest}
            if statistics.image is not None:
                folder.write_mean_image(statistics.image)
            with threads(settings["chosen"]["threads"]):
                known = {**environment(), "settings": settings}
            write_json(folder.path / "environment.json", known)
            folder.write_recipe(saved)
            edited = write_recipe(chosen, dataset.source.path, reasons)
            write_atomic(folder.path / RECIPE_FILE, edited)
            if doctor != "off":
                _examine(chosen, dataset, statistics, given.weights)
            with threads(settings["chosen"]["threads"]):
                result = _fit(
                    chosen, dataset, statistics, folder, None, tensorboard, doctor, given.weights
                )
            return {**result, "choice": list(reasons)}
        except BaseException:
            if not (folder.checkpoints / "last").is_symlink():  # there is nothing to continue
                shutil.rmtree(folder.path, ignore_errors=True)  # it was empty before
            raise


@dataclass(frozen=True)
class _Given:
    """What --init brings: weights, and of a run also recipe fields and statistics."""

    weights: Mapping[str, Tensor] | None = None
    digest: str = ""
    inherited: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None


def _read_init(init: str | Path, fields: dict[str, Any]) -> _Given:
    path = Path(init)
    if not path.exists():
        raise CheckpointError(f"--init {init}: no such folder or file; name a run or weights")
    if not path.is_dir():
        weights = read_weights(path)
        return _Given(weights, sha256_of(path))
    run = RunDir.open(path)
    recipe, described = read_recipe(run)
    checkpoint = load_checkpoint(find_checkpoint(run.checkpoints))
    digest = sha256_of(checkpoint.path / "model.safetensors")
    inherited = {name: getattr(recipe, name) for name in INHERITED if name not in fields}
    # Statistics are of images as that run stored them; for any others they are measured anew.
    same = not set(fields) & {"channels", "size", "crop", "normalize"}
    statistics = read_statistics(run, described) if same else None
    return _Given(checkpoint.model, digest, inherited, statistics)


def _resume(
    recipe: str | Recipe | None,
    data: str | Path | None,
    run: str | Path | None,
    tensorboard: bool,
    doctor: Doctor,
    fields: dict[str, Any],
) -> dict[str, Any]:
    if isinstance(recipe, str) and recipe.endswith(SUFFIX):
        recipe = find_recipe(recipe)
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
        dataset = reopen_dataset(asked, described, data)
        if dataset.digest != described["digest"]:
            raise DataError(
                f"the data in {dataset.source.path} changed since {path} began "
                f"(digest {described['digest']} then, {dataset.digest} now): "
                "put it back, name the old one with --data, or start a new run"
            )
        began = read_json(folder.path / "environment.json")
        count = chosen_threads(began)
        with threads(count):
            if moved := changed_since(began):
                say(f"warning: not the machine it began on, so bits may differ: {moved}")
        if not start.state.get("finished"):
            folder.log({"event": "resume", "step": start.step})
            say(f"continuing {path} from step {start.step:,}")
        statistics = read_statistics(folder, described)
        with threads(count):
            return _fit(asked, dataset, statistics, folder, start, tensorboard, doctor)


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


def _examine(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    weights: Mapping[str, Tensor] | None,
) -> None:
    """A brief look before the first step: data, signals and contract, no trial steps."""
    given = len(dataset.classes), dataset.train, dataset.val, statistics
    for verdict in examine(recipe, *given, BRIEF_S, steps=0, weights=weights)["verdicts"]:
        if verdict["severity"] != "note":
            say(f"doctor: {verdict['name']}: {verdict['evidence']}; {verdict['advice']}")


def _fit(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    folder: RunDir,
    start: Any,
    tensorboard: bool,
    doctor: Doctor,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    board, show = None, None
    if tensorboard:
        board = Board(folder.path, start.step if start else 0)
        show = Show(board, dataset.val, preprocessing(recipe, statistics), dataset.classes)
    try:
        state = fit(
            recipe, dataset, statistics, folder, start,
            weights=weights, board=board, show=show, doctor=doctor,
        )  # fmt: skip
        if board is not None:
            best_of = {"best/acc1": state.watch.best_top1, "best/loss": state.watch.best_loss}
            board.settings(recipe.to_dict(), best_of)
    finally:
        if board is not None:
            board.close()
        folder.close()
    certify_run(load(folder.path))
    events = folder.events()
    validations = (e for e in events if e["event"] == "val")
    lost = {
        "top1": state.watch.best_top1,
        "loss": state.watch.best_loss,
    }  # with its line in the log
    best = next((e for e in validations if e["step"] == state.watch.best_step), lost)
    page: dict[str, Any] = {"out": None, "figures": []}
    try:
        page = report(folder.path, brief=True)
    except CheckpointError as error:  # what was trained is worth more than its page
        say(f"warning: no report: {error}")
    result = {k: best.get(k) for k in ("top1", "top1_ci95", "top5", "top5_ci95", "loss", "n")}
    return {
        **result,
        "run": str(folder.path),
        "checkpoint": str(find_checkpoint(folder.checkpoints, "best")),
        "recipe": recipe.name,
        "recipe_file": str(folder.path / RECIPE_FILE),
        "step": state.step,
        "best_step": state.watch.best_step,
        "finished": state.finished,
        "images_per_s": round(state.step * recipe.batch_size / max(state.seconds, 1e-9), 1),
        "wall_s": round(state.seconds, 2),
        "report": page["out"],
        "figures": page["figures"],
    }
