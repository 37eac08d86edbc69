"""Precision, memory layout, threads and compiling of a training, chosen by timing its own steps.

Other work on the machine makes steps slower, for a moment or for an hour. So two settings are
never timed one after the other: they take a step each in turn, and are compared by their best. Of a
long training what was chosen is timed again once, about a minute after it began.
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
from alexnet.memory import short_of_memory
from alexnet.models.net import training_operations
from alexnet.models.zoo import model_spec
from alexnet.options import option
from alexnet.processors import given_threads
from alexnet.recipe import Recipe
from alexnet.runs.records import (
    RecordedEnvironment,
    SecondTiming,
    Settings,
    SettingsChoice,
    TimedSettings,
)
from alexnet.runtime import (
    HOPELESS,
    bf16_pace,
    chance_kept,
    choose_precision,
    pick_device,
    threads,
)
from alexnet.terminal import say
from alexnet.training.network import preprocessing
from alexnet.training.trainer import Trainer, TrainingData

WORTH = 2e13  # operations of a training below which nothing is measured: a minute of two cores
GAIN = 1.1  # times faster that a setting must be to replace the one before it
ROUNDS = 3  # of a comparison, in each of which either takes one step
PACE_ROUNDS = 6  # of one step each, after one that is not timed
MOST_ROUNDS = 30  # where the rounds disagree
ALIKE = 1.25  # times as long that the second fastest step may take before the rounds disagree
ENOUGH_S = 8.0  # of timed steps of a comparison, after which two rounds will do
MOST_S = 16.0  # after which no further round is taken, even where two disagree
IMAGES = 32  # at most in a step of a processor, which has no more to do at once with more of them
COMPILES_S = 60.0  # about what torch.compile takes
LEAST = 20  # times that which a training must last for compiling to be tried
LONG_S = 1200.0  # that a training must be expected to last for its settings to be timed again
AGAIN_AFTER_S = 60.0  # when they are; at the end of the first epoch if that comes sooner


@dataclass(frozen=True)
class Hardware:
    """What settings are chosen for: a device, the precision that a rule takes there for "auto", and
    `bf16_pace`, which says how many times as long as in fp32 a product takes in bf16."""

    device: torch.device
    precision: str
    bf16_pace: Callable[[], float]

    @classmethod
    def here(cls) -> "Hardware":
        """This machine's; its pace of bf16 is measured when it is asked for first."""
        device = pick_device()
        return cls(device, choose_precision("auto", device), lambda: bf16_pace(device))


Step = Callable[[], float]
"""Takes one training step, and returns the seconds that it took."""

Prepare = Callable[[Recipe, int], Step]
"""Builds the training of a recipe whose settings are fixed, in so many threads, and takes a first
step, which is not timed. What it built is held by the step that it returns."""


def time_in_turns(holder: Step, challenger: Step) -> tuple[list[float], list[float]]:
    """Seconds of the steps of both, in rounds of one step each; who goes first changes each round.

    ROUNDS of them, fewer of slow steps but two at least; where they disagree (see `is_faster`) more
    are taken, up to MOST_ROUNDS or MOST_S.
    """
    ours: list[float] = []
    theirs: list[float] = []
    turn = [(holder, ours), (challenger, theirs)]
    while _needs_more(ours, theirs):
        for step, seconds in turn:
            seconds.append(step())
        turn.reverse()
    return ours, theirs


def is_faster(ours: Sequence[float], theirs: Sequence[float]) -> bool | None:
    """Whether `theirs` are GAIN times faster than `ours`. None where the rounds disagree.

    They agree where the best round of each says the same as the best of those that are left without
    it, so that no single round decides, slow or fast; and where these two are ALIKE: a best that
    did not come again may still be that of a slow moment.
    """
    (our_best, our_next), (their_best, their_next) = sorted(ours)[:2], sorted(theirs)[:2]
    by_best, by_rest = their_best * GAIN < our_best, their_next * GAIN < our_next
    alike = our_next <= our_best * ALIKE and their_next <= their_best * ALIKE
    return by_best if alike and by_best == by_rest else None


