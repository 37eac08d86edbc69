"""alexnet train: train a recipe, or continue a run.

The first process of a team turns a request into a plan (`plan_training`). Every process opens what
the plan names and carries it out (`run_plan`).
"""

import base64
import os
import shutil
from collections.abc import Iterator, Mapping
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
from alexnet.data.image_set import ImageFiles
from alexnet.data.images import lies_turned
from alexnet.data.loader import steps_per_epoch
from alexnet.data.statistics import Statistics
from alexnet.data.unreadable import check_parts, update_fates
from alexnet.errors import CheckpointError, DataError, Diverged, Unreadable, UsageError
from alexnet.evaluation_set import read_digests
from alexnet.figures.tensorboard import ValidationPictures
from alexnet.interchange.certificate import certify_run
from alexnet.predictor import load, read_statistics
from alexnet.recipe import (
    RECORD,
    SUFFIX,
    Recipe,
    RecipeOverrides,
    check_overrides,
    fields_written,
    find_recipe,
    write_recipe,
)
from alexnet.records import (
    DataCard,
    PinnedFile,
    ReportResult,
    ResumeEvent,
    RunCall,
    RunInit,
    RunPlan,
    RunStart,
    TrainResult,
    ValEvent,
    as_event,
)
from alexnet.runs.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_latest,
    pack_tensors,
    unpack_tensors,
)
from alexnet.runs.restart import finish_restart, restart_run
from alexnet.runs.rundir import ENVIRONMENT, RunDir, fresh_run_path, latest_run, read_recipe
from alexnet.runs.tensorboard import TensorBoard
from alexnet.runs.train_command import train_command
from alexnet.runtime import chance_kept, environment, machine, pick_device, threads
from alexnet.support.argument_checks import Range, checked
from alexnet.support.files import sha256_of, to_json_text, write_atomic
from alexnet.support.launch import is_launched
from alexnet.support.memory import give_back
from alexnet.support.options import DIR, call, option
from alexnet.support.processors import describe_kept_threads, describe_threads, find_processors
from alexnet.support.signals import PREEMPT, interrupt_on, signal_number
from alexnet.support.terminal import escaped, say, shorten
from alexnet.training.fitting import fit, save_step_0
from alexnet.training.guard import Doctor
from alexnet.training.log import training_pace
from alexnet.training.network import check_trainable, preprocessing
from alexnet.training.parallel import Team, check_same_data, join, restarted
from alexnet.training.schedule import describe_unreached, shorten_warmup
from alexnet.training.settings import (
    SettingsRecheck,
    TimingRule,
    choose_settings,
    chosen_threads,
    is_worth_rechecking,
)
from alexnet.training.state import State
from alexnet.training.trainer import SecondLook

RUNS = Path("runs")
RECIPE_FILE = "recipe.toml"
EXAMINE_S = 5.0  # that the doctor may take before the first step
WARNED_CLASSES = 8  # that a warning names at most
ORIENTED_FILES = 64  # training files whose EXIF orientation is counted
NAMED_CLASSES = 12  # that the first lines name at most


@checked(minutes=Range(high=10**6))
def train(
    recipe: str | Path | Recipe | None = None,
    *,
    data: str | Path | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: bool = False,
    init: str | Path | None = None,
    doctor: Doctor = "stop",
    towers: int = 1,
    stop_signal: int | str | None = None,
    minutes: float | None = None,
    **overrides: Unpack[RecipeOverrides],
) -> TrainResult:
    """Train a recipe, or continue a run.

    `recipe` is a name, a file (.toml), a record (recipe.json of a run, certificate.json of an
    export) or a Recipe; `overrides` replace fields of it. Without recipe and data it is `digits`.
    With data alone, a recipe is chosen that takes about `minutes` (default 20) on this machine, or
    with `init` one that fine-tunes; the reasons are printed. `init` is a run or a file of weights
    to start from. Fine-tuning keeps the source run's network and preprocessing, unless `overrides`
    or a recipe file replace them; the last layer is new if the classes differ.

    `doctor` is the reaction when a problem keeps the run from learning: "stop", "say", or "off",
    which does not check. Processes that torchrun starts share the work; with `towers` 2 each holds
    a tower of the paper's network. SIGINT, SIGTERM, SIGUSR1 and `stop_signal` save and stop.

    Returns a TrainResult: figures of the best validation, run and checkpoint; `choice`, the reasons
    for a chosen recipe; `recipe_file`, the recipe as a file to edit.
    """
    overrides = check_overrides(overrides, "train", (f.name for f in dataclass_fields(Request)))
    recipe = str(recipe) if isinstance(recipe, Path) else recipe
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
    stop_signal: int | str | None = None
    minutes: float | None = None
    fields: RecipeOverrides = field(default_factory=RecipeOverrides)

    @property
    def signals(self) -> tuple[int, ...]:
        """The signals that save and stop."""
        return PREEMPT if self.stop_signal is None else (*PREEMPT, signal_number(self.stop_signal))


