"""The recipe of a training: the named one, or one that is chosen for a folder by its images and a
few timed steps, with the reasons."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.choice import MINUTES, Choice, DataSummary, choose_recipe
from alexnet.commands.initial_weights import InitialWeights
from alexnet.data.dataset import Dataset
from alexnet.data.forms import open_image_set
from alexnet.data.image_set import ImageFiles, ImageSet
from alexnet.data.images import decode_image, open_image
from alexnet.errors import DataError, UsageError
from alexnet.models import find_model, refuse_retired
from alexnet.recipe import RECORD, SUFFIX, Recipe, fields_in, find_recipe
from alexnet.support.options import call, option
from alexnet.support.terminal import say
from alexnet.training import measure_pace

SAMPLE = 64  # headers read to learn sizes and colours
DECODED = 8  # images decoded to learn how long reading takes
ROUNDS = 3  # in which they are
DECODING_S = 1.5  # after which no further round begins
GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "F"}


def choose(
    recipe: str | Recipe | None,
    data: str | Path | None,
    init: str | Path | None,
    minutes: float | None,
    initial: InitialWeights,
    fields: Mapping[str, Any],
    pace: Callable[[Recipe, int], float] = measure_pace,
) -> tuple[Recipe, Choice | None, str | None]:
    """The recipe of a training, the choice where it was chosen, and the EXIF orientation where the
    user asks for one.

    `initial` is what `init` brings; `pace` says how many images a second a recipe trains on here.
    """
    choice = None
    if init is None:
        refuse_retired(fields.get("model"))
    if initial.inherited:
        kept = ", ".join(f"{k} {v}" for k, v in initial.inherited.items())
        say(f"from {init}: {kept}")
    if recipe is None and data is not None:
        brought = dict(initial.inherited)
        if init and not brought and "model" in fields:  # a file does not say what it is of
            brought = {"model": fields["model"]}
            if find_model(fields["model"]).keys:  # torchvision's own names
                brought["normalize"] = "torchvision"
        choice = choose_for_data(data, minutes, brought, fields, pace)
        recipe = choice.recipe
    elif minutes is not None:
        raise UsageError(
            f"{option('minutes', minutes)} is for a recipe that is chosen from "
            f"{option('data')}; with one that is named say {option('epochs')} or {option('steps')}"
        )
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "digits")
    if init is not None and fields.get("whiten"):
        raise UsageError(
            f"{option('whiten', True)} makes the first layer, and {option('init')} brings one: "
            "leave one out"
        )
    # What was chosen for a folder has its orientation for want of a word.
    named = fields.get("orient") or (None if choice else _names_orient(recipe))
    return chosen.adapted({**initial.inherited, **fields}, init is not None), choice, named


def _names_orient(recipe: str | Recipe | None) -> str | None:
    """The orientation that a recipe of the user's own asks for; what comes with the program has
    one for want of a word."""
    if isinstance(recipe, Recipe):
        return recipe.orient if recipe.orient != Recipe().orient else None
    if recipe is not None and recipe.endswith(RECORD):
        return find_recipe(recipe).orient
    return fields_in(Path(recipe)).get("orient") if recipe and recipe.endswith(SUFFIX) else None


def choose_for_data(
    data: str | Path,
    minutes: float | None = None,
    inherited: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
    pace: Callable[[Recipe, int], float] = measure_pace,
) -> Choice:
    """Chooses a recipe for the data and this machine."""
    image_set = open_image_set(data, aloud=False)
    summary = summarize_data(image_set, (fields or {}).get("bad_images") == "skip")

    @cache
    def measured(recipe: Recipe) -> float:
        return pace(recipe, len(summary.classes))

    return choose_recipe(summary, measured, minutes=MINUTES if minutes is None else minutes,
                           inherited=inherited, fields=fields)  # fmt: skip


def say_reasons(choice: Choice, dataset: Dataset) -> list[str]:
    """Says in five lines why it is this recipe, with the counts of the data set as it was cut."""
    reasons = choice.explain(dataset.count_splits())
    for reason in reasons:
        say(reason)
    return list(reasons)


def summarize_data(image_set: ImageSet, skip: bool = False) -> DataSummary:
    """Classes and counts from the labels of the part to train on, sizes and colours from a sample
    of headers. DataError, naming the file, for one that is no image, unless such are to be skipped.
    """
    name = "train" if "train" in image_set.parts else image_set.parts[0]
    part = image_set.read(name)
    counts = tuple(np.bincount(part.labels, minlength=len(image_set.classes)).tolist())
    held = tuple(p for p in image_set.parts if p != name)
    known = image_set.path, image_set.kind, image_set.classes, counts
    if not isinstance(part.images, ImageFiles):
        side = min(part.images.shape[1:3])
        return DataSummary(*known, (side, side, side), part.images.shape[3], held=held)
    at = np.linspace(0, len(part.images) - 1, min(SAMPLE, len(part.images))).astype(int)
    files = part.images.take(at)
    sides, grey = [], []
    for i in range(len(files)):
        try:
            with open_image(files.source(i)) as image:
                sides.append(min(image.size))
                grey.append(image.mode in GREY)
        except Exception as error:  # Pillow's parsers raise almost anything on hostile bytes
            if skip:
                continue
            raise DataError(
                f"{files.path(i)}: not an image that can be read; replace or remove it "
                f"(`{call('data check')}` names all such), or leave it out with "
                f"{option('bad_images', 'skip')}"
            ) from error
    if not sides:
        raise DataError(
            f"{image_set.path}: none of {len(files)} images can be read: see what it holds"
        )
    middle = int(statistics.median(sides))
    read_s = time_decoding(files.take(np.arange(min(DECODED, len(files)))), min(middle, 256), skip)
    return DataSummary(
        *known,
        (min(sides), middle, max(sides)),
        1 if all(grey) else 3,
        mixed=any(grey),
        held=held,
        read_s=read_s,
    )


def time_decoding(
    files: ImageFiles,
    size: int,
    skip: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds that one of these images takes to read and decode: the mean of each one's best of
    several rounds, since other work on the machine only ever makes it slower. DataError for one
    that cannot be read, unless such are to be skipped.
    """
    began = clock()
    best = [math.inf] * len(files)
    for _ in range(ROUNDS):
        for i in range(len(files)):
            before = clock()
            try:
                decode_image(files.source(i), channels=3, size=size, name=files.path(i))
            except DataError as error:
                if not skip:
                    remedy = f"leave it out with {option('bad_images', 'skip')}"
                    raise DataError(f"{error}, or {remedy}") from error
            best[i] = min(best[i], clock() - before)
        if clock() - began > DECODING_S:
            break
    return sum(best) / len(best)
