"""Precision, memory layout, threads and compiling of a training, chosen by its own first steps."""

import math
import os
import statistics as stats
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from alexnet.data.augment import Preprocess
from alexnet.data.loader import Batch
from alexnet.engine.compiled import compiled
from alexnet.engine.network import build_net
from alexnet.engine.optim import build_optimizer
from alexnet.engine.parallel import ALONE
from alexnet.engine.step import train_step
from alexnet.errors import Unavailable
from alexnet.memory import short_of_memory
from alexnet.models.net import summarize
from alexnet.models.zoo import model_spec
from alexnet.processors import given_threads
from alexnet.recipe import Recipe
from alexnet.runtime import HOPELESS, bf16_pace, choose_precision, pick_device, precisions, threads
from alexnet.terminal import say

WORTH = 2e13  # operations of a training below which nothing is measured: a minute of two cores
GAIN = 1.1  # times faster that a setting must be to replace the one before it
STEPS = 3  # that are timed, after one that is not
MOST_S = 4.0  # of timed steps, after which no further one is taken
IMAGES = 32  # at most in a step of a processor, which has no more to do at once with more of them
COMPILES_S = 60.0  # about what torch.compile takes
LEAST = 20  # times that which a training must last for compiling to be tried


@dataclass(frozen=True)
class Settings:
    """How a training is computed; what it computes is the same but for rounding, and
    compiled for which units dropout leaves out."""

    precision: str
    channels_last: bool
    threads: int
    compile: bool = False

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        made = ", compiled" if self.compile else ""
        return f"{self.precision}, {layout}, {self.threads} thread(s){made}"

    def on(self, recipe: Recipe) -> Recipe:
        return recipe.replace(
            precision=self.precision, channels_last=self.channels_last, compile=self.compile
        )


Measure = Callable[[Recipe, int], float]
"""Seconds of one training step of a recipe whose settings are fixed, in so many threads."""


def settle(
    recipe: Recipe,
    classes: int,
    images: int,
    fixed: Collection[str],
    measure: Measure,
    ranks: int = 1,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with its precision no longer auto, and `settings` for environment.json: what was
    chosen and the seconds of each that was measured.

    `images` is how many the training shows in all, to `ranks` processes together; `fixed` names the
    fields that the user gave. What runs out of memory is not chosen. Nothing is measured where the
    precision is given or the training is short: then a rule chooses.
    """
    rule = choose_precision(recipe.precision, pick_device())
    best = Settings(rule, recipe.channels_last, torch.get_num_threads())
    measured: list[dict[str, Any]] = []
    if rule == "bf16" and (pace := bf16_pace(pick_device())) > HOPELESS:
        say(
            f"bf16 products take {pace:,.0f} times as long as fp32 on this processor: "
            "--precision fp32 is the faster"
        )
    if recipe.precision == "auto" and operations(recipe, classes) * images >= WORTH:
        seconds = {best: measure(best.on(recipe), best.threads)}

        def better(tried: Settings) -> Settings:
            try:
                seconds[tried] = measure(tried.on(recipe), tried.threads)
            except Unavailable as error:
                say(f"not compiled: {error}")
            except RuntimeError as error:
                if not (why := short_of_memory(error)):
                    raise
                say(f"not chosen: {tried}: {why.partition(':')[0]}")
            return tried if seconds.get(tried, math.inf) * GAIN < seconds[best] else best

        for change in _changes(best, fixed):
            best = better(replace(best, **change))
        size = trial_size(recipe, ranks)
        if _worth_compiling(recipe, fixed, seconds[best] * images / (size * ranks)):
            best = better(replace(best, compile=True))
        measured = [{**asdict(one), "seconds": round(s, 5)} for one, s in seconds.items()]
        others = "; ".join(f"{one} {1e3 * s:,.0f}" for one, s in seconds.items() if one != best)
        say(f"settings: {best}: {1e3 * seconds[best]:,.0f} ms for {size} images ({others})")
    best = replace(best, compile=best.compile or recipe.compile)
    return best.on(recipe), {"chosen": asdict(best), "measured": measured}


def _worth_compiling(recipe: Recipe, fixed: Collection[str], lasts_s: float) -> bool:
    """On a GPU, in a long training: on a processor compiled steps were slower (decisions 63)."""
    free = "compile" not in fixed and not recipe.compile and recipe.accumulate == 1
    return free and pick_device().type == "cuda" and lasts_s >= LEAST * COMPILES_S


def trial_size(recipe: Recipe, ranks: int = 1) -> int:
    """Images of a step that is timed: of a GPU, what one of `ranks` has at once in training."""
    if pick_device().type == "cuda":  # fewer would not fill it
        return math.ceil(recipe.batch_size / (recipe.accumulate * ranks))
    return min(IMAGES, recipe.batch_size)


def _changes(first: Settings, fixed: Collection[str]) -> list[dict[str, Any]]:
    """What is tried in turn, each on top of the best so far."""
    others = set(precisions(pick_device())) - {first.precision}
    changes: list[dict[str, Any]] = [{"precision": other} for other in others]
    if "channels_last" not in fixed:
        changes.append({"channels_last": not first.channels_last})
    if first.threads > 1 and not given_threads() and pick_device().type == "cpu":
        changes.append({"threads": 1})
    return changes


def operations(recipe: Recipe, classes: int) -> int:
    """Additions and multiplications of a training step, an image, about."""
    given = (recipe.channels, recipe.crop, recipe.crop)
    return 6 * sum(row.macs for row in summarize(model_spec(recipe.model, classes, given), given))


def chosen_threads(environment: Mapping[str, Any]) -> int:
    """The threads that a run began with, for its bits, also where a quota leaves it fewer; torch's
    where it does not say, or says what this machine has not."""
    try:
        count = environment["settings"]["chosen"]["threads"]
    except (KeyError, TypeError):
        count = None
    here = type(count) is int and 1 <= count <= (os.cpu_count() or 1)
    return count if here else torch.get_num_threads()


def measure_steps(preprocess: Preprocess, classes: int, ranks: int = 1) -> Measure:
    """Times real steps, augmentation and update included, on images of noise."""

    def measure(recipe: Recipe, count: int) -> float:
        device = pick_device()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of what was tried before
        n, chance = trial_size(recipe, ranks), np.random.default_rng(0)
        pixels = chance.integers(0, 256, (n, recipe.size, recipe.size, recipe.channels), np.uint8)
        labels = torch.from_numpy(np.arange(n) % classes)
        batch = Batch(0, 0, np.arange(n), torch.from_numpy(pixels).to(device), labels.to(device))
        net = build_net(recipe, classes).to(device).train()
        optimizer, model = build_optimizer(net, recipe), compiled(net, recipe, ALONE)
        sums = torch.zeros(4, dtype=torch.float64, device=device)
        seconds: list[float] = []
        with threads(count):
            for _ in range(1 + STEPS):
                began = time.perf_counter()
                train_step(model, optimizer, batch, 0.0, recipe, preprocess, sums)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - began)
                if sum(seconds[1:]) > MOST_S:
                    break
        return stats.median(seconds[1:])

    return measure