@chance_kept()
def train_request(request: Request, timing: TimingRule) -> TrainResult:
    """Train as requested; `timing` says how the fastest settings are found."""
    if request.resume and request.minutes is not None:
        raise UsageError(
            f"{option('minutes')} chooses a recipe, and {option('resume', True)} keeps that of the "
            "run: leave one out"
        )
    if request.resume and request.init is not None:
        raise UsageError(
            f"{option('init')} starts a run, and {option('resume', True)} continues one: leave one "
            "out"
        )
    with interrupt_on(request.signals), join(request.towers) as team, ExitStack() as locks:
        own_plan = None
        with team.all_or_none():
            if team.leads:
                own_plan, opened = plan_training(request, timing, team, locks)
        plan = team.agree(RunPlan, own_plan)
        with team.all_or_none():
            if not team.leads:
                opened = open_planned(plan, request.data, request.init)
        return run_plan(plan, opened, team, timing)


# The plan.


@dataclass(frozen=True)
class Opened:
    """Data and weights of a plan, opened and verified by this process.

    A new run starts from `weights`, a continued run from the checkpoint `start`.
    """

    dataset: Dataset
    statistics: Statistics
    weights: Mapping[str, Tensor] | None = None
    start: Checkpoint | None = None


def plan_training(
    request: Request, timing: TimingRule, team: Team, locks: ExitStack
) -> tuple[RunPlan, Opened]:
    """Plan a new run or the continuation of one. Only the first process of a team calls it.

    Returns the plan with the data and weights it opened. `locks` keeps the run's folder locked
    until the training ends.
    """
    if is_launched() and request.run is None:
        raise UsageError(
            f"processes that torchrun restarts have to find the run: add {option('run', DIR)}"
        )
    if request.tensorboard and team.towers > 1:
        raise UsageError(
            f"{option('tensorboard', True)} needs the whole network in one process: leave it or "
            f"{option('towers')} out"
        )
    if restarted() and RunDir(Path(request.run or RUNS)).is_begun:
        fields = request.fields.copy()
        if fields.get("precision") == "auto":
            del fields["precision"]
        return _plan_continuation(replace(request, fields=fields), locks)
    if request.resume:
        return _plan_continuation(request, locks)
    return _plan_new_run(request, timing, team, locks)


