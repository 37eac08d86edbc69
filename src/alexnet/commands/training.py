"""alexnet train: a recipe from its beginning, or a run from where it stopped."""

import os
import shlex
import shutil
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from alexnet.commands.beginning import explain
from alexnet.commands.finishing import RECIPE_FILE, How, finish, train_on
from alexnet.commands.keeping import keep_copies_together
from alexnet.commands.mending import mend
from alexnet.commands.outset import (
    Given,
    announce,
    as_packed,
    check,
    choose,
    look_before,
    read_init,
)
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.digests import BEFORE, ImageDigests
from alexnet.data.held_parts import check_parts
from alexnet.data.inventory import write_inventory
from alexnet.errors import CheckpointError, DataError, Unreadable, UsageError
from alexnet.evaluation_set import read_digests
from alexnet.files import as_json, read_json, sha256_of, write_atomic, write_json
from alexnet.interrupt import PREEMPT, obeying, signal_named
from alexnet.launch import launched
from alexnet.memory import give_back
from alexnet.predict import read_recipe, read_statistics
from alexnet.processors import describe_kept_threads, describe_threads, find_processors
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe
from alexnet.recipebook.again import Call, train_command
from alexnet.recipebook.choice import Choice
from alexnet.recipebook.written import RECORD, SUFFIX, fields_written, write_recipe
from alexnet.runs.again import begin_again, end_beginning_again
from alexnet.runs.checkpoint import Checkpoint, find_checkpoint, load_checkpoint, load_latest
from alexnet.runs.records import DataCard, TrainResult
from alexnet.runs.rundir import RunDir, fresh_run_path, latest_run
from alexnet.runtime import chance_kept, changed_since, environment, pick_device, threads
from alexnet.terminal import say
from alexnet.training.network import preprocessing
from alexnet.training.parallel import Team, join, restarted
from alexnet.training.record import Doctor
from alexnet.training.schedule import shorten_warmup
from alexnet.training.settings import (
    Choosing,
    chosen_threads,
    is_worth_a_second_look,
    settle,
    settle_again,
)
from alexnet.training.train import SecondLook, save_step_0

RUNS = Path("runs")
ENVIRONMENT = "environment.json"


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
        Choosing(), recipe, data=data, run=run, resume=resume, tensorboard=tensorboard, init=init,
        doctor=doctor, towers=towers, stop_signal=stop_signal, minutes=minutes, **fields,
    )  # fmt: skip


