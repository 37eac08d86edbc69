"""alexnet train: a recipe from its beginning, or a run from where it stopped.

A request becomes a plan, which the first process makes (`plan_training`) and every process of a
team carries out (`run_plan`).
"""

import base64
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from alexnet.commands.doctor import diagnose_recipe
from alexnet.commands.initial_weights import InitialWeights, read_init
from alexnet.commands.recipe_choice import choose, say_reasons
from alexnet.commands.report import report
from alexnet.data.bad_images import left_out_of
from alexnet.data.copies import find_copies
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.digests import BEFORE, ImageDigests
from alexnet.data.file_list import write_file_lists
from alexnet.data.image_fates import update_fates
from alexnet.data.image_set import ImageFiles
from alexnet.data.images import lies_turned
from alexnet.data.loader import steps_per_epoch
from alexnet.data.part_check import check_parts
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, DataError, Diverged, Unreadable, UsageError
from alexnet.evaluation_set import read_digests
from alexnet.figures.tensorboard import ValidationPictures
from alexnet.files import sha256_of, to_json_text, write_atomic
from alexnet.interchange.certificate import certify_run
from alexnet.launch import is_launched
from alexnet.memory import give_back
from alexnet.models.layers import BatchNorm
from alexnet.models.zoo import model_spec
from alexnet.options import DIR, call, option
from alexnet.predictor import load, read_statistics
from alexnet.processors import describe_kept_threads, describe_threads, find_processors
from alexnet.recipe import Recipe, RecipeOverrides, refuse_unknown
from alexnet.recipebook import find_recipe
from alexnet.recipebook.again import train_command
from alexnet.recipebook.written import RECORD, SUFFIX, fields_written, write_recipe
from alexnet.runs.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_latest,
    pack_tensors,
    unpack_tensors,
)
from alexnet.runs.records import (
    DataCard,
    Event,
    PinnedFile,
    ReportResult,
    ResumeEvent,
    RunCall,
    RunInit,
    RunPlan,
    RunStart,
    TrainEvent,
    TrainResult,
    ValEvent,
    as_event,
)
from alexnet.runs.restart import finish_restart, restart_run
from alexnet.runs.rundir import ENVIRONMENT, RunDir, fresh_run_path, latest_run, read_recipe
from alexnet.runs.tensorboard import TensorBoard
from alexnet.runtime import chance_kept, environment, machine, pick_device, threads
from alexnet.signals import PREEMPT, interrupt_on, signal_number
from alexnet.terminal import escaped, say, shorten
from alexnet.training.fitting import fit, save_step_0
from alexnet.training.guard import Doctor
from alexnet.training.network import build_net, preprocessing
from alexnet.training.parallel import Team, check_same_data, join, restarted
from alexnet.training.schedule import describe_unreached, refuse_endless_warmup, shorten_warmup
from alexnet.training.settings import (
    Prepare,
    TimingRule,
    choose_settings,
    choose_settings_again,
    chosen_threads,
    is_worth_a_second_look,
)
from alexnet.training.state import State
from alexnet.training.trainer import SecondLook

RUNS = Path("runs")
RECIPE_FILE = "recipe.toml"
BRIEF_S = 5.0  # for the doctor's look before the first step
MANY = 8  # classes that a line names
SAMPLED = 64  # training files whose EXIF orientation is counted
NAMED = 12  # classes that the first lines name


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
    **overrides: Unpack[RecipeOverrides],
) -> TrainResult:
    """Trains a recipe, or continues a run.

    `recipe` is a name, a file (.toml), a record of one (recipe.json of a run, certificate.json of
    an export) or a value; `overrides` replace fields of it. Without recipe and
    data it is `digits`; with data alone one is chosen that fits into about `minutes` (default 20)
    on this machine, with `init` one that fine-tunes, and the reasons are printed. `init` is a run
    or a file of weights to start from: fine-tuning keeps the run's network and preprocessing,
    unless `overrides` or a file replace them; the last layer is made anew where the classes differ.
    `doctor` is what happens when something keeps it from learning: stop, say, or off, which does
    not look. Processes that torchrun starts share the work; with `towers` 2 each holds a tower of
    the paper's network. SIGINT, SIGTERM, SIGUSR1 and `stop_signal` save and stop.
    Returns a TrainResult: the figures of the best validation, run and checkpoint; `choice`, the
    reasons where a recipe was chosen, and `recipe_file`, the recipe as a file to edit.
    """
    request = Request(
        recipe, data, run, resume, tensorboard, init, doctor, towers, stop_signal, minutes,
        overrides,
    )  # fmt: skip
    return train_request(request, TimingRule())