def _plan_new_run(
    request: Request, timing: TimingRule, team: Team, locks: ExitStack
) -> tuple[RunPlan, Opened]:
    # The recipe, the weights to start from, and the data.
    fields = request.fields
    recipe_name = request.recipe if isinstance(request.recipe, str) else None
    initial = InitialWeights()
    if request.init is not None:
        in_file = fields_written(recipe_name) if recipe_name is not None else frozenset[str]()
        initial = read_init(request.init, {*fields, *in_file})
    recipe, choice, requested_orient = choose(
        request.recipe, request.data, request.init, request.minutes, initial, fields
    )
    recipe = Recipe.from_dict(recipe.to_dict())  # as it is read from the run's recipe.json
    recipe_orient = recipe.orient
    dataset = oriented_as_packed(open_dataset(recipe, request.data), requested_orient)
    recipe = dataset.recipe
    check_parts(dataset)

    # The folder of the run, and the splits of the data.
    path = Path(request.run) if request.run else fresh_run_path(RUNS, recipe.name)
    folder = RunDir.create(path)
    locks.enter_context(folder.lock())
    locks.enter_context(_removed_unless_begun(folder, recipe))
    keep_copies_together(dataset)
    reasons = say_reasons(choice, dataset) if choice is not None else []
    is_recorded = recipe_name is not None and recipe_name.endswith(RECORD)
    if "warmup_epochs" not in fields and not is_recorded:
        n_train = len(dataset.split("train"))
        recipe, line = shorten_warmup(recipe, max(n_train // recipe.batch_size, 1))
        if line:
            say(line)
    if recipe.bad_images == "skip" and initial.statistics_for(recipe) is None:
        _ = dataset.statistics  # measuring them leaves out images that cannot be read
    check_trainable(recipe, dataset, is_recorded)

    # Measurements: the statistics of the images, and the fastest settings of a step.
    weights = initial.for_classes(recipe, dataset.classes)
    statistics = initial.statistics_for(recipe) or dataset.statistics
    if recipe.colour and not statistics.covariance:  # the source run had no colour noise
        statistics = replace(statistics, covariance=dataset.statistics.covariance)
    classes = len(dataset.classes)
    n_shown = (recipe.steps or 0) * recipe.batch_size or recipe.epochs * len(dataset.train)
    fixed = {*fields, "compile"} if team.size > 1 else fields
    prepare = timing.prepare(preprocessing(recipe, statistics), classes, team.ranks)
    recipe, settings = choose_settings(
        recipe, classes, round(n_shown), fixed, prepare, team.ranks, timing.min_operations
    )
    n_threads = settings.chosen.threads
    plan = RunPlan(
        run=str(folder.path),
        recipe=recipe.to_dict(),
        data=dataset.describe(statistics),
        threads=n_threads,
        doctor=request.doctor,
        tensorboard=request.tensorboard,
        signals=request.signals,
        lines=tuple(
            describe_start(recipe, dataset, team, n_threads, recipe.orient != recipe_orient)
        ),
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
    """Remove the run's folder if the training fails before its first checkpoint.

    There is nothing to continue from then.
    """
    try:
        yield
    except BaseException as error:
        if not folder.is_begun:
            shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(error, Unreadable) and recipe.bad_images == "stop":
                raise error.advised(f"leave it out with {option('bad_images', 'skip')}") from None
        raise


def oriented_as_packed(dataset: Dataset, requested: str | None) -> Dataset:
    """Return the data with the orientation of its pack, which cannot be changed any more.

    Raises UsageError if the user has `requested` another one.
    """
    packed = dataset.image_set.orient
    if packed is None or packed == dataset.recipe.orient:
        return dataset
    if requested is not None:
        raise UsageError(
            f"orient is {requested!r}, and {dataset.image_set.path} was packed with "
            f"{option('orient', packed)}: pack it again with {option('orient', requested)}, or "
            f"train with {option('orient', packed)}"
        )
    return Dataset(dataset.image_set, dataset.recipe.replace(orient=packed))


def keep_copies_together(dataset: Dataset) -> None:
    """Find copies of one picture, report them, and keep them in one split."""
    has_folders = dataset.image_set.folders is not None
    hint = f"; `{call('data check')}` lists them" if has_folders else ""
    copies = find_copies(dataset.image_set, dataset.recipe.workers)
    if copies.why_not:
        say(f"photos were not compared to find copies: {copies.why_not}{hint}")
    if copies.uniform:
        names = ", ".join(copies.uniform[:WARNED_CLASSES])
        say(
            f"most images of {escaped(names)} are so alike that copies cannot be told apart: of "
            "these classes only identical files are kept together"
        )
    for part, count in copies.across:
        say(
            f"warning: {count:,} images of {part} look like copies of training images, so its "
            f"figures are too good{hint}"
        )
    dataset.keep_together(copies.groups)
    if not copies.groups or not dataset.groups:
        return
    photos = sum(map(len, copies.groups))
    groups = "1 group" if len(copies.groups) == 1 else f"{len(copies.groups):,} groups"
    say(
        f"{photos:,} photos are copies of others (the same file, saved anew, resized or "
        f"mirrored): {groups} kept in one split each{hint}"
    )
    for split, classes in dataset.missing_classes().items():
        say(
            f"warning: {split} has no image of {escaped(', '.join(classes[:WARNED_CLASSES]))}: "
            "these classes have too few different pictures"
        )


def _plan_continuation(request: Request, locks: ExitStack) -> tuple[RunPlan, Opened]:
    # The run, and the checkpoint to continue from.
    recipe = request.recipe
    if isinstance(recipe, str) and recipe.endswith((SUFFIX, RECORD)):
        recipe = find_recipe(recipe)
    name = recipe.name if isinstance(recipe, Recipe) else recipe
    path = Path(request.run) if request.run else _latest_run(name)
    folder = RunDir.open(path)
    locks.enter_context(folder.lock())
    finish_restart(folder)
    saved, card = read_recipe(folder)
    continued = saved.replace(**request.fields)
    if name is not None and name != saved.name:
        raise UsageError(
            f"{path} is a run of {saved.name!r}, not of {name!r}: use the name of its recipe"
        )
    if changed := saved.conflicts(continued):
        field_name = changed[0]
        raise UsageError(
            f"{field_name} is {getattr(saved, field_name)!r} in {path}, and "
            f"{getattr(continued, field_name)!r} was asked for: a continued run keeps its recipe: "
            "leave the option out, or start a new run"
        )
    start = load_latest(folder.checkpoints, say)
    finished = start.has_ended

    # The data, and images that could not be read.
    dataset = reopen_run_data(continued, card, request.data)
    if not finished:
        update_fates(dataset, folder, start.step, call("train", resume=True, run=path))
    check_unchanged(dataset, card, path)
    statistics = read_statistics(folder, card)

    # The machine, which may be another one now.
    recorded = folder.environment(required=True)
    n_threads = chosen_threads(recorded)
    lines = []
    if line := describe_kept_threads(n_threads, torch.get_num_threads(), find_processors()):
        lines.append(line)
    with threads(n_threads):
        if changes := recorded.changes(machine()):
            lines.append(
                "warning: this is not the machine that the run began on, so bits may differ: "
                f"{changes}"
            )
    resumed = None
    if not finished:
        resumed = ResumeEvent(
            step=start.step,
            doctor=request.doctor if request.doctor != "stop" else None,
            changed=changes or None,
        )
        lines.append(f"continuing {path} from step {start.step:,}")
    plan = RunPlan(
        run=str(path),
        recipe=continued.to_dict(),
        data=card,
        threads=n_threads,
        doctor=request.doctor,
        tensorboard=request.tensorboard,
        signals=request.signals,
        lines=tuple(lines),
        mean_image=pack_mean_image(statistics),
        checkpoint=PinnedFile(path=str(start.path), sha256=sha256_of(start.path / "manifest.json")),
        resumed=resumed,
    )
    return plan, Opened(dataset, statistics, start=start)


def _latest_run(name: str | None) -> Path:
    """Return the newest run of a recipe, or of all recipes. Raises UsageError if there is none."""
    names = [name] if name else sorted({p.name.rpartition("-")[0] for p in RUNS.glob("*-*")})
    runs = [path for n in names if n and (path := latest_run(RUNS, n))]
    if not runs:
        missing = f"run of {name!r}" if name else "run"
        raise UsageError(
            f"{option('resume', True)}: there is no {missing} in {RUNS.absolute()} to continue: "
            f"name one with {option('run', DIR)}, or leave {option('resume', True)} out to start "
            "one"
        )
    return max(runs, key=lambda path: (path / "recipe.json").stat().st_mtime)


# The lines before the first step.


def describe_start(
    recipe: Recipe, dataset: Dataset, team: Team, n_threads: int, orient_of_pack: bool
) -> list[str]:
    """Describe a new run, in the lines that are printed before its first step.

    `orient_of_pack` says that photos have the orientation of the packed data, not of the recipe.
    """
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
    lines += _describe_orientation(dataset)
    lines += describe_unreached(recipe, steps_per_epoch(n_train, recipe.batch_size))
    lines += _describe_processes(recipe, team)
    default = torch.get_num_threads()  # a choice of fewer by timing has its own line
    if n_threads == default and (line := describe_threads(default, find_processors())):
        lines.append(line)
    if orient_of_pack:
        lines.append(f"orient {recipe.orient}: {dataset.image_set.path} was packed so")
    return lines


def _describe_processes(recipe: Recipe, team: Team) -> list[str]:
    """Describe the processes of a team, and warn where a restart by torchrun would not work."""
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
            "warning: restarted processes will not find each other: give torchrun "
            "--standalone (one host) or --rdzv-backend c10d, and set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )
    return lines


def _describe_orientation(dataset: Dataset) -> list[str]:
    """Count the EXIF orientations among some training files, and say how they are treated."""
    if dataset.image_set.folders is None:
        return []
    train = dataset.train
    if isinstance(train.pixels, np.ndarray):
        train = dataset.split("train")  # the files behind the pixels in memory
    assert isinstance(train.pixels, ImageFiles)
    sample = np.linspace(0, len(train) - 1, min(ORIENTED_FILES, len(train))).astype(int)
    turned = sum(lies_turned(train.pixels.source(i)) for i in sample)
    if not turned:
        return []
    applied = f"they are turned upright ({option('orient', 'ignore')} leaves them)"
    ignored = f"they are left as stored ({option('orient', 'apply')} turns them upright)"
    treatment = applied if train.orient == "apply" else ignored
    return [
        f"{turned} of {len(sample)} sampled training images have an EXIF orientation: {treatment}"
    ]


def _name_classes(dataset: Dataset) -> str:
    """Name the first classes, in their order, with the training images of each."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist()
    titles = dataset.image_set.titles
    is_balanced = min(counts) == max(counts)
    named = [
        shorten(f"{name} ({titles[name]})" if name in titles else name, 40)
        + ("" if is_balanced else f" {count:,}")
        for name, count in zip(dataset.classes, counts, strict=True)
    ]
    more = f" and {len(named) - NAMED_CLASSES:,} more" if len(named) > NAMED_CLASSES else ""
    images = (
        f"; {counts[0]:,} images of each to train on" if is_balanced else "; images to train on"
    )
    if more and not is_balanced:
        images = f"; {min(counts):,} to {max(counts):,} images to train on"
    return f"classes: {', '.join(named[:NAMED_CLASSES])}{more}{images}"


# The run.


def open_planned(plan: RunPlan, data: str | Path | None, init: str | Path | None) -> Opened:
    """Open the data and weights of a plan on this process.

    `data` and `init` are their places here, which may differ between hosts. Raises DataError or
    CheckpointError if they are not those of the first process.
    """
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
    dataset.adopt_cut(plan.data)
    check_same_data(dataset.image_set.path, dataset.digest, plan.data.digest)
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


def reopen_run_data(recipe: Recipe, card: DataCard, data: str | Path | None) -> Dataset:
    """Open the data of a continued run, wherever it is now."""
    return Dataset(reopen_dataset(recipe, card, data).image_set, recipe, card)


def check_unchanged(dataset: Dataset, card: DataCard, run: Path) -> None:
    """Raise DataError if the data differs from the data card of the run."""
    if dataset.has_bad_images and dataset.recorded_files:
        if resized := dataset.resized_files():
            _, _, file, size = resized[0]
            raise DataError(
                f"{file} and {len(resized) - 1:,} other files changed since {run} began (it "
                f"had {size:,} bytes): put it back, or start a new run"
            )
    elif dataset.digest != card.digest:
        raise DataError(
            f"the data in {dataset.image_set.path} changed since {run} began "
            f"(digest {card.digest} then, {dataset.digest} now): "
            f"put it back, name the old data with {option('data')}, or start a new run"
        )


def pack_mean_image(statistics: Statistics) -> str | None:
    """Encode the mean image for a plan; None without one."""
    if statistics.image is None:
        return None
    return base64.b64encode(pack_tensors({"mean": statistics.image})).decode()


def planned_statistics(plan: RunPlan) -> Statistics:
    """Return the statistics of a plan, to the bit those of the first process."""
    image = None
    if plan.mean_image is not None:
        packed = base64.b64decode(plan.mean_image)
        image = unpack_tensors(packed, Path(plan.run))["mean"]
    covariance = tuple(map(tuple, plan.data.covariance))
    return Statistics(tuple(plan.data.mean), tuple(plan.data.std), covariance, image)


def run_plan(plan: RunPlan, opened: Opened, team: Team, timing: TimingRule) -> TrainResult:
    """Train as planned, alone or in a team, and return the figures of the best validation.

    A process that is alone times its settings again during training. If others are faster by then,
    it starts again with them, once.
    """
    folder = RunDir(Path(plan.run), writes=team.leads)
    with team.all_or_none():
        if team.leads:
            if plan.checkpoint is None:
                _begin_run(plan, opened, folder, team)
            else:
                _continue_run(plan, folder)
    recheck, second_look = None, None
    if plan.settings and team.size == 1 and is_worth_rechecking(plan.settings, timing.long_s):
        preprocess = preprocessing(Recipe.from_dict(plan.recipe), opened.statistics)
        prepare = timing.prepare(preprocess, len(opened.dataset.classes), team.ranks)
        recheck = SettingsRecheck(plan, folder, prepare)
        second_look = SecondLook(recheck, timing.recheck_after_s)
    state = _train(plan, opened, folder, team, second_look)
    if recheck is not None and not state.finished:
        # From step 0: the bits of a run depend on one recipe and one number of threads.
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
    """Print the first lines, and write the files that a run has before its first step."""
    for line in plan.lines:
        say(line)
    if opened.statistics.image is not None:
        folder.write_mean_image(opened.statistics.image)
    for name, text in run_records(plan, team).items():
        write_atomic(folder.path / name, text)
    write_file_lists(folder.path, opened.dataset.file_lists())
    if plan.init is not None:
        _copy_source_digests(plan.init.path, folder)
    if plan.doctor != "off":
        _examine_before(plan, opened)


def _continue_run(plan: RunPlan, folder: RunDir) -> None:
    if plan.resumed is not None:
        folder.log(plan.resumed)
    for line in plan.lines:
        say(line)


def run_records(plan: RunPlan, team: Team) -> dict[str, str]:
    """Return the files that describe a run: their texts by file name."""
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
    """Return the parts of this call that a reproduction has to repeat."""
    on_host = int(os.environ.get("LOCAL_WORLD_SIZE", team.size)) if team.size > 1 else 1
    hosts = max(team.size // on_host, 1)
    n_threads = 0 if pick_device().type == "cuda" else plan.threads
    return RunCall(
        processes=team.size, hosts=hosts, towers=team.towers, doctor=plan.doctor, threads=n_threads
    )


def _copy_source_digests(init: str, folder: RunDir) -> None:
    """Copy the image digests of the run whose weights are used, so that its images are no test."""
    if not (Path(init) / "recipe.json").is_file():
        return
    digests = read_digests(RunDir.open(Path(init)))
    if digests is None:
        say(
            f"{init} has no digests of its training images: tests of the new run cannot tell "
            "whether an image was trained on there"
        )
        return
    arrays = ImageDigests({BEFORE: digests.merged()}).to_arrays()
    folder.write_digests({name: torch.from_numpy(x) for name, x in arrays.items()})


def _examine_before(plan: RunPlan, opened: Opened) -> None:
    """Let the doctor examine data, signals and contract briefly, without trial steps."""
    dataset = opened.dataset
    diagnosis = diagnose_recipe(
        Recipe.from_dict(plan.recipe), len(dataset.classes), dataset.train, dataset.val,
        opened.statistics, EXAMINE_S, steps=0, weights=opened.weights,
    )  # fmt: skip
    for verdict in diagnosis.verdicts:
        if verdict.severity != "note":
            say(f"doctor: {verdict.name}: {verdict.evidence}; {verdict.advice}")


def _start_again(
    plan: RunPlan, opened: Opened, folder: RunDir, team: Team, lost_s: float
) -> Opened:
    """Put the run back to step 0, with the recipe and threads of another plan."""
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
    second_look: SecondLook | None = None,
) -> State:
    """Train as planned, in the planned number of threads, until `fit` ends."""
    recipe = Recipe.from_dict(plan.recipe)
    dataset, statistics = opened.dataset, opened.statistics
    board, show = None, None
    try:
        with threads(plan.threads):
            if plan.tensorboard and team.leads:
                board = TensorBoard(folder.path, opened.start.step if opened.start else 0)
                show = ValidationPictures(
                    board, dataset.val, preprocessing(recipe, statistics), dataset.classes
                )
            state = fit(
                recipe, dataset, statistics, folder, opened.start,
                weights=opened.weights, board=board, show=show, doctor=plan.doctor, team=team,
                stop=plan.signals, second_look=second_look,
            )  # fmt: skip
            if board is not None and state.finished:
                best = {"best/acc1": state.watch.best_top1, "best/loss": state.watch.best_loss}
                board.add_recipe(recipe.to_dict(), best)
    except Diverged as error:
        page = _page(folder)
        raise Diverged(f"{error}; its page: {page.out}" if page else str(error)) from error
    finally:
        if board is not None:
            board.close()
        folder.close()
    return state


def _page(folder: RunDir) -> ReportResult | None:
    """Make the run's page; None if that fails."""
    try:
        return report(folder.path, brief=True)
    except CheckpointError as error:  # a missing page must not fail a training
        say(f"warning: no report: {error}")
    return None


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
        # If the log lacks the line of the best validation, the state still has two figures.
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
