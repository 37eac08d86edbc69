"""A training plan is carried out: every process opens what it names and trains, and the first one
writes the run."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from alexnet.commands.diagnosing import diagnose_recipe
from alexnet.commands.initial_weights import read_init
from alexnet.commands.reporting import report
from alexnet.commands.tensorboard import Show
from alexnet.data.bad_images import left_out_of
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.digests import BEFORE, ImageDigests
from alexnet.data.inventory import write_inventory
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, DataError, Diverged
from alexnet.evaluation_set import read_digests
from alexnet.files import read_json, sha256_of, to_json_text, write_atomic, write_json
from alexnet.interchange.certificate import certify_run
from alexnet.memory import give_back
from alexnet.predictor import load
from alexnet.recipe import Recipe
from alexnet.recipebook.again import Call, train_command
from alexnet.recipebook.written import write_recipe
from alexnet.runs.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    pack_tensors,
    unpack_tensors,
)
from alexnet.runs.records import (
    DataCard,
    Environment,
    Event,
    ReportResult,
    ResumeEvent,
    RunPlan,
    TrainEvent,
    TrainResult,
    ValEvent,
    as_event,
)
from alexnet.runs.restart import restart_run
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runs.tensorboard import TensorBoard
from alexnet.runtime import environment, pick_device, threads
from alexnet.terminal import say
from alexnet.training.fitting import fit, save_step_0
from alexnet.training.guard import Doctor
from alexnet.training.network import preprocessing
from alexnet.training.parallel import Team, check_same_data
from alexnet.training.settings import (
    Prepare,
    TimingRule,
    choose_settings_again,
    is_worth_a_second_look,
)
from alexnet.training.state import State
from alexnet.training.trainer import SecondLook

ENVIRONMENT = "environment.json"
RECIPE_FILE = "recipe.toml"
BRIEF_S = 5.0  # for the doctor's look before the first step


@dataclass(frozen=True)
class Opened:
    """What a plan names, opened and verified by this process. `weights` are what a new run starts
    from, `start` what a continued one goes on from."""

    dataset: Dataset
    statistics: Statistics
    weights: Mapping[str, Tensor] | None = None
    start: Checkpoint | None = None


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
        given = read_init(plan.init.path if init is None else init)
        if given.digest != plan.init.sha256:
            raise CheckpointError(
                f"--init {init} is not what the first process reads: give all of them the same"
            )
        weights = given.for_classes(recipe, dataset.classes)
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
            "put it back, name the old one with --data, or start a new run"
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
    write_inventory(folder.path, opened.dataset.inventory())
    if plan.init is not None:
        _keep_what_weights_learnt_from(plan.init.path, folder)
    if plan.doctor != "off":
        _look_before(plan, opened)


def _continue_run(plan: RunPlan, folder: RunDir) -> None:
    if plan.resumed is not None:
        folder.log(plan.resumed)
    for line in plan.lines:
        say(line)


def run_records(plan: RunPlan, team: Team) -> dict[str, str]:
    """The texts that say what a run is, by the names of their files."""
    recipe = Recipe.from_dict(plan.recipe)
    call, init = _call(plan, team), ""
    saved = {
        "recipe": recipe.to_dict(), "digest": recipe.digest, "data": plan.data.to_json(),
        "call": asdict(call),
    }  # fmt: skip
    if plan.init is not None:
        init = str(Path(plan.init.path).absolute())
        saved["init"] = {"path": init, "sha256": plan.init.sha256}
    with threads(plan.threads):
        machine = replace(environment(), settings=plan.settings)
    again = train_command(
        ["THIS_FILE"], replace(call, doctor="stop", threads=0), init=init,
        run="DIR" if call.processes > 1 else "",
    )  # fmt: skip
    return {
        ENVIRONMENT: to_json_text(machine),
        "recipe.json": to_json_text(saved),
        RECIPE_FILE: write_recipe(recipe, plan.data.path, plan.choice, again),
    }


def _call(plan: RunPlan, team: Team) -> Call:
    """What of this call a reproduction has to repeat."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", team.size)) if team.size > 1 else 1
    hosts = max(team.size // here, 1)
    computed = 0 if pick_device().type == "cuda" else plan.threads
    return Call(team.size, hosts, team.towers, plan.doctor, computed)


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


def _look_before(plan: RunPlan, opened: Opened) -> None:
    """A brief look before the first step: data, signals and contract, no trial steps."""
    dataset = opened.dataset
    found = diagnose_recipe(
        Recipe.from_dict(plan.recipe), len(dataset.classes), dataset.train, dataset.val,
        opened.statistics, BRIEF_S, steps=0, weights=opened.weights,
    )  # fmt: skip
    for verdict in found.verdicts:
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
            file = self._folder.path / ENVIRONMENT
            machine = Environment.from_json(read_json(file), str(file))
            write_json(file, replace(machine, settings=settings))
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
        """The plan with the faster settings, whose record has the seconds that were lost; said."""
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
        show = Show(board, dataset.val, preprocessing(recipe, statistics), dataset.classes)
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
