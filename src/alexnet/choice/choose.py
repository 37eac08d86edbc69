"""A recipe for data that came without one: what the data is and how fast this machine is, to a
recipe and the reasons for it. Nothing is read or measured here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.choice.candidates import (
    MANY,
    SMALL,
    DataSummary,
    at_own_size,
    candidates,
    fine_tuning,
    least_crop,
)
from alexnet.errors import DataError, UsageError
from alexnet.models.zoo import model_spec
from alexnet.options import option
from alexnet.recipe import Recipe
from alexnet.terminal import duration

MINUTES = 20.0
TRAINING = 0.75  # of the time given: validation, the look before and the page after have the rest
UNEVEN = 3  # times the smallest class, from which on the largest is worth a word

Pace = Callable[[Recipe], float]


Reasons = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Choice:
    """A recipe, and what was known when it was chosen.

    `timed` has (recipe, images/s, epochs that fit) of each that was timed, the cheapest first; the
    recipe is `kept` of them, with its epochs. `inherited` came with weights; `fields` are the
    user's own. `larger` says whether a recipe of more pixels was possible.
    """

    recipe: Recipe
    summary: DataSummary
    minutes: float
    timed: Sequence[tuple[Recipe, float, float]]
    kept: Recipe
    larger: bool
    inherited: Mapping[str, Any]
    fields: Mapping[str, Any]

    def explain(self, counts: Mapping[str, int]) -> Reasons:
        """Five lines that say why it is this recipe. `counts` are the images of each split that is
        cut from the part to train on, as the data set has cut them, and of validation."""
        return (
            _say_data(self.summary),
            _say_network(self),
            _say_augmentation(self.recipe),
            _say_length(self, counts["train"]),
            _say_splits(self, counts),
        )

    @property
    def reasons(self) -> Reasons:
        """The lines with the counts that are planned: right but for copies that move together."""
        return self.explain(plan_splits(self.summary, self.recipe))


def choose_recipe(
    summary: DataSummary,
    pace: Pace,
    *,
    minutes: float = MINUTES,
    inherited: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Choice:
    """The recipe for such data, in about `minutes` at `pace` (recipe -> images/s trained).

    `inherited` is what comes with weights to start from (model, size ...): it is then fine-tuned;
    `fields` are the user's own and stay as they are. Of several resolutions the largest is taken
    at which enough epochs fit. `pace` is asked for the smallest first, and for a larger one only
    while the ones before left room. DataError where a class is too small to be split.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise UsageError(
            f"{option('minutes', minutes)}: give a time above 0, as {option('minutes', 20)}"
        )
    given, own = dict(inherited or {}), dict(fields or {})
    _refuse_few(summary)

    def fitted(candidate: Recipe) -> Recipe:
        found = _sized(candidate, summary).adapted({**given, **own}, bool(given))
        model_spec(found.model, len(summary.classes), (found.channels, found.crop, found.crop))
        # Of what is not mirrored a mirror image would be another thing.
        return found if found.flip or "views" in own else found.replace(views=1)

    possible, faults = [], []
    for candidate in fine_tuning(summary, given, own) if given else candidates(summary):
        try:
            possible.append(fitted(candidate))
        except UsageError as fault:  # such as a crop that this resolution does not hold
            faults.append(fault)
    whole = all(type(own.get(name, 1)) is int for name in ("size", "crop"))
    if not possible and "model" in own and not given and whole:
        possible = [fitted(at_own_size(summary, own))]
    if not possible:
        raise faults[0]
    kept, heard = possible[0], []
    seconds = 60 * minutes * TRAINING - summary.images * summary.read_s
    for candidate in possible:  # the smallest first
        fits = max(seconds, 1.0) * (rate := pace(candidate)) / _train_images(summary, candidate)
        heard.append((candidate, rate, fits))
        if fits < (_wanted(summary, candidate) if candidate is not possible[0] else 0):
            break
        kept = candidate
        if fits < 1.5 * _wanted(summary, candidate):
            break
    fits = next(f for c, _, f in heard if c is kept)
    recipe = _timed(kept, summary, fits, own)
    return Choice(recipe, summary, minutes, heard, kept, kept is not possible[-1], given, own)