@dataclass(frozen=True)
class Request:
    """The arguments of a call of `train`."""

    recipe: str | Recipe | None = None
    data: str | Path | None = None
    run: str | Path | None = None
    resume: bool = False
    tensorboard: bool = False
    init: str | Path | None = None
    doctor: Doctor = "stop"
    towers: int = 1
    stop_signal: str | None = None
    minutes: float | None = None
    fields: RecipeOverrides = field(default_factory=RecipeOverrides)

    @property
    def signals(self) -> tuple[int, ...]:
        """The signals that save and stop."""
        return PREEMPT if self.stop_signal is None else (*PREEMPT, signal_number(self.stop_signal))


@chance_kept()
def train_request(request: Request, choosing: TimingRule) -> TrainResult:
    """Trains as requested; `choosing` is how the fastest settings are found."""
    refuse_unknown(request.fields, "train", (f.name for f in dataclass_fields(Request)))
    if "" in (request.run, request.recipe, request.data):
        raise UsageError("an empty name: leave the option out, or say which")
    if request.resume and request.minutes is not None:
        raise UsageError(
            f"{option('minutes')} chooses a recipe and {option('resume', True)} keeps one: leave "
            "one out"
        )
    if request.resume and request.init is not None:
        raise UsageError(
            f"{option('init')} starts a run and {option('resume', True)} continues one: leave one "
            "out"
        )
    with interrupt_on(request.signals), join(request.towers) as team, ExitStack() as locks:
        made = None
        with team.all_or_none():
            if team.leads:
                made, opened = plan_training(request, choosing, team, locks)
        plan = team.agree(RunPlan, made)
        with team.all_or_none():
            if not team.leads:
                opened = open_planned(plan, request.data, request.init)
        return run_plan(plan, opened, team, choosing)


# The plan.


@dataclass(frozen=True)
class Opened:
    """Data and weights that a plan names, opened and verified by this process. A new run starts
    from `weights`, a continued one from `start`."""

    dataset: Dataset
    statistics: Statistics
    weights: Mapping[str, Tensor] | None = None
    start: Checkpoint | None = None


def plan_training(
    request: Request, choosing: TimingRule, team: Team, locks: ExitStack
) -> tuple[RunPlan, Opened]:
    """Plans a new run, or how one goes on: for the first process of a team alone.

    What it opens comes with the plan; what it locks is `held` until the training ends.
    """
    if is_launched() and request.run is None:
        raise UsageError(
            f"torchrun starts processes anew that have to find the run: add {option('run', DIR)}"
        )
    if request.tensorboard and team.towers > 1:
        raise UsageError(
            f"{option('tensorboard', True)} draws from one process: leave it or {option('towers')} "
            "out"
        )
    if restarted() and RunDir(Path(request.run or RUNS)).is_begun:
        fields = request.fields.copy()
        if fields.get("precision") == "auto":
            del fields["precision"]
        return _plan_continuation(replace(request, fields=fields), locks)
    if request.resume:
        return _plan_continuation(request, locks)
    return _plan_new_run(request, choosing, team, locks)


