"""alexnet train: a recipe from its beginning, or a run from where it stopped.

What is asked for becomes a plan (see `RunPlan`), which the first process makes and every process of
a team carries out (see `run_plan`).
"""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alexnet.commands.image_fates import update_fates
from alexnet.commands.initial_weights import Given, read_init
from alexnet.commands.recipe_choice import choose, say_reasons
from alexnet.commands.start_report import describe_start
from alexnet.commands.training_run import (
    ENVIRONMENT,
    Opened,
    check_unchanged,
    open_planned,
    pack_mean_image,
    reopen_run_data,
    run_plan,
)
from alexnet.data.copies import find_copies
from alexnet.data.dataset import Dataset, open_dataset
from alexnet.data.held_parts import check_parts
from alexnet.data.loader import steps_per_epoch
from alexnet.errors import Unreadable, UsageError
from alexnet.files import read_json, sha256_of
from alexnet.launch import is_launched
from alexnet.models.layers import BatchNorm
from alexnet.models.zoo import model_spec
from alexnet.predictor import read_statistics
from alexnet.processors import describe_kept_threads, find_processors
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe
from alexnet.recipebook.written import RECORD, SUFFIX, fields_written
from alexnet.runs.checkpoint import load_latest
from alexnet.runs.records import PinnedFile, ResumeEvent, RunPlan, TrainResult
from alexnet.runs.restart import finish_restart
from alexnet.runs.rundir import RunDir, fresh_run_path, latest_run, read_recipe
from alexnet.runtime import chance_kept, changed_since, threads
from alexnet.signals import PREEMPT, interrupt_on, signal_number
from alexnet.terminal import escaped, say
from alexnet.training.guard import Doctor
from alexnet.training.network import build_net, preprocessing
from alexnet.training.parallel import Team, join, restarted
from alexnet.training.schedule import refuse_endless_warmup, shorten_warmup
from alexnet.training.settings import TimingRule, choose_settings, chosen_threads

RUNS = Path("runs")
MANY = 8  # classes that a line names


def train(
    recipe: str | Recipe | None = None,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    init: str | Path | None = None,
    doctor: Doctor = "stop",
    towers: int = 1,
    stop_signal: str | None = None,
    minutes: float | None = None,
    **fields: Any,
) -> TrainResult:
    """Trains a recipe, or continues a run.

    `recipe` is a name, a file (.toml), a record of one (recipe.json of a run, certificate.json of
    an export) or a value; `fields` replace fields of it. Without recipe and
    data it is `digits`; with data alone one is chosen that fits into about `minutes` (default 20)
    on this machine, with `init` one that fine-tunes, and said why. `init` is a run or a file of
    weights to start from: of a run the network and what its images go through come along, unless
    `fields` or a file say otherwise; the head is made anew where the classes differ. `doctor` is
    what is done when something is found that keeps it from learning: stop, say, or off, which does
    not look. Processes that torchrun starts share the work; with `towers` 2 each holds a tower of
    the paper's network. SIGINT, SIGTERM, SIGUSR1 and `stop_signal` save and stop.
    Returns a TrainResult: the figures of the best validation, run and checkpoint; `choice`, the
    reasons where a recipe was chosen, and `recipe_file`, the recipe as a file to edit.
    """
    return train_choosing(
        TimingRule(), recipe, data=data, run=run, resume=resume, tensorboard=tensorboard, init=init,
        doctor=doctor, towers=towers, stop_signal=stop_signal, minutes=minutes, **fields,
    )  # fmt: skip


@chance_kept()
def train_choosing(
    choosing: TimingRule,
    recipe: str | Recipe | None = None,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    init: str | Path | None = None,
    doctor: Doctor = "stop",
    towers: int = 1,
    stop_signal: str | None = None,
    minutes: float | None = None,
    **fields: Any,
) -> TrainResult:
    """`train`, with how its settings are chosen as an argument."""
    if run == "" or recipe == "" or data == "":
        raise UsageError("an empty name: leave the option out, or say which")
    if resume and minutes is not None:
        raise UsageError("--minutes chooses a recipe and --resume keeps one: leave one out")
    if resume and init is not None:
        raise UsageError("--init starts a run and --resume continues one: leave one out")
    signals = PREEMPT if stop_signal is None else (*PREEMPT, signal_number(stop_signal))
    request = Request(
        recipe, data, run, resume, tensorboard, init, doctor, signals, minutes, fields, choosing
    )
    with interrupt_on(signals), join(towers) as team, ExitStack() as held:
        made = None
        with team.all_or_none():
            if team.leads:
                made, opened = plan_training(request, team, held)
        plan = team.agree(RunPlan, made)
        with team.all_or_none():
            if not team.leads:
                opened = open_planned(plan, data, init)
        return run_plan(plan, opened, team, choosing)


@dataclass(frozen=True)
class Request:
    """What a call of `train` asks for; `signals` are those that save and stop."""

    recipe: str | Recipe | None
    data: str | Path | None
    run: str | Path | None
    resume: bool
    tensorboard: bool
    init: str | Path | None
    doctor: Doctor
    signals: tuple[int, ...]
    minutes: float | None
    fields: Mapping[str, Any]
    choosing: TimingRule


