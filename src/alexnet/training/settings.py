"""Chooses precision, memory layout, threads and compiling of a training by timing its steps.

Other work on the machine makes steps slower, for a moment or for an hour. So two settings are
never timed one after the other: they take steps in turn, and are compared by their fastest. In a
long training the choice is timed again once, about a minute after the start.
"""

import math
import os
import statistics as stats
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alexnet.data.augment import Preprocess
from alexnet.data.loader import Batch
from alexnet.data.splits import Split
from alexnet.data.statistics import Statistics
from alexnet.errors import Unavailable
from alexnet.models.net import training_operations
from alexnet.models.zoo import model_spec
from alexnet.recipe import Recipe
from alexnet.records import (
    RecordedEnvironment,
    RunPlan,
    SecondTiming,
    Settings,
    SettingsChoice,
    TimedSettings,
)
from alexnet.runs.rundir import RunDir
from alexnet.runtime import (
    HOPELESS,
    bf16_pace,
    chance_kept,
    choose_precision,
    pick_device,
    threads,
)
from alexnet.support.memory import short_of_memory
from alexnet.support.options import option
from alexnet.support.processors import given_threads
from alexnet.support.terminal import say
from alexnet.training.network import preprocessing
from alexnet.training.trainer import Trainer, TrainingData

MIN_OPERATIONS = 2e13  # of a training whose settings are timed: about a minute of two cores
MIN_SPEEDUP = 1.1  # by which a setting must be faster to replace the one before it
ROUNDS = 3  # of a comparison; in each, both settings take one step
PACE_ROUNDS = 6  # of one step each, after one that is not timed
MAX_ROUNDS = 30  # of a comparison whose rounds disagree
MAX_SPREAD = 1.25  # of the two fastest steps, as a ratio, for rounds that agree
ENOUGH_S = 8.0  # of timed steps, after which two rounds of a comparison are enough
MAX_S = 16.0  # of timed steps, after which a comparison ends even if its rounds disagree
MAX_IMAGES = 32  # of a timed step on a CPU, which more images do not make more efficient
COMPILE_S = 60.0  # that torch.compile takes, roughly
MIN_COMPILES = 20  # multiples of COMPILE_S that a training must last for compiling to be tried
LONG_S = 1200.0  # expected length of a training from which its settings are timed again
RECHECK_AFTER_S = 60.0  # when they are timed again; at the end of the first epoch if that is sooner


@dataclass(frozen=True)
class Hardware:
    """The hardware that settings are chosen for.

    `precision` is the one that a rule takes for "auto" on this device. `bf16_pace` returns the time
    of a product in bf16 divided by its time in fp32.
    """

    device: torch.device
    precision: str
    bf16_pace: Callable[[], float]

    @classmethod
    def here(cls) -> "Hardware":
        """This machine's hardware; `bf16_pace` measures on its first call."""
        device = pick_device()
        return cls(device, choose_precision("auto", device), lambda: bf16_pace(device))


Step = Callable[[], float]
"""Makes one training step, and returns its duration in seconds."""

Prepare = Callable[[Recipe, int], Step]
"""Builds the training of a recipe with fixed settings, for a number of threads, and makes a first
step, which is not timed. Returns the timed step, which keeps the training in memory."""


def time_in_turns(holder: Step, challenger: Step) -> tuple[list[float], list[float]]:
    """Time the steps of two settings in rounds of one step each; the order changes every round.

    ROUNDS are made, fewer of slow steps but at least two. If the rounds disagree (see `is_faster`),
    more follow, up to MAX_ROUNDS or MAX_S. Returns the seconds of holder and challenger.
    """
    holder_s: list[float] = []
    challenger_s: list[float] = []
    order = [(holder, holder_s), (challenger, challenger_s)]
    while _needs_more_rounds(holder_s, challenger_s):
        for step, seconds in order:
            seconds.append(step())
        order.reverse()
    return holder_s, challenger_s


def is_faster(holder_s: Sequence[float], challenger_s: Sequence[float]) -> bool | None:
    """Whether the challenger is MIN_SPEEDUP times faster. None if the rounds disagree.

    Rounds agree if the fastest rounds give the same answer as the second fastest, so that no single
    round decides; and if fastest and second fastest differ by MAX_SPREAD at most, since a fastest
    round that was not repeated may still come from a slow moment of the machine.
    """
    (holder_best, holder_next), (best, following) = sorted(holder_s)[:2], sorted(challenger_s)[:2]
    by_best, by_next = best * MIN_SPEEDUP < holder_best, following * MIN_SPEEDUP < holder_next
    is_repeated = holder_next <= holder_best * MAX_SPREAD and following <= best * MAX_SPREAD
    return by_best if is_repeated and by_best == by_next else None