def _refuse_few(summary: DataSummary) -> None:
    needed = 3 - len(set(summary.held) & {"val", "test"})
    smallest = min(summary.counts)
    if smallest < needed:
        name = summary.classes[summary.counts.index(smallest)]
        where = "train, validation and test" if needed == 3 else "train and validation"
        raise DataError(
            f"{summary.where}: class {name!r} has {smallest} image(s), and {where} need one each: "
            f"add {needed - smallest} or more, or take the class out"
        )


def _sized(recipe: Recipe, summary: DataSummary) -> Recipe:
    """Splits and batch as a small set needs them."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10") and summary.images >= 2000:
        return recipe
    if summary.images < 2000:
        recipe = recipe.replace(val_fraction=0.2)
    few = max(2, _train_images(summary, recipe) // 6)
    batch = max(b for b in (2, 4, 8, 16, 32, 64, 128) if b <= min(few, recipe.batch_size))
    return recipe.replace(batch_size=batch)


def plan_splits(summary: DataSummary, recipe: Recipe) -> dict[str, int]:
    """Images of each split that is cut from the part to train on, class by class, as a data set
    cuts them: but for near copies, which stay together whatever the share."""
    held, left = set(summary.held), list(summary.counts)
    planned = {}
    shares = [] if held else [("test", recipe.test_fraction)]
    if not {"val", "test"} <= held:
        shares.append(("val", recipe.val_fraction))
    for name, share in shares:
        out = [min(max(round(share * n), 1), n - 1) for n in left]
        planned[name] = sum(out)
        left = [n - taken for n, taken in zip(left, out, strict=True)]
    return {"train": sum(left), **planned}


def _train_images(summary: DataSummary, recipe: Recipe) -> int:
    return plan_splits(summary, recipe)["train"]


def _wanted(summary: DataSummary, recipe: Recipe) -> float:
    """Epochs that are enough: a small set is seen more often, for there is less in an epoch."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10", "fine-tuned"):
        return recipe.epochs
    return min(60, max(15, round(12_000 / _train_images(summary, recipe))))


def _timed(recipe: Recipe, summary: DataSummary, fits: float, own: Mapping[str, Any]) -> Recipe:
    """Epochs that fit, at most twice what is enough; and when to stop before."""
    if not {"epochs", "steps"} & own.keys():
        most = _wanted(summary, recipe)
        if recipe.name.startswith(("photos-", "images-")):
            most *= 2
        fits = fits if fits < 3 else math.floor(fits)
        recipe = recipe.replace(epochs=max(min(most, fits), 0.1))
    every = max(1.0, round(recipe.epochs / 30)) if recipe.epochs >= 1 else recipe.epochs
    changes: dict[str, Any] = {"eval_every": every}
    if summary.images < 20_000 and recipe.epochs >= 10:
        # The rate of one cycle falls for two thirds of it, and the best often comes at its end.
        changes["early_stop"] = max(5, math.ceil(0.4 * recipe.epochs / every))
    return recipe.replace(**{k: v for k, v in changes.items() if k not in own})


def _say_data(summary: DataSummary) -> str:
    low, high = min(summary.counts), max(summary.counts)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    small, middle, large = summary.sides
    pixels = f"{middle}" if small == large else f"{small} to {large} (median {middle})"
    colour = "grey" if summary.channels == 1 else "grey and colour" if summary.mixed else "colour"
    part = " in the part to train on" if summary.held else ""
    return (
        f"data: {summary.where or summary.kind}: {summary.images:,} images{part}, "
        f"{len(summary.counts):,} classes of {each}, shorter side {pixels} pixels, {colour}"
    )


def _say_learning(kept: Recipe) -> str:
    said = f"{' and '.join(kept.freeze)} stay as given" if kept.freeze else "all learn"
    factors = [
        f"{part} {factor:g} times as fast{f' from epoch {since:g}' if since else ''}"
        for part, factor, since in kept.part_rates
    ]
    return ", ".join([said, *factors])