def _needs_more(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    rounds, spent = len(ours), sum(ours) + sum(theirs)
    if rounds < 2:
        return True
    if is_faster(ours, theirs) is None:
        return rounds < MOST_ROUNDS and spent < MOST_S
    return rounds < ROUNDS and spent < ENOUGH_S


def time_alone(step: Step, rounds: int = ROUNDS) -> list[float]:
    """Seconds of so many steps, fewer of slow ones but two at least."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < rounds and sum(seconds) < ENOUGH_S / 2):
        seconds.append(step())
    return seconds


class Contest:
    """Settings of a recipe that are timed against each other: a holder, and one challenger after
    the other. `rounds` are the seconds of every step that was timed, by settings.

    The holder is kept in memory, and each challenger beside it for as long as it is timed.
    """

    def __init__(self, recipe: Recipe, prepare: Prepare, holder: Settings) -> None:
        self._recipe, self._prepare = recipe, prepare
        self.holder = holder
        self.rounds: dict[Settings, list[float]] = {holder: []}
        self._step = self._ready(holder)

    def challenge(self, challenger: Settings) -> None:
        """Makes the challenger the holder if it is faster. It is not where that stays open, or
        where it cannot be computed on this machine; both are said."""
        try:
            step = self._ready(challenger)
            ours, theirs = time_in_turns(self._step, step)
        except Unavailable as error:
            say(f"not compiled: {error}")
            return
        except RuntimeError as error:
            if not (why := short_of_memory(error)):
                raise
            say(f"not chosen: {challenger}: {why.partition(':')[0]}")
            return
        self.rounds[self.holder] += ours
        self.rounds.setdefault(challenger, []).extend(theirs)
        faster = is_faster(ours, theirs)
        if faster is None:
            say(
                f"not chosen: {challenger}: {len(ours)} rounds disagree "
                f"({_range(theirs)} ms, and {_range(ours)} of {self.holder})"
            )
        elif faster:
            self.holder, self._step = challenger, step

    def best(self, settings: Settings) -> float:
        """Seconds of the fastest step of these settings."""
        return min(self._timed(settings))

    def usual(self) -> float:
        """Seconds that a step of the holder takes as the machine is now: the median."""
        return stats.median(self._timed(self.holder))

    def _timed(self, settings: Settings) -> list[float]:
        if not self.rounds[settings] and settings == self.holder:  # nothing was there to challenge
            self.rounds[settings] += time_alone(self._step)
        return self.rounds[settings]

    def measured(self) -> list[TimedSettings]:
        """The settings that were timed, each with the seconds of its steps."""
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
        """The holder and its milliseconds a step of so many images, and those of the others."""
        held = self.best(self.holder)
        others = [
            f"{one} {1e3 * min(s):,.0f}"
            for one, s in self.rounds.items()
            if one != self.holder and s
        ]
        beside = f" ({'; '.join(others)})" if others else ""
        return f"{self.holder}: {1e3 * held:,.0f} ms for {images} images{beside}"

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
    worth: float = WORTH,
    hardware: Hardware | None = None,
) -> tuple[Recipe, SettingsChoice]:
    """The recipe with its precision no longer auto, and the record of the choice for
    environment.json.

    `images` is how many the training shows in all, to `ranks` processes together; `fixed` names the
    fields that the user gave. What runs out of memory is not chosen. Nothing is measured where the
    precision is given or the training has fewer than `worth` operations: then a rule chooses. The
    `hardware` is this machine's unless it is given.
    """
    hardware = hardware or Hardware.here()
    rule = hardware.precision if recipe.precision == "auto" else recipe.precision
    best = Settings(rule, recipe.channels_last, torch.get_num_threads())
    expected_s: float | None = None
    measured: list[TimedSettings] = []
    if rule == "bf16" and (pace := hardware.bf16_pace()) > HOPELESS:
        say(
            f"bf16 products take {pace:,.0f} times as long as fp32 on this processor: "
            f"{option('precision', 'fp32')} is the faster"
        )
    if recipe.precision == "auto" and _is_worth_timing(recipe, classes, images, worth):
        with chance_kept():
            contest = Contest(recipe, prepare, best)
            for change in _changes(best, fixed, hardware):
                contest.challenge(replace(contest.holder, **change))
            size = trial_size(recipe, ranks, hardware.device)
            steps = images / (size * ranks)
            lasts_s = contest.usual() * steps
            if _worth_compiling(recipe, fixed, lasts_s, hardware.device):
                contest.challenge(replace(contest.holder, compile=True))
            best = contest.holder
            expected_s = round(contest.usual() * steps, 1)
            say(f"settings: {contest.describe(size)}")
            measured = contest.measured()
    best = replace(best, compile=best.compile or recipe.compile)
    choice = SettingsChoice(chosen=best, expected_s=expected_s, measured=measured)
    return best.apply_to(recipe), choice


def _is_worth_timing(recipe: Recipe, classes: int, images: int, worth: float) -> bool:
    """`worth` is in operations of 6 for every multiply-add, that of the first part included."""
    given = (recipe.channels, recipe.crop, recipe.crop)
    spec = model_spec(recipe.model, classes, given)
    return training_operations(spec, given, image_gradient=True) * images >= worth


def is_worth_a_second_look(choice: SettingsChoice, long_s: float = LONG_S) -> bool:
    """Whether what `choose_settings` chose is to be timed again: in a training that is expected to
    last `long_s` or more, on a processor, where it had something to choose from."""
    cpu = pick_device().type == "cpu"
    return cpu and len(choice.measured) > 1 and (choice.expected_s or 0.0) >= long_s


def choose_settings_again(
    recipe: Recipe, choice: SettingsChoice, prepare: Prepare, step: int
) -> tuple[Recipe, SettingsChoice, str]:
    """Times the settings that `choose_settings` chose once more against all that it timed. Returns
    the recipe with the faster settings, the record of both choices, and a line with the figures.

    Also those that had lost by far are timed: beside a busy neighbour two threads can lose every
    round to one, and win as clearly when the neighbour is gone.
    """
    chosen = replace(choice.chosen, compile=False)  # as it was timed before
    with chance_kept():
        contest = Contest(recipe, prepare, chosen)
        for change in _rivals(chosen, choice.measured):
            contest.challenge(replace(contest.holder, **change))
        best, said = contest.holder, contest.describe(trial_size(recipe))
    if best != chosen:
        took, takes = (1e3 * contest.best(one) for one in (chosen, best))
        said = f"{best} now takes {takes:,.0f} ms where {chosen} takes {took:,.0f}"
    again = SecondTiming(step=step, before=choice.chosen, measured=contest.measured())
    best = replace(best, compile=recipe.compile)
    return best.apply_to(recipe), replace(choice, chosen=best, again=again), said


def _rivals(chosen: Settings, measured: Sequence[TimedSettings]) -> list[dict[str, Any]]:
    """Each other precision, layout and number of threads that was measured."""
    return [
        {name: value}
        for name in ("precision", "channels_last", "threads")
        for value in sorted({getattr(timed, name) for timed in measured} - {getattr(chosen, name)})
    ]


def _worth_compiling(
    recipe: Recipe, fixed: Collection[str], lasts_s: float, device: torch.device
) -> bool:
    """On a GPU, in a long training: on a processor compiled steps were slower (decisions 63)."""
    free = "compile" not in fixed and not recipe.compile and recipe.accumulate == 1
    return free and device.type == "cuda" and lasts_s >= LEAST * COMPILES_S


def trial_size(recipe: Recipe, ranks: int = 1, device: torch.device | None = None) -> int:
    """Images of a step that is timed: of a GPU, what one of `ranks` has at once in training."""
    if (device or pick_device()).type == "cuda":  # fewer would not fill it
        return math.ceil(recipe.batch_size / (recipe.accumulate * ranks))
    return min(IMAGES, recipe.batch_size)


def _changes(first: Settings, fixed: Collection[str], hardware: Hardware) -> list[dict[str, Any]]:
    """What is tried in turn, each on top of the best so far."""
    tried = {"fp32"} if hardware.bf16_pace() > HOPELESS else {"fp32", "bf16"}
    others = tried - {first.precision}
    changes: list[dict[str, Any]] = [{"precision": other} for other in others]
    if "channels_last" not in fixed:
        changes.append({"channels_last": not first.channels_last})
    if first.threads > 1 and not given_threads() and hardware.device.type == "cpu":
        changes.append({"threads": 1})
    return changes


def chosen_threads(environment: RecordedEnvironment) -> int:
    """The number of threads that a run began with. It keeps it for equal bits, also under a smaller
    quota. Where it is not recorded, or this machine has fewer processors, torch's number."""
    count = environment.threads
    is_possible = count is not None and 1 <= count <= (os.cpu_count() or 1)
    return count if count is not None and is_possible else torch.get_num_threads()


def prepare_steps(preprocess: Preprocess, classes: int, ranks: int = 1) -> Prepare:
    """Real steps on images of noise, augmentation and update included."""

    def prepare(recipe: Recipe, count: int) -> Step:
        device = pick_device()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of what was tried before
        n, chance = trial_size(recipe, ranks), np.random.default_rng(0)
        pixels = chance.integers(0, 256, (n, recipe.size, recipe.size, recipe.channels), np.uint8)
        labels = torch.from_numpy(np.arange(n) % classes)
        batch = Batch(0, 0, np.arange(n), torch.from_numpy(pixels).to(device), labels.to(device))
        noise = Split("train", labels.numpy(), pixels, recipe.size, recipe.channels)
        data = TrainingData(noise, noise, classes, preprocess.statistics)
        # A whole batch of its own; the first layer is of no account here.
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
    """How and when settings are chosen: `prepare` makes what is timed, of preprocessing, classes
    and processes; trainings of fewer than `worth` operations choose by a rule; those that last
    `long_s` look again `again_after_s` after they began."""

    prepare: Callable[[Preprocess, int, int], Prepare] = prepare_steps
    worth: float = WORTH
    long_s: float = LONG_S
    again_after_s: float = AGAIN_AFTER_S


def measure_pace(recipe: Recipe, classes: int, prepare: Prepare | None = None) -> float:
    """Images a second through training steps, augmentation and update included, reading not: those
    of the fastest of several steps, for what else the machine does makes steps slower.

    `prepare` makes the steps that are timed: real ones unless it is given. The random state of the
    caller stays as it is, and nothing is written.
    """
    precision = choose_precision(recipe.precision, pick_device())
    recipe = recipe.replace(precision=precision, normalize="std", compile=False)
    say(f"timing a few steps of {recipe.model} at {recipe.crop} pixels")
    if prepare is None:
        middle, spread = (128.0,) * recipe.channels, (64.0,) * recipe.channels
        even = tuple(tuple(float(i == j) for j in range(len(middle))) for i in range(len(middle)))
        preprocess = preprocessing(recipe, Statistics(middle, spread, even))
        prepare = prepare_steps(preprocess, classes)
    with chance_kept():
        seconds = time_alone(prepare(recipe, torch.get_num_threads()), PACE_ROUNDS)
    return trial_size(recipe) / min(seconds)