def plan_training(request: Request, team: Team, held: ExitStack) -> tuple[RunPlan, Opened]:
    """Plans a new run, or how one goes on: for the first process of a team alone.

    What it opens comes with the plan; what it locks is `held` until the training ends.
    """
    if is_launched() and request.run is None:
        raise UsageError("torchrun starts processes anew that have to find the run: add --run DIR")
    if request.tensorboard and team.towers > 1:
        raise UsageError("--tensorboard draws from one process: leave it or --towers out")
    if restarted() and RunDir(Path(request.run or RUNS)).is_begun:
        asked = request.fields.items()
        fields = {k: v for k, v in asked if (k, v) != ("precision", "auto")}
        return _plan_continuation(replace(request, fields=fields), held)
    if request.resume:
        return _plan_continuation(request, held)
    return _plan_new_run(request, team, held)


def _plan_new_run(request: Request, team: Team, held: ExitStack) -> tuple[RunPlan, Opened]:
    # The recipe, the weights to start from, and the data.
    fields, choosing = request.fields, request.choosing
    named = request.recipe if isinstance(request.recipe, str) else None
    given = Given()
    if request.init is not None:
        written = fields_written(named) if named is not None else frozenset[str]()
        given = read_init(request.init, {*fields, *written})
    recipe, choice, orient = choose(
        request.recipe, request.data, request.init, request.minutes, given, fields
    )
    recipe = Recipe.from_dict(recipe.to_dict())  # as the run's recipe.json will give it back
    oriented = recipe.orient
    dataset = as_packed(open_dataset(recipe, request.data), orient)
    recipe = dataset.recipe
    check_parts(dataset)

    # The folder of the run, and how the data is cut.
    path = Path(request.run) if request.run else fresh_run_path(RUNS, recipe.name)
    folder = RunDir.create(path)
    held.enter_context(folder.lock())
    held.enter_context(_removed_unless_begun(folder, recipe))
    keep_copies_together(dataset)
    reasons = say_reasons(choice, dataset) if choice is not None else []
    recorded = named is not None and named.endswith(RECORD)
    if "warmup_epochs" not in fields and not recorded:
        n_train = len(dataset.split("train"))
        recipe, shorter = shorten_warmup(recipe, max(n_train // recipe.batch_size, 1))
        if shorter:
            say(shorter)
    if recipe.bad_images == "skip" and given.statistics_for(recipe) is None:
        _ = dataset.statistics  # which leaves out what it cannot read
    check_trainable(recipe, dataset, recorded)

    # What is measured: the images, and how a step is fastest.
    weights = given.for_classes(recipe, dataset.classes)
    statistics = given.statistics_for(recipe) or dataset.statistics
    if recipe.colour and not statistics.covariance:  # that run had no colour noise
        statistics = replace(statistics, covariance=dataset.statistics.covariance)
    classes = len(dataset.classes)
    n_shown = (recipe.steps or 0) * recipe.batch_size or recipe.epochs * len(dataset.train)
    fixed = {*fields, "compile"} if team.size > 1 else fields
    prepare = choosing.prepare(preprocessing(recipe, statistics), classes, team.ranks)
    recipe, settings = choose_settings(
        recipe, classes, round(n_shown), fixed, prepare, team.ranks, choosing.worth
    )
    count = settings.chosen.threads
    plan = RunPlan(
        run=str(folder.path),
        recipe=recipe.to_dict(),
        data=dataset.describe(statistics),
        threads=count,
        doctor=request.doctor,
        tensorboard=request.tensorboard,
        signals=request.signals,
        lines=tuple(describe_start(recipe, dataset, team, count, recipe.orient != oriented)),
        choice=tuple(reasons),
        settings=settings,
        mean_image=pack_mean_image(statistics),
        init=None
        if request.init is None
        else PinnedFile(path=str(request.init), sha256=given.digest),
    )
    return plan, Opened(dataset, statistics, weights)


@contextmanager
def _removed_unless_begun(folder: RunDir, recipe: Recipe) -> Iterator[None]:
    """The folder is empty and removed again where a training fails before its first checkpoint:
    there is nothing to continue."""
    try:
        yield
    except BaseException as error:
        if not folder.is_begun:
            shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(error, Unreadable) and recipe.bad_images == "stop":
                raise error.advised("leave it out with --bad-images skip") from None
        raise


def as_packed(dataset: Dataset, named: str | None) -> Dataset:
    """The data with the orientation that its pack has, which nothing can change any more. `named`
    is what the user asks for; UsageError where that is another."""
    packed = dataset.source.orient
    if packed is None or packed == dataset.recipe.orient:
        return dataset
    if named is not None:
        raise UsageError(
            f"orient is {named!r}, and {dataset.source.path} was packed with --orient {packed}: "
            f"pack it again with --orient {named}, or train with --orient {packed}"
        )
    return Dataset(dataset.source, dataset.recipe.replace(orient=packed))


def keep_copies_together(dataset: Dataset) -> None:
    """Looks for copies of one picture, says what is found, and keeps them in one split."""
    folder = dataset.source.kind == "folder"
    listed = "; `alexnet data check` lists them" if folder else ""
    found = find_copies(dataset.source, dataset.recipe.workers)
    if found.why_not:
        say(f"photos that are copies of others were not looked for: {found.why_not}{listed}")
    if found.uniform:
        names = ", ".join(found.uniform[:MANY])
        say(
            f"most images of {escaped(names)} are so alike that copies cannot be told: there "
            "only files of the same bytes are kept together"
        )
    for part, count in found.across:
        say(
            f"warning: {count:,} images of {part} look like copies of training images, so its "
            f"figures flatter{listed}"
        )
    dataset.keep_together(found.groups)
    if not found.groups or not dataset.groups:
        return
    photos = sum(map(len, found.groups))
    several = "1 group" if len(found.groups) == 1 else f"{len(found.groups):,} groups"
    say(
        f"{photos:,} photos are copies of others (the same file, saved anew, resized or "
        f"mirrored): {several} kept in one split each{listed}"
    )
    for split, classes in dataset.without_images().items():
        say(
            f"warning: {split} has no image of {escaped(', '.join(classes[:MANY]))}: what there "
            "is are copies of too few pictures"
        )


def check_trainable(recipe: Recipe, dataset: Dataset, recorded: bool = False) -> None:
    """Refuses what cannot be trained before anything is written; what is kept in memory is read for
    it. A `recorded` recipe was trained once, and is trained again as it was."""
    n_train, _ = len(dataset.train), len(dataset.val)
    spec = model_spec(
        recipe.model, len(dataset.classes), (recipe.channels, recipe.crop, recipe.crop)
    )
    micro = recipe.batch_size // recipe.accumulate
    if micro == 1 and any(isinstance(part, BatchNorm) for part in spec):
        raise UsageError(
            f"batch_size is {recipe.batch_size} in {recipe.accumulate} parts, and the batch norms "
            f"of {recipe.model} need at least 2 images: use --batch-size {2 * recipe.accumulate}"
        )
    if recipe.freeze or recipe.part_lr:
        with torch.device("meta"):  # refuses parts that are not there, draws no weights
            build_net(recipe, len(dataset.classes))
    if not recorded:
        refuse_endless_warmup(recipe, steps_per_epoch(n_train, recipe.batch_size))


def _plan_continuation(request: Request, held: ExitStack) -> tuple[RunPlan, Opened]:
    # The run, and the checkpoint that it goes on from.
    recipe = request.recipe
    if isinstance(recipe, str) and recipe.endswith((SUFFIX, RECORD)):
        recipe = find_recipe(recipe)
    named = recipe.name if isinstance(recipe, Recipe) else recipe
    path = Path(request.run) if request.run else _latest(named)
    folder = RunDir.open(path)
    held.enter_context(folder.lock())
    finish_restart(folder)
    saved, described = read_recipe(folder)
    asked = saved.replace(**request.fields)
    if named is not None and named != saved.name:
        raise UsageError(f"{path} is a run of {saved.name!r}, not of {named!r}: name its own")
    if changed := saved.conflicts(asked):
        name = changed[0]
        raise UsageError(
            f"{name} is {getattr(saved, name)!r} in {path} and {getattr(asked, name)!r} was "
            "asked for: a continued run keeps its recipe; drop that, or start a new run"
        )
    start = load_latest(folder.checkpoints, say)
    finished = bool(start.state.get("finished"))

    # Its data, and what became of images that could not be read.
    dataset = reopen_run_data(asked, described, request.data)
    if not finished:
        again = f"alexnet train --resume --run {shlex.quote(str(path))}"
        update_fates(dataset, folder, start.step, again)
    check_unchanged(dataset, described, path)
    statistics = read_statistics(folder, described)

    # The machine, which may be another by now.
    began = read_json(folder.path / ENVIRONMENT)
    count = chosen_threads(began)
    lines = []
    if kept := describe_kept_threads(count, torch.get_num_threads(), find_processors()):
        lines.append(kept)
    with threads(count):
        if moved := changed_since(began):
            lines.append(f"warning: not the machine it began on, so bits may differ: {moved}")
    resumed = None
    if not finished:
        resumed = ResumeEvent(
            step=start.step,
            doctor=request.doctor if request.doctor != "stop" else None,
            changed=moved or None,
        )
        lines.append(f"continuing {path} from step {start.step:,}")
    plan = RunPlan(
        run=str(path),
        recipe=asked.to_dict(),
        data=described,
        threads=count,
        doctor=request.doctor,
        tensorboard=request.tensorboard,
        signals=request.signals,
        lines=tuple(lines),
        mean_image=pack_mean_image(statistics),
        checkpoint=PinnedFile(path=str(start.path), sha256=sha256_of(start.path / "manifest.json")),
        resumed=resumed,
    )
    return plan, Opened(dataset, statistics, start=start)


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