def _say_network(choice: Choice) -> str:
    summary, kept, minutes = choice.summary, choice.kept, choice.minutes
    rate = next(rate for recipe, rate, _ in choice.timed if recipe is kept)
    said = f"network: {kept.model} at {kept.crop} pixels, {rate:,.0f} images/s here"
    if choice.inherited:
        return f"{said}, as the given weights have it; {_say_learning(kept)}"
    beyond, slower, fits = choice.timed[-1]
    if beyond is not kept:
        return (
            f"{said}; {beyond.crop} pixels would be {slower:,.0f} images/s, {fits:.0f} epochs in "
            f"{minutes:g} min, and {_wanted(summary, beyond):.0f} are needed"
        )
    if kept.crop > max(summary.sides[1], SMALL):
        least = least_crop(kept.model, len(summary.classes), kept.channels)
        why = f": it takes {least} and more" if least > summary.sides[1] else ""
        return f"{said}, to which images of {summary.sides[1]} are enlarged{why}"
    if choice.larger:
        return f"{said}; more pixels would not fit into {minutes:g} min"
    if summary.images < MANY and kept.crop == 128 and summary.sides[1] >= 224:
        return f"{said}; 224 pixels are for {MANY:,} images or more"
    largest = kept.crop >= 224 and summary.sides[1] > 256
    return f"{said}; {'the most that is tried' if largest else 'the images have no more'}"


def _say_augmentation(recipe: Recipe) -> str:
    parts = {
        "mirrors": recipe.flip,
        f"shifts of {recipe.shift} pixels": recipe.shift,
        f"crops of {recipe.crop} from {recipe.size}": recipe.crop < recipe.size,
        f"turns of {recipe.rotate:g} degrees": recipe.rotate,
        f"zoom of {recipe.scale:.0%}": recipe.scale,
        f"cut-outs of at least {recipe.area:.0%}": recipe.area < 1,
        f"grey squares of {recipe.cutout}": recipe.cutout,
    }
    said = ", ".join(name for name, used in parts.items() if used) or "none"
    why = "a mirrored photo is the same thing" if recipe.flip else (
        f"no mirrors, which would change characters ({option('flip', True)} where they do not)"
    )  # fmt: skip
    return f"augmentation: {said}; {why}"


def _say_length(choice: Choice, n: int) -> str:
    recipe, summary, minutes = choice.recipe, choice.summary, choice.minutes
    rate, fits = next((r, f) for c, r, f in choice.timed if c is choice.kept)
    per_epoch = max(n // recipe.batch_size, 1)
    steps = recipe.steps or math.ceil(recipe.epochs * per_epoch)
    said = (
        f"length: {steps / per_epoch:.3g} epochs, {steps:,} steps of {recipe.batch_size}, about "
        f"{duration(steps * recipe.batch_size / rate / TRAINING + n * summary.read_s)}"
    )
    if {"epochs", "steps"} & choice.fields.keys():
        return f"{said}, as asked"
    if recipe.epochs < 0.5 * (wanted := _wanted(summary, recipe)):
        needed = minutes * wanted / max(fits, 0.01)
        return (
            f"{said}; {wanted:.0f} epochs would be better: {option('minutes', math.ceil(needed))}"
        )
    early = f"; ends after {recipe.early_stop} validations without a better one"
    return f"{said} of the {minutes:g} min" + (early if recipe.early_stop else "")


def _say_splits(choice: Choice, counts: Mapping[str, int]) -> str:
    recipe, summary = choice.recipe, choice.summary
    cut = plan_splits(summary, recipe).keys() - {"train"}
    said = f"splits: {counts['train']:,} images to train on"
    if "val" in counts:
        said += f", {counts['val']:,} to validate"
    if "test" in counts:
        said += f", {counts['test']:,} to test"
    said += ", held out class by class" if cut else ", as the data has them"
    low, high = min(summary.counts), max(summary.counts)
    if recipe.class_weights == "balanced":
        said += "; an image of a small class counts more, so that each class is even"
    elif high >= UNEVEN * low:
        said += (
            f"; the largest class has {high / low:.0f} times the smallest: "
            f"{option('class_weights', 'balanced')} counts each class the same"
        )
    validate = counts.get("val", 0)
    if not 0 < validate < 1000:
        return said
    points = min(98 / math.sqrt(validate), 100)  # 95 % of a proportion, at its widest
    return f"{said}; on {validate:,} images a figure is sure to {points:.0f} points or less"