def _needs_more_rounds(holder_s: Sequence[float], challenger_s: Sequence[float]) -> bool:
    rounds, spent_s = len(holder_s), sum(holder_s) + sum(challenger_s)
    if rounds < 2:
        return True
    if is_faster(holder_s, challenger_s) is None:
        return rounds < MAX_ROUNDS and spent_s < MAX_S
    return rounds < ROUNDS and spent_s < ENOUGH_S


def time_alone(step: Step, rounds: int = ROUNDS) -> list[float]:
    """Time up to `rounds` steps, fewer of slow steps but at least two. Returns their seconds."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < rounds and sum(seconds) < ENOUGH_S / 2):
        seconds.append(step())
    return seconds


class Contest:
    """Times settings of a recipe against each other: the holder against one challenger at a time.

    `rounds` are the seconds of every timed step, by settings. The training of the holder stays in
    memory, and that of a challenger while it is timed.
    """

    def __init__(self, recipe: Recipe, prepare: Prepare, holder: Settings) -> None:
        self._recipe, self._prepare = recipe, prepare
        self.holder = holder
        self.rounds: dict[Settings, list[float]] = {holder: []}
        self._step = self._ready(holder)

    def challenge(self, challenger: Settings) -> None:
        """Make the challenger the holder if it is faster.

        If the rounds disagree, or this machine cannot compute the challenger, the holder stays and
        a line says why.
        """
        try:
            step = self._ready(challenger)
            holder_s, challenger_s = time_in_turns(self._step, step)
        except Unavailable as error:
            say(f"not compiled: {error}")
            return
        except RuntimeError as error:
            if not (why := short_of_memory(error)):
                raise
            say(f"not chosen: {challenger}: {why.partition(':')[0]}")
            return
        self.rounds[self.holder] += holder_s
        self.rounds.setdefault(challenger, []).extend(challenger_s)
        faster = is_faster(holder_s, challenger_s)
        if faster is None:
            say(
                f"not chosen: {challenger}: {len(holder_s)} rounds disagree "
                f"({_range(challenger_s)} ms, and {_range(holder_s)} of {self.holder})"
            )
        elif faster:
            self.holder, self._step = challenger, step

    def best(self, settings: Settings) -> float:
        """Return the seconds of the fastest step with these settings."""
        return min(self._timed(settings))

    def usual(self) -> float:
        """Return the seconds of a usual step of the holder: the median."""
        return stats.median(self._timed(self.holder))

    def _timed(self, settings: Settings) -> list[float]:
        if not self.rounds[settings] and settings == self.holder:  # there was no challenger
            self.rounds[settings] += time_alone(self._step)
        return self.rounds[settings]

    def measured(self) -> list[TimedSettings]:
        """Return the settings that were timed, each with the seconds of its steps."""
        return [
            TimedSettings(
                **settings.by_field(),
                seconds=round(min(rounds), 5),
                rounds=[round(seconds, 5) for seconds in rounds],
            )
            for settings, rounds in self.rounds.items()
            if rounds
        ]

    def describe(self, images: int) -> str:
        """Describe the durations of a step of `images` images, of the holder and of the others."""
        holder_s = self.best(self.holder)
        others = [
            f"{settings} {1e3 * min(seconds):,.0f}"
            for settings, seconds in self.rounds.items()
            if settings != self.holder and seconds
        ]
        comparison = f" ({'; '.join(others)})" if others else ""
        return f"{self.holder}: {1e3 * holder_s:,.0f} ms for {images} images{comparison}"

    def _ready(self, settings: Settings) -> Step:
        return self._prepare(settings.apply_to(self._recipe), settings.threads)


def _range(seconds: Sequence[float]) -> str:
    return f"{1e3 * min(seconds):,.0f} to {1e3 * max(seconds):,.0f}"


def choose_settings(
    recipe: Recipe,
    classes: int,
    images: int,
    fixed: Collection[str],
    prepare: Prepare,
    ranks: int = 1,
    min_operations: float = MIN_OPERATIONS,
    hardware: Hardware | None = None,
) -> tuple[Recipe, SettingsChoice]:
    """Choose the fastest settings. Returns the recipe with them, and the record of the choice.

    `images` is the number of images in the whole training, of all `ranks` together. `fixed` names
    the fields that the user set. Settings that run out of memory are not chosen. If the precision
    is not "auto", or the training has fewer than `min_operations`, nothing is timed and a rule
    chooses. `hardware` defaults to this machine.
    """
    hardware = hardware or Hardware.here()
    precision = hardware.precision if recipe.precision == "auto" else recipe.precision
    best = Settings(precision, recipe.channels_last, torch.get_num_threads())
    expected_s: float | None = None
    measured: list[TimedSettings] = []
    if precision == "bf16" and (pace := hardware.bf16_pace()) > HOPELESS:
        say(
            f"bf16 products take {pace:,.0f} times as long as fp32 on this processor: "
            f"{option('precision', 'fp32')} is faster"
        )
    if recipe.precision == "auto" and _is_worth_timing(recipe, classes, images, min_operations):
        with chance_kept():
            contest = Contest(recipe, prepare, best)
            for change in _changes(best, fixed, hardware):
                contest.challenge(replace(contest.holder, **change))
            size = trial_size(recipe, ranks, hardware.device)
            steps = images / (size * ranks)
            expected_s = contest.usual() * steps
            if _is_worth_compiling(recipe, fixed, expected_s, hardware.device):
                contest.challenge(replace(contest.holder, compile=True))
            best = contest.holder
            expected_s = round(contest.usual() * steps, 1)
            say(f"settings: {contest.describe(size)}")
            measured = contest.measured()
    best = replace(best, compile=best.compile or recipe.compile)
    choice = SettingsChoice(chosen=best, expected_s=expected_s, measured=measured)
    return best.apply_to(recipe), choice


def _is_worth_timing(recipe: Recipe, classes: int, images: int, min_operations: float) -> bool:
    """Every multiply-add counts as 6 operations, also those of the first layer."""
    input_shape = (recipe.channels, recipe.crop, recipe.crop)
    spec = model_spec(recipe.model, classes, input_shape)
    operations = training_operations(spec, input_shape, image_gradient=True)
    return operations * images >= min_operations


def is_worth_rechecking(choice: SettingsChoice, long_s: float = LONG_S) -> bool:
    """Whether to time the settings again: in a training on a CPU that is expected to last `long_s`
    or more, if more than one setting was timed."""
    on_cpu = pick_device().type == "cpu"
    return on_cpu and len(choice.measured) > 1 and (choice.expected_s or 0.0) >= long_s


def recheck_settings(
    recipe: Recipe, choice: SettingsChoice, prepare: Prepare, step: int
) -> tuple[Recipe, SettingsChoice, str]:
    """Time the chosen settings once more against all others that were timed before.

    Returns the recipe with the fastest settings, the record of both choices, and a line with the
    figures. Even settings that had lost by far are timed: beside another busy process two threads
    can lose every round to one, and win as clearly once that process has ended.
    """
    chosen = replace(choice.chosen, compile=False)  # as it was timed before
    with chance_kept():
        contest = Contest(recipe, prepare, chosen)
        for change in _changes_to_timed(chosen, choice.measured):
            contest.challenge(replace(contest.holder, **change))
        best, line = contest.holder, contest.describe(trial_size(recipe))
    if best != chosen:
        before_ms, now_ms = (1e3 * contest.best(settings) for settings in (chosen, best))
        line = f"{best} now takes {now_ms:,.0f} ms where {chosen} takes {before_ms:,.0f}"
    again = SecondTiming(step=step, before=choice.chosen, measured=contest.measured())
    best = replace(best, compile=recipe.compile)
    return best.apply_to(recipe), replace(choice, chosen=best, again=again), line


def _changes_to_timed(chosen: Settings, measured: Sequence[TimedSettings]) -> list[dict[str, Any]]:
    """Return each other precision, layout and number of threads that was timed before."""
    return [
        {name: value}
        for name in ("precision", "channels_last", "threads")
        for value in sorted({getattr(timed, name) for timed in measured} - {getattr(chosen, name)})
    ]


def _is_worth_compiling(
    recipe: Recipe, fixed: Collection[str], expected_s: float, device: torch.device
) -> bool:
    """Only in a long training on a GPU: on a CPU compiled steps were slower (decisions 63)."""
    is_open = "compile" not in fixed and not recipe.compile and recipe.accumulate == 1
    return is_open and device.type == "cuda" and expected_s >= MIN_COMPILES * COMPILE_S


class SettingsRecheck:
    """Times the settings of a plan again during its training, as the `look` of a `SecondLook`."""

    def __init__(self, plan: RunPlan, folder: RunDir, prepare: Prepare) -> None:
        self._plan, self._folder, self._prepare = plan, folder, prepare
        self._better: RunPlan | None = None
        self._line = ""

    def __call__(self, step: int) -> bool:
        """Return whether other settings are faster by now; if not, record the timing in the run."""
        assert self._plan.settings is not None
        recipe = Recipe.from_dict(self._plan.recipe)
        recipe, settings, line = recheck_settings(recipe, self._plan.settings, self._prepare, step)
        if settings.chosen == self._plan.settings.chosen:
            self._folder.write_settings(settings)
            say(f"settings, timed again at step {step:,}: {line}")
            return False
        self._line = line
        self._better = replace(
            self._plan,
            recipe=recipe.to_dict(),
            settings=settings,
            threads=settings.chosen.threads,
        )
        return True

    def better_plan(self, lost_s: float) -> RunPlan:
        """Return the plan with the faster settings; its record has the seconds that were lost."""
        assert self._better is not None
        assert self._better.settings is not None
        assert self._better.settings.again is not None
        again = replace(self._better.settings.again, lost_s=round(lost_s, 1))
        say(f"settings: {self._line}: starting again, {lost_s:.0f} s are lost")
        return replace(self._better, settings=replace(self._better.settings, again=again))


def trial_size(recipe: Recipe, ranks: int = 1, device: torch.device | None = None) -> int:
    """Return the images of a timed step; on a GPU a micro-batch of one of `ranks` processes."""
    if (device or pick_device()).type == "cuda":  # fewer would not keep it busy
        return math.ceil(recipe.batch_size / (recipe.accumulate * ranks))
    return min(MAX_IMAGES, recipe.batch_size)


def _changes(first: Settings, fixed: Collection[str], hardware: Hardware) -> list[dict[str, Any]]:
    """Return the changes to try in turn, each on top of the best settings so far."""
    precisions = {"fp32"} if hardware.bf16_pace() > HOPELESS else {"fp32", "bf16"}
    changes: list[dict[str, Any]] = [
        {"precision": precision} for precision in precisions - {first.precision}
    ]
    if "channels_last" not in fixed:
        changes.append({"channels_last": not first.channels_last})
    if first.threads > 1 and not given_threads() and hardware.device.type == "cpu":
        changes.append({"threads": 1})
    return changes


def chosen_threads(environment: RecordedEnvironment) -> int:
    """Return the number of threads that a run began with, which it keeps so that bits stay equal.

    If it is not recorded, or this machine has fewer processors, torch's own number.
    """
    count = environment.threads
    is_possible = count is not None and 1 <= count <= (os.cpu_count() or 1)
    return count if count is not None and is_possible else torch.get_num_threads()


def prepare_steps(preprocess: Preprocess, classes: int, ranks: int = 1) -> Prepare:
    """Return a `Prepare` of real steps on random pixels, with augmentation and update."""

    def prepare(recipe: Recipe, count: int) -> Step:
        device = pick_device()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # memory of the settings before
        n, generator = trial_size(recipe, ranks), np.random.default_rng(0)
        pixels = generator.integers(
            0, 256, (n, recipe.size, recipe.size, recipe.channels), np.uint8
        )
        labels = torch.from_numpy(np.arange(n) % classes)
        batch = Batch(0, 0, np.arange(n), torch.from_numpy(pixels).to(device), labels.to(device))
        noise = Split("train", labels.numpy(), pixels, recipe.size, recipe.channels)
        data = TrainingData(noise, noise, classes, preprocess.statistics)
        # These images are the whole batch. How the first layer is initialised does not matter.
        trainer = Trainer(recipe.replace(batch_size=n, accumulate=1, whiten=False), data)

        def step() -> float:
            with threads(count):
                began = time.perf_counter()
                trainer.train_step(batch, lr=0.0)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return time.perf_counter() - began

        step()
        return step

    return prepare


@dataclass(frozen=True)
class TimingRule:
    """How and when settings are timed.

    `prepare` builds the steps from preprocessing, classes and processes. A training of fewer than
    `min_operations` chooses by a rule. One that is expected to last `long_s` or more is timed again
    after `recheck_after_s`.
    """

    prepare: Callable[[Preprocess, int, int], Prepare] = prepare_steps
    min_operations: float = MIN_OPERATIONS
    long_s: float = LONG_S
    recheck_after_s: float = RECHECK_AFTER_S


def measure_pace(recipe: Recipe, classes: int, prepare: Prepare | None = None) -> float:
    """Measure the images a second of training steps, with augmentation and update, without reading.

    The fastest of several steps counts, since other work on the machine only makes steps slower.
    `prepare` builds the timed steps, real ones by default. The random state of the caller does not
    change, and nothing is written.
    """
    precision = choose_precision(recipe.precision, pick_device())
    recipe = recipe.replace(precision=precision, normalize="std", compile=False)
    say(f"timing a few steps of {recipe.model} at {recipe.crop} pixels")
    if prepare is None:
        channels = range(recipe.channels)
        mean, std = (128.0,) * recipe.channels, (64.0,) * recipe.channels
        covariance = tuple(tuple(float(i == j) for j in channels) for i in channels)
        preprocess = preprocessing(recipe, Statistics(mean, std, covariance))
        prepare = prepare_steps(preprocess, classes)
    with chance_kept():
        seconds = time_alone(prepare(recipe, torch.get_num_threads()), PACE_ROUNDS)
    return trial_size(recipe) / min(seconds)