def _plan_new_run(
    request: Request, choosing: TimingRule, team: Team, locks: ExitStack
) -> tuple[RunPlan, Opened]:
    # The recipe, the weights to start from, and the data.
    fields = request.fields
    named = request.recipe if isinstance(request.recipe, str) else None
    initial = InitialWeights()
    if request.init is not None:
        written = fields_written(named) if named is not None else frozenset[str]()
        initial = read_init(request.init, {*fields, *written})
    recipe, choice, orient = choose(
        request.recipe, request.data, request.init, request.minutes, initial, fields
    )
    recipe = Recipe.from_dict(recipe.to_dict())  # as the run's recipe.json will give it back
    oriented = recipe.orient
    dataset = as_packed(open_dataset(recipe, request.data), orient)
    recipe = dataset.recipe
    check_parts(dataset)

    # The folder of the run, and how the data is cut.
    path = Path(request.run) if request.run else fresh_run_path(RUNS, recipe.name)
    folder = RunDir.create(path)
    locks.enter_context(folder.lock())
    locks.enter_context(_removed_unless_begun(folder, recipe))
    keep_copies_together(dataset)
    reasons = say_reasons(choice, dataset) if choice is not None else []
    recorded = named is not None and named.endswith(RECORD)
    if "warmup_epochs" not in fields and not recorded:
        n_train = len(dataset.split("train"))
        recipe, shorter = shorten_warmup(recipe, max(n_train // recipe.batch_size, 1))
        if shorter:
            say(shorter)
    if recipe.bad_images == "skip" and initial.statistics_for(recipe) is None:
        _ = dataset.statistics  # which leaves out what it cannot read
    check_trainable(recipe, dataset, recorded)

    # Measurements: the images, and the fastest settings of a step.
    weights = initial.for_classes(recipe, dataset.classes)
    statistics = initial.statistics_for(recipe) or dataset.statistics
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
        else PinnedFile(path=str(request.init), sha256=initial.digest),
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
                raise error.advised(f"leave it out with {option('bad_images', 'skip')}") from None
        raise


def as_packed(dataset: Dataset, named: str | None) -> Dataset:
    """The data with the orientation that its pack has, which nothing can change any more. `named`
    is what the user asks for; UsageError where that is another."""
    packed = dataset.source.orient
    if packed is None or packed == dataset.recipe.orient:
        return dataset
    if named is not None:
        raise UsageError(
            f"orient is {named!r}, and {dataset.source.path} was packed with "
            f"{option('orient', packed)}: pack it again with {option('orient', named)}, or train "
            f"with {option('orient', packed)}"
        )
    return Dataset(dataset.source, dataset.recipe.replace(orient=packed))


def keep_copies_together(dataset: Dataset) -> None:
    """Finds copies of one picture, reports them, and keeps them in one split."""
    folder = dataset.source.folders is not None
    listed = f"; `{call('data check')}` lists them" if folder else ""
    copies = find_copies(dataset.source, dataset.recipe.workers)
    if copies.why_not:
        say(f"photos that are copies of others were not looked for: {copies.why_not}{listed}")
    if copies.uniform:
        names = ", ".join(copies.uniform[:MANY])
        say(
            f"most images of {escaped(names)} are so alike that copies cannot be told: there "
            "only files of the same bytes are kept together"
        )
    for part, count in copies.across:
        say(
            f"warning: {count:,} images of {part} look like copies of training images, so its "
            f"figures flatter{listed}"
        )
    dataset.keep_together(copies.groups)
    if not copies.groups or not dataset.groups:
        return
    photos = sum(map(len, copies.groups))
    several = "1 group" if len(copies.groups) == 1 else f"{len(copies.groups):,} groups"
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
            f"of {recipe.model} need at least 2 images: use "
            f"{option('batch_size', 2 * recipe.accumulate)}"
        )
    if recipe.freeze or recipe.part_lr:
        with torch.device("meta"):  # refuses parts that are not there, draws no weights
            build_net(recipe, len(dataset.classes))
    if not recorded:
        refuse_endless_warmup(recipe, steps_per_epoch(n_train, recipe.batch_size))


def _plan_continuation(request: Request, locks: ExitStack) -> tuple[RunPlan, Opened]:
    # The run, and the checkpoint that it goes on from.
    recipe = request.recipe
    if isinstance(recipe, str) and recipe.endswith((SUFFIX, RECORD)):
        recipe = find_recipe(recipe)
    named = recipe.name if isinstance(recipe, Recipe) else recipe
    path = Path(request.run) if request.run else _latest(named)
    folder = RunDir.open(path)
    locks.enter_context(folder.lock())
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
    finished = start.has_ended

    # Its data, and what became of images that could not be read.
    dataset = reopen_run_data(asked, described, request.data)
    if not finished:
        update_fates(dataset, folder, start.step, call("train", resume=True, run=path))
    check_unchanged(dataset, described, path)
    statistics = read_statistics(folder, described)

    # The machine, which may be another by now.
    began = folder.environment(required=True)
    count = chosen_threads(began)
    lines = []
    if kept := describe_kept_threads(count, torch.get_num_threads(), find_processors()):
        lines.append(kept)
    with threads(count):
        if moved := began.changes(machine()):
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
    runs = [path for n in names if n and (path := latest_run(RUNS, n))]
    if not runs:
        kind = f"run of {name!r}" if name else "run"
        raise UsageError(
            f"{option('resume', True)}: there is no {kind} in {RUNS.absolute()} to continue: "
            f"name one with {option('run', DIR)}, or leave {option('resume', True)} out to start "
            "one"
        )
    return max(runs, key=lambda path: (path / "recipe.json").stat().st_mtime)


# The first lines.


def describe_start(
    recipe: Recipe, dataset: Dataset, team: Team, threads: int, as_packed: bool
) -> list[str]:
    """The lines that are printed before the first step. `threads` is the number it computes with;
    `as_packed` says that photos lie as the data was packed, and not as in the recipe."""
    n_train, n_val = len(dataset.train), len(dataset.val)
    lines = [
        f"recipe {recipe.name} ({recipe.model}, {recipe.opt}, {recipe.schedule}, seed "
        f"{recipe.seed}, {recipe.precision}): {n_train:,} images to train on, {n_val:,} to "
        f"validate, {len(dataset.classes)} classes"
    ]
    if dataset.left_out:
        lines.append(
            f"left out, since they cannot be read: {len(dataset.left_out):,} of the images"
        )
    lines.append(f"splits: {dataset.describe_splits()}; test is not read here")
    lines.append(_name_classes(dataset))
    lines += _describe_turned(dataset)
    lines += describe_unreached(recipe, steps_per_epoch(n_train, recipe.batch_size))
    lines += _describe_processes(recipe, team)
    took = torch.get_num_threads()  # fewer were chosen by measuring, and that was said
    if threads == took and (line := describe_threads(took, find_processors())):
        lines.append(line)
    if as_packed:
        lines.append(f"orient {recipe.orient}: so {dataset.source.path} was packed")
    return lines


def _describe_processes(recipe: Recipe, team: Team) -> list[str]:
    lines = []
    if team.size > 1:
        towers = f", each a tower of {team.towers}" if team.towers > 1 else ""
        share = -(-recipe.batch_size // team.ranks)
        lines.append(
            f"{team.size} processes{towers}: up to {share} of a batch's {recipe.batch_size} images"
        )
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if is_launched() and shares_store and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        lines.append(
            "warning: processes that are started anew will not find each other: give torchrun "
            "--standalone (one host) or --rdzv-backend c10d, and set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )
    return lines


def _describe_turned(dataset: Dataset) -> list[str]:
    """How many of some training files have an EXIF orientation, and what is done about it."""
    if dataset.source.folders is None:
        return []
    train = dataset.train
    if isinstance(train.pixels, np.ndarray):
        train = dataset.split("train")  # the files that were decoded
    assert isinstance(train.pixels, ImageFiles)
    at = np.linspace(0, len(train) - 1, min(SAMPLED, len(train))).astype(int)
    turned = sum(lies_turned(train.pixels.source(i)) for i in at)
    if not turned:
        return []
    applied = f"they are turned upright ({option('orient', 'ignore')} leaves them)"
    ignored = f"they are left as stored ({option('orient', 'apply')} turns them upright)"
    done = applied if train.orient == "apply" else ignored
    return [f"{turned} of {len(at)} training images looked at have an EXIF orientation: {done}"]


def _name_classes(dataset: Dataset) -> str:
    """The first classes by name, in their order, with the training images of each."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist()
    titles = dataset.source.titles
    even = min(counts) == max(counts)
    named = [
        shorten(f"{name} ({titles[name]})" if name in titles else name, 40)
        + ("" if even else f" {count:,}")
        for name, count in zip(dataset.classes, counts, strict=True)
    ]
    more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    each = f"; {counts[0]:,} images of each to train on" if even else "; images to train on"
    if more and not even:
        each = f"; {min(counts):,} to {max(counts):,} images to train on"
    return f"classes: {', '.join(named[:NAMED])}{more}{each}"


# The run.


def open_planned(plan: RunPlan, data: str | Path | None, init: str | Path | None) -> Opened:
    """Opens what the first process planned with, where this process has it: `data` and `init` may
    lie elsewhere on each host. Raises an error for what is not the same."""
    recipe = Recipe.from_dict(plan.recipe)
    statistics = planned_statistics(plan)
    if plan.checkpoint is not None:
        folder = RunDir.open(Path(plan.run))
        start = load_checkpoint(Path(plan.checkpoint.path))
        if sha256_of(start.path / "manifest.json") != plan.checkpoint.sha256:
            raise CheckpointError(
                f"{start.path} is not what the first process reads: give all of them one folder"
            )
        dataset = reopen_run_data(recipe, plan.data, data)
        check_unchanged(dataset, plan.data, folder.path)
        return Opened(dataset, statistics, start=start)
    dataset = open_dataset(recipe, data)
    dataset.cut_as(plan.data)
    check_same_data(dataset.source.path, dataset.digest, plan.data.digest)
    weights = None
    if plan.init is not None:
        initial = read_init(plan.init.path if init is None else init)
        if initial.digest != plan.init.sha256:
            raise CheckpointError(
                f"{option('init', init)} is not what the first process reads: give all of them the "
                "same"
            )
        weights = initial.for_classes(recipe, dataset.classes)
    return Opened(dataset, statistics, weights)


def reopen_run_data(recipe: Recipe, described: DataCard, data: str | Path | None) -> Dataset:
    """The data of a run that goes on, wherever it lies now."""
    return Dataset(reopen_dataset(recipe, described, data).source, recipe, described)


def check_unchanged(dataset: Dataset, described: DataCard, run: Path) -> None:
    """DataError where the data is no longer what a run began with."""
    if dataset.disturbed and dataset.listed:
        if resized := dataset.resized():
            _, _, file, size = resized[0]
            raise DataError(
                f"{file} and {len(resized) - 1:,} other files changed since {run} began (it "
                f"had {size:,} bytes): put it back, or start a new run"
            )
    elif dataset.digest != described.digest:
        raise DataError(
            f"the data in {dataset.source.path} changed since {run} began "
            f"(digest {described.digest} then, {dataset.digest} now): "
            f"put it back, name the old one with {option('data')}, or start a new run"
        )


def pack_mean_image(statistics: Statistics) -> str | None:
    """The mean image as a plan has it."""
    if statistics.image is None:
        return None
    return base64.b64encode(pack_tensors({"mean": statistics.image})).decode()


def planned_statistics(plan: RunPlan) -> Statistics:
    """The statistics that preprocessing uses, to the bit as the first process has them."""
    image = None
    if plan.mean_image is not None:
        packed = base64.b64decode(plan.mean_image)
        image = unpack_tensors(packed, Path(plan.run))["mean"]
    covariance = tuple(map(tuple, plan.data.covariance))
    return Statistics(tuple(plan.data.mean), tuple(plan.data.std), covariance, image)


def run_plan(plan: RunPlan, opened: Opened, team: Team, choosing: TimingRule) -> TrainResult:
    """Trains as planned, alone or as one of a team; returns the figures of the best validation.

    A process that is alone may find, while it trains, that other settings are faster by now: then
    it starts again with them, once.
    """
    folder = RunDir(Path(plan.run), writes=team.leads)
    with team.all_or_none():
        if team.leads:
            if plan.checkpoint is None:
                _begin_run(plan, opened, folder, team)
            else:
                _continue_run(plan, folder)
    recheck = None
    if plan.settings and team.size == 1 and is_worth_a_second_look(plan.settings, choosing.long_s):
        preprocess = preprocessing(Recipe.from_dict(plan.recipe), opened.statistics)
        prepare = choosing.prepare(preprocess, len(opened.dataset.classes), team.ranks)
        recheck = SettingsRecheck(plan, folder, prepare)
    state = _train(plan, opened, folder, team, recheck, choosing.again_after_s)
    if recheck is not None and not state.finished:
        # Not from here on: a run is to be a function of one recipe and one number of threads.
        plan = recheck.better_plan(state.seconds)
        opened = _start_again(plan, opened, folder, team, state.seconds)
        state = _train(plan, opened, folder, team)
    result = None
    with team.all_or_none():
        if team.leads:
            with threads(plan.threads):
                result = finish(Recipe.from_dict(plan.recipe), folder, state)
                if plan.checkpoint is None:
                    result = replace(result, choice=plan.choice)
    return team.agree(TrainResult, result)


def _begin_run(plan: RunPlan, opened: Opened, folder: RunDir, team: Team) -> None:
    """Says what is trained, and writes all that the folder of a run has before its first step."""
    for line in plan.lines:
        say(line)
    if opened.statistics.image is not None:
        folder.write_mean_image(opened.statistics.image)
    for name, text in run_records(plan, team).items():
        write_atomic(folder.path / name, text)
    write_file_lists(folder.path, opened.dataset.file_lists())
    if plan.init is not None:
        _keep_what_weights_learnt_from(plan.init.path, folder)
    if plan.doctor != "off":
        _examine_before(plan, opened)


def _continue_run(plan: RunPlan, folder: RunDir) -> None:
    if plan.resumed is not None:
        folder.log(plan.resumed)
    for line in plan.lines:
        say(line)


def run_records(plan: RunPlan, team: Team) -> dict[str, str]:
    """The texts that say what a run is, by the names of their files."""
    recipe = Recipe.from_dict(plan.recipe)
    call, init = _call(plan, team), None
    if plan.init is not None:
        init = RunInit(path=str(Path(plan.init.path).absolute()), sha256=plan.init.sha256)
    start = RunStart(
        recipe=recipe.to_dict(), digest=recipe.digest, data=plan.data, call=call, init=init
    )
    with threads(plan.threads):
        computed_on = replace(environment(), settings=plan.settings)
    again = train_command(
        ["THIS_FILE"], replace(call, doctor="stop", threads=0),
        init=init.path if init else "",
        run="DIR" if call.processes > 1 else "",
    )  # fmt: skip
    return {
        ENVIRONMENT: to_json_text(computed_on),
        "recipe.json": to_json_text(start),
        RECIPE_FILE: write_recipe(recipe, plan.data.path, plan.choice, again),
    }


def _call(plan: RunPlan, team: Team) -> RunCall:
    """The parts of this call that a reproduction has to repeat."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", team.size)) if team.size > 1 else 1
    hosts = max(team.size // here, 1)
    computed = 0 if pick_device().type == "cuda" else plan.threads
    return RunCall(
        processes=team.size, hosts=hosts, towers=team.towers, doctor=plan.doctor, threads=computed
    )


def _keep_what_weights_learnt_from(init: str, folder: RunDir) -> None:
    """Of a run that is begun with: the digests of its images, so that those are no test."""
    if not (Path(init) / "recipe.json").is_file():
        return
    learnt = read_digests(RunDir.open(Path(init)))
    if learnt is None:
        say(f"{init} has no digests of what it was trained on: tests cannot tell those images")
        return
    arrays = ImageDigests({BEFORE: learnt.merged()}).to_arrays()
    folder.write_digests({name: torch.from_numpy(x) for name, x in arrays.items()})


def _examine_before(plan: RunPlan, opened: Opened) -> None:
    """Examines data, signals and contract briefly before the first step, without trial steps."""
    dataset = opened.dataset
    diagnosis = diagnose_recipe(
        Recipe.from_dict(plan.recipe), len(dataset.classes), dataset.train, dataset.val,
        opened.statistics, BRIEF_S, steps=0, weights=opened.weights,
    )  # fmt: skip
    for verdict in diagnosis.verdicts:
        if verdict.severity != "note":
            say(f"doctor: {verdict.name}: {verdict.evidence}; {verdict.advice}")


class SettingsRecheck:
    """Times the settings of a plan again while it runs."""

    def __init__(self, plan: RunPlan, folder: RunDir, prepare: Prepare) -> None:
        self._plan, self._folder, self._prepare = plan, folder, prepare
        self._better: RunPlan | None = None
        self._said = ""

    def __call__(self, step: int) -> bool:
        """Whether others are faster by now; else the run keeps what was timed."""
        assert self._plan.settings is not None
        recipe = Recipe.from_dict(self._plan.recipe)
        recipe, settings, said = choose_settings_again(
            recipe, self._plan.settings, self._prepare, step
        )
        if settings.chosen == self._plan.settings.chosen:
            self._folder.write_settings(settings)
            say(f"settings, timed again at step {step:,}: {said}")
            return False
        self._said = said
        self._better = replace(
            self._plan,
            recipe=recipe.to_dict(),
            settings=settings,
            threads=settings.chosen.threads,
        )
        return True

    def better_plan(self, lost_s: float) -> RunPlan:
        """The plan with the faster settings, whose record has the seconds that were lost."""
        assert self._better is not None
        assert self._better.settings is not None
        assert self._better.settings.again is not None
        again = replace(self._better.settings.again, lost_s=round(lost_s, 1))
        say(f"settings: {self._said}: starting again, {lost_s:.0f} s are lost")
        return replace(self._better, settings=replace(self._better.settings, again=again))


def _start_again(
    plan: RunPlan, opened: Opened, folder: RunDir, team: Team, lost_s: float
) -> Opened:
    """The run at step 0 of another plan, in place of what it was."""
    assert plan.settings is not None
    recipe = Recipe.from_dict(plan.recipe)
    give_back()
    with threads(plan.threads):
        restart_run(
            folder,
            run_records(plan, team),
            ResumeEvent(step=0, settings=plan.settings.chosen),
            lambda checkpoints: save_step_0(
                recipe, opened.dataset, opened.statistics, checkpoints,
                weights=opened.weights, seconds=lost_s,
            ),
        )  # fmt: skip
        start = load_checkpoint(find_checkpoint(folder.checkpoints, "last"))
    return replace(opened, weights=None, start=start)


def _train(
    plan: RunPlan,
    opened: Opened,
    folder: RunDir,
    team: Team,
    recheck: SettingsRecheck | None = None,
    again_after_s: float = 0.0,
) -> State:
    how = How(plan.tensorboard, plan.doctor, plan.signals)
    second_look = SecondLook(recheck, again_after_s) if recheck is not None else None
    with threads(plan.threads):
        return train_on(
            Recipe.from_dict(plan.recipe), opened.dataset, opened.statistics, folder,
            opened.start, how, team, opened.weights, second_look,
        )  # fmt: skip


@dataclass(frozen=True)
class How:
    """Options that do not affect the result."""

    tensorboard: bool
    doctor: Doctor
    stop: Sequence[int]


def train_on(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    folder: RunDir,
    start: Checkpoint | None,
    how: How,
    team: Team,
    weights: Mapping[str, Tensor] | None = None,
    second_look: SecondLook | None = None,
) -> State:
    """Trains from the beginning or from `start` as far as `fit` goes."""
    board, show = None, None
    if how.tensorboard and team.leads:
        board = TensorBoard(folder.path, start.step if start else 0)
        show = ValidationPictures(
            board, dataset.val, preprocessing(recipe, statistics), dataset.classes
        )
    try:
        state = fit(
            recipe, dataset, statistics, folder, start,
            weights=weights, board=board, show=show, doctor=how.doctor, team=team, stop=how.stop,
            second_look=second_look,
        )  # fmt: skip
        if board is not None and state.finished:
            best_of = {"best/acc1": state.watch.best_top1, "best/loss": state.watch.best_loss}
            board.add_recipe(recipe.to_dict(), best_of)
    except Diverged as error:
        page = _page(folder)
        raise Diverged(f"{error}; its page: {page.out}" if page else str(error)) from error
    finally:
        if board is not None:
            board.close()
        folder.close()
    return state


def _page(folder: RunDir) -> ReportResult | None:
    """The run's page, or None where there can be none."""
    try:
        return report(folder.path, brief=True)
    except CheckpointError as error:  # what was trained is worth more than its page
        say(f"warning: no report: {error}")
    return None


def training_pace(events: Sequence[Event], batch: int) -> float | None:
    """Images a second of training steps alone, over every stretch of steps that the log has:
    without validation, saving and reports. None where it has none.

    The rate of each line is of the steps since the line before, or since the run was continued.
    """
    images, seconds, before = 0.0, 0.0, 0
    for event in events:
        if isinstance(event, TrainEvent) and event.images_per_s:
            images += (event.step - before) * batch
            seconds += (event.step - before) * batch / event.images_per_s
        if isinstance(event, TrainEvent | ResumeEvent) and event.step is not None:
            before = event.step
    return round(images / seconds, 1) if seconds > 0 else None


def finish(recipe: Recipe, folder: RunDir, state: State) -> TrainResult:
    """Make certificate and page of a trained run; returns its figures."""
    certify_run(load(folder.path))
    events = [as_event(line) for line in folder.events()]
    validations = [e for e in events if isinstance(e, ValEvent)]
    watch = state.watch
    best = next((e for e in validations if e.step == watch.best_step), None)
    page = _page(folder)
    card = read_recipe(folder)[1]
    return TrainResult(
        # Without its line in the log the state still knows two of them.
        top1=watch.best_top1 if best is None else best.top1,
        top1_ci95=None if best is None else best.top1_ci95,
        top5=None if best is None else best.top5,
        top5_ci95=None if best is None else best.top5_ci95,
        loss=watch.best_loss if best is None else best.loss,
        n=None if best is None else best.n,
        run=str(folder.path),
        checkpoint=str(find_checkpoint(folder.checkpoints, "best")),
        recipe=recipe.name,
        recipe_file=str(folder.path / RECIPE_FILE),
        step=state.step,
        best_step=watch.best_step,
        views=recipe.views,
        finished=state.finished,
        images_per_s=training_pace(events, recipe.batch_size),
        wall_s=round(state.seconds, 2),
        report=None if page is None else page.out,
        figures=() if page is None else page.figures,
        left_out=left_out_of(folder.path, card),
    )