@chance_kept()
def train_choosing(
    choosing: Choosing,
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
    stop = PREEMPT if stop_signal is None else (*PREEMPT, signal_named(stop_signal))
    how = How(tensorboard, doctor, stop)
    with obeying(stop), join(towers) as team, ExitStack() as stack:
        team.together(lambda: _check_call(run, tensorboard, team))
        there = RunDir(Path(run or RUNS))
        if restarted() and team.first(lambda: {"begun": there.is_begun})["begun"]:
            fields = {k: v for k, v in fields.items() if (k, v) != ("precision", "auto")}
            resume = True
        if resume:
            found = _resume(recipe, data, run, fields, how, team, stack)
        else:
            found = _start(recipe, data, run, init, minutes, fields, how, team, stack, choosing)
        return TrainResult.from_json(found, "what the training found")


def _check_call(run: str | Path | None, tensorboard: bool, team: Team) -> None:
    if launched() and run is None:
        raise UsageError("torchrun starts processes anew that have to find the run: add --run DIR")
    if tensorboard and team.towers > 1:
        raise UsageError("--tensorboard draws from one process: leave it or --towers out")


def _start(
    recipe: str | Recipe | None,
    data: str | Path | None,
    run: str | Path | None,
    init: str | Path | None,
    minutes: float | None,
    fields: dict[str, Any],
    how: How,
    team: Team,
    stack: ExitStack,
    choosing: Choosing,
) -> dict[str, Any]:
    def read_given() -> Given:
        if init is None:
            return Given()
        written = fields_written(recipe) if isinstance(recipe, str) else frozenset[str]()
        return read_init(init, {*fields, *written})

    given = team.together(read_given)
    choice: Choice | None = None  # of the first process

    def want() -> dict[str, Any]:
        """What depends on this machine's pace is for one process to say."""
        nonlocal choice
        wanted, choice, orient = choose(recipe, data, init, minutes, given, fields)
        return {"recipe": wanted.to_dict(), "orient": orient}

    wanted = team.first(want)
    chosen = Recipe.from_dict(wanted["recipe"])
    dataset = team.together(lambda: as_packed(open_dataset(chosen, data), wanted["orient"]))
    chosen = dataset.recipe

    def check_held() -> dict[str, Any]:
        check_parts(dataset)
        return {}

    team.first(check_held)

    def claim() -> dict[str, Any]:
        made = RunDir.create(Path(run) if run else fresh_run_path(RUNS, chosen.name))
        stack.enter_context(made.lock())
        return {"path": str(made.path)}

    claimed = team.first(claim)
    folder = RunDir(Path(claimed["path"]), writes=team.leads)
    try:
        keep_copies_together(dataset, team)

        def reason() -> dict[str, Any]:
            return {"reasons": explain(choice, dataset) if choice is not None else []}

        reasons = team.first(reason)["reasons"]
        recorded = isinstance(recipe, str) and recipe.endswith(RECORD)
        if "warmup_epochs" not in fields and not recorded:
            n_train = team.together(lambda: len(dataset.split("train")))
            chosen, shorter = shorten_warmup(chosen, max(n_train // chosen.batch_size, 1))
            if shorter and team.leads:
                say(shorter)
        if chosen.bad_images == "skip" and given.statistics_for(chosen) is None:
            team.together(lambda: dataset.statistics)  # which leaves out what it cannot read
        seen = team.first(lambda: {"digest": dataset.digest})
        team.together(lambda: check(chosen, dataset, seen["digest"], recorded))
        weights = given.for_classes(chosen, dataset.classes)
        statistics = given.statistics_for(chosen) or dataset.statistics
        if chosen.colour and not statistics.covariance:  # that run had no colour noise
            statistics = replace(statistics, covariance=dataset.statistics.covariance)

        n_classes = len(dataset.classes)
        prepare = choosing.prepare(preprocessing(chosen, statistics), n_classes, team.ranks)

        def decide() -> dict[str, Any]:
            total = (chosen.steps or 0) * chosen.batch_size or chosen.epochs * len(dataset.train)
            fixed = {*fields, "compile"} if team.size > 1 else fields
            settled, settings = settle(
                chosen, n_classes, round(total), fixed, prepare, team.ranks, choosing.worth
            )
            return {"recipe": settled.to_dict(), "settings": settings}

        decided = team.first(decide)
        chosen, settings = Recipe.from_dict(decided["recipe"]), decided["settings"]

        begun = "" if init is None else str(Path(init).absolute())
        # Once, as it was when the run began: a training that starts again may have found images
        # meanwhile that cannot be read.
        describe = cache(lambda: dataset.describe(statistics))

        def records(recipe: Recipe, settings: dict[str, Any]) -> dict[str, str]:
            """The texts that say what the run is, by the names of their files."""
            call = _call(team, how, settings["chosen"]["threads"])
            saved = {
                "recipe": recipe.to_dict(), "digest": recipe.digest,
                "data": describe(), "call": asdict(call),
            }  # fmt: skip
            if begun:
                saved["init"] = {"path": begun, "sha256": given.digest}
            with threads(settings["chosen"]["threads"]):
                known = {**environment(), "settings": settings}
            again = train_command(
                ["THIS_FILE"], replace(call, doctor="stop", threads=0), init=begun,
                run="DIR" if call.processes > 1 else "",
            )  # fmt: skip
            return {
                ENVIRONMENT: as_json(known),
                "recipe.json": as_json(saved),
                RECIPE_FILE: write_recipe(recipe, dataset.source.path, reasons, again),
            }

        def begin() -> dict[str, Any]:
            announce(chosen, dataset, team)
            took = torch.get_num_threads()  # fewer were chosen by measuring, and that was said
            line = describe_threads(took, find_processors())
            if line and settings["chosen"]["threads"] == took:
                say(line)
            if chosen.orient != wanted["recipe"]["orient"]:
                say(f"orient {chosen.orient}: so {dataset.source.path} was packed")
            if statistics.image is not None:
                folder.write_mean_image(statistics.image)
            for name, text in records(chosen, settings).items():
                write_atomic(folder.path / name, text)
            write_inventory(folder.path, dataset.inventory())
            _keep_what_weights_learnt_from(init, folder)
            if how.doctor != "off":
                look_before(chosen, dataset, statistics, weights)
            return {}

        team.first(begin)
        better: list[tuple[Recipe, dict[str, Any], str]] = []

        def look_again(step: int) -> bool:
            """Times the settings again; whether others win."""
            found, record, said = settle_again(chosen, settings, prepare, step)
            if record["chosen"] != settings["chosen"]:
                better.append((found, record, said))
                return True
            known = read_json(folder.path / ENVIRONMENT)
            write_json(folder.path / ENVIRONMENT, {**known, "settings": record})
            say(f"settings, timed again at step {step:,}: {said}")
            return False

        second_look = None
        if team.size == 1 and is_worth_a_second_look(settings, choosing.long_s):
            second_look = SecondLook(look_again, choosing.again_after_s)
        with threads(settings["chosen"]["threads"]):
            state = train_on(
                chosen, dataset, statistics, folder, None, how, team, weights, second_look
            )
            if state.finished:
                found = team.first(lambda: finish(chosen, folder, state))
                return {**found, "choice": reasons}
        # Not from here on: a run is to be a function of one recipe and one number of threads.
        chosen, settings, said = better[-1]
        settings["again"]["lost_s"] = round(state.seconds, 1)
        say(f"settings: {said}: starting again, {state.seconds:.0f} s are lost")
        give_back()
        with threads(settings["chosen"]["threads"]):
            begin_again(
                folder,
                records(chosen, settings),
                {"event": "resume", "step": 0, "settings": settings["chosen"]},
                lambda checkpoints: save_step_0(
                    chosen, dataset, statistics, checkpoints, weights=weights,
                    seconds=state.seconds,
                ),
            )  # fmt: skip
            start = load_checkpoint(find_checkpoint(folder.checkpoints, "last"))
            state = train_on(chosen, dataset, statistics, folder, start, how, team)
            found = team.first(lambda: finish(chosen, folder, state))
        return {**found, "choice": reasons}
    except BaseException as error:
        # There is nothing to continue, and it was empty before.
        if team.leads and not folder.is_begun:
            shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(error, Unreadable) and chosen.bad_images == "stop":
                raise error.advised("leave it out with --bad-images skip") from None
        raise


def _keep_what_weights_learnt_from(init: str | Path | None, folder: RunDir) -> None:
    """Of a run that is begun with: the digests of its images, so that those are no test."""
    if init is None or not (Path(init) / "recipe.json").is_file():
        return
    learnt = read_digests(RunDir.open(Path(init)))
    if learnt is None:
        say(f"{init} has no digests of what it was trained on: tests cannot tell those images")
        return
    arrays = ImageDigests({BEFORE: learnt.merged()}).to_arrays()
    folder.write_digests({name: torch.from_numpy(x) for name, x in arrays.items()})


def _call(team: Team, how: How, threads: int) -> Call:
    """What of this call a reproduction has to repeat."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", team.size)) if team.size > 1 else 1
    hosts = max(team.size // here, 1)
    computed = 0 if pick_device().type == "cuda" else threads
    return Call(team.size, hosts, team.towers, how.doctor, computed)


def _resume(
    recipe: str | Recipe | None,
    data: str | Path | None,
    run: str | Path | None,
    fields: dict[str, Any],
    how: How,
    team: Team,
    stack: ExitStack,
) -> dict[str, Any]:
    if isinstance(recipe, str) and recipe.endswith((SUFFIX, RECORD)):
        recipe = find_recipe(recipe)
    named = recipe.name if isinstance(recipe, Recipe) else recipe
    path = Path(run) if run else _latest(named)

    def claim() -> dict[str, Any]:
        folder = RunDir.open(path)
        stack.enter_context(folder.lock())
        end_beginning_again(folder)
        return {}

    team.first(claim)
    folder = RunDir(path, writes=team.leads)

    def check() -> tuple[Recipe, DataCard]:
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
        return asked, described

    asked, described = team.together(check)

    def newest() -> dict[str, Any]:
        found = load_latest(folder.checkpoints, say)
        return {
            "path": str(found.path), "sha256": sha256_of(found.path / "manifest.json"),
            "step": found.step, "finished": bool(found.state.get("finished")),
        }  # fmt: skip

    chosen = team.first(newest)

    def reopened() -> Dataset:
        """The run's own data, wherever it lies now."""
        return Dataset(reopen_dataset(asked, described, data).source, asked, described)

    opened: list[Dataset] = []

    def look() -> dict[str, Any]:
        """The first process sees what became of images that could not be read."""
        if not chosen["finished"]:
            again = f"alexnet train --resume --run {shlex.quote(str(path))}"
            opened.append(reopened())
            mend(opened[0], folder, chosen["step"], again)
        return {}

    team.first(look)

    def read() -> tuple[Checkpoint, Dataset]:
        """Every process reads and verifies it by itself."""
        start = load_checkpoint(Path(chosen["path"]))
        if sha256_of(start.path / "manifest.json") != chosen["sha256"]:
            raise CheckpointError(
                f"{start.path} is not what the first process reads: give all of them one folder"
            )
        dataset = opened[0] if opened else reopened()
        if dataset.disturbed and dataset.listed:
            if resized := dataset.resized():
                _, _, file, size = resized[0]
                raise DataError(
                    f"{file} and {len(resized) - 1:,} other files changed since {path} began (it "
                    f"had {size:,} bytes): put it back, or start a new run"
                )
        elif dataset.digest != described["digest"]:
            raise DataError(
                f"the data in {dataset.source.path} changed since {path} began "
                f"(digest {described['digest']} then, {dataset.digest} now): "
                "put it back, name the old one with --data, or start a new run"
            )
        return start, dataset

    start, dataset = team.together(read)
    began = read_json(folder.path / ENVIRONMENT)
    count = chosen_threads(began)
    if kept := describe_kept_threads(count, torch.get_num_threads(), find_processors()):
        say(kept)
    with threads(count):
        if moved := changed_since(began):
            say(f"warning: not the machine it began on, so bits may differ: {moved}")
    if not start.state.get("finished"):
        overruled = {"doctor": how.doctor} if how.doctor != "stop" else {}
        elsewhere = {"changed": moved} if moved else {}
        folder.log({"event": "resume", "step": start.step, **overruled, **elsewhere})
        say(f"continuing {path} from step {start.step:,}")
    statistics = read_statistics(folder, described)
    with threads(count):
        state = train_on(asked, dataset, statistics, folder, start, how, team)
        return team.first(lambda: finish(asked, folder, state))


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
