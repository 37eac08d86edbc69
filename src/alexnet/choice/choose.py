"""Chooses among the candidates by the time that each takes on this machine, and gives the reasons.
Nothing is read or measured here."""

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
from alexnet.recipe import Recipe
from alexnet.support.options import option
from alexnet.support.terminal import duration

MINUTES = 20.0
TRAINING = 0.75  # of the minutes; validation, the doctor and the report have the rest
UNEVEN = 3  # ratio of the largest to the smallest class from which a reason mentions it

Pace = Callable[[Recipe], float]


Reasons = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Choice:
    """A recipe and the grounds on which it was chosen.

    `timed` has (recipe, images/s, epochs that fit) for each candidate that was timed, the cheapest
    first; `kept` is the chosen one, and `recipe` the same with its epochs. `inherited` are fields
    of the initial weights, `fields` the user's own. `larger`: whether more pixels were possible.
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
        """The reasons for the recipe, five lines. `counts` are the images of each split that the
        data set cut from its training part, and of validation."""
        return (
            _data_reason(self.summary),
            _network_reason(self),
            _augmentation_reason(self.recipe),
            _length_reason(self, counts["train"]),
            _splits_reason(self, counts),
        )

    @property
    def reasons(self) -> Reasons:
        """The reasons with planned counts, which ignore that copies stay together."""
        return self.explain(plan_splits(self.summary, self.recipe))


def choose_recipe(
    summary: DataSummary,
    pace: Pace,
    *,
    minutes: float = MINUTES,
    inherited: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Choice:
    """Choose a recipe that trains in about `minutes` at `pace` (recipe -> images/s trained).

    `inherited` are the fields of initial weights (model, size ...), which are then fine-tuned;
    `fields` are the user's own and stay unchanged. The choice is the largest resolution at which
    enough epochs fit. `pace` is called for the smallest first, and for a larger one only while the
    smaller ones left time. DataError where a class is too small to be split.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise UsageError(
            f"{option('minutes', minutes)}: use a time above 0, as {option('minutes', 20)}"
        )
    inherited, own = dict(inherited or {}), dict(fields or {})
    _refuse_few(summary)

    def fitted(candidate: Recipe) -> Recipe:
        recipe = _sized(candidate, summary).adapted({**inherited, **own}, bool(inherited))
        model_spec(recipe.model, len(summary.classes), (recipe.channels, recipe.crop, recipe.crop))
        # Without mirrored training images, a mirrored view would show another thing.
        return recipe if recipe.flip or "views" in own else recipe.replace(views=1)

    possible, faults = [], []
    for candidate in fine_tuning(summary, inherited, own) if inherited else candidates(summary):
        try:
            possible.append(fitted(candidate))
        except UsageError as fault:  # such as a crop that this resolution does not hold
            faults.append(fault)
    whole = all(type(own.get(name, 1)) is int for name in ("size", "crop"))
    if not possible and "model" in own and not inherited and whole:
        possible = [fitted(at_own_size(summary, own))]
    if not possible:
        raise faults[0]
    kept, timed = possible[0], []
    seconds = 60 * minutes * TRAINING - summary.images * summary.read_s
    for candidate in possible:  # the smallest first
        fits = max(seconds, 1.0) * (rate := pace(candidate)) / _train_images(summary, candidate)
        timed.append((candidate, rate, fits))
        if fits < (_enough_epochs(summary, candidate) if candidate is not possible[0] else 0):
            break
        kept = candidate
        if fits < 1.5 * _enough_epochs(summary, candidate):
            break
    fits = next(f for c, _, f in timed if c is kept)
    recipe = _timed(kept, summary, fits, own)
    return Choice(recipe, summary, minutes, timed, kept, kept is not possible[-1], inherited, own)


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
    """The recipe with the splits and the batch size that a small set needs."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10") and summary.images >= 2000:
        return recipe
    if summary.images < 2000:
        recipe = recipe.replace(val_fraction=0.2)
    few = max(2, _train_images(summary, recipe) // 6)
    batch = max(b for b in (2, 4, 8, 16, 32, 64, 128) if b <= min(few, recipe.batch_size))
    return recipe.replace(batch_size=batch)


def plan_splits(summary: DataSummary, recipe: Recipe) -> dict[str, int]:
    """The number of images of each split that a data set cuts from its training part, class by
    class, if no copies have to stay together."""
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


def _enough_epochs(summary: DataSummary, recipe: Recipe) -> float:
    """The number of epochs that suffices: more for a small set, whose epochs are short."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10", "fine-tuned"):
        return recipe.epochs
    return min(60, max(15, round(12_000 / _train_images(summary, recipe))))


def _timed(recipe: Recipe, summary: DataSummary, fits: float, own: Mapping[str, Any]) -> Recipe:
    """The recipe with the epochs that fit, at most twice what suffices, and its early stop."""
    if not {"epochs", "steps"} & own.keys():
        most = _enough_epochs(summary, recipe)
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


def _data_reason(summary: DataSummary) -> str:
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


def _learning_text(kept: Recipe) -> str:
    reason = f"{' and '.join(kept.freeze)} stay as given" if kept.freeze else "all learn"
    factors = [
        f"{part} {factor:g} times as fast{f' from epoch {since:g}' if since else ''}"
        for part, factor, since in kept.part_rates
    ]
    return ", ".join([reason, *factors])


def _network_reason(choice: Choice) -> str:
    summary, kept, minutes = choice.summary, choice.kept, choice.minutes
    rate = next(rate for recipe, rate, _ in choice.timed if recipe is kept)
    reason = f"network: {kept.model} at {kept.crop} pixels, {rate:,.0f} images/s here"
    if choice.inherited:
        return f"{reason}, as the given weights have it; {_learning_text(kept)}"
    beyond, slower, fits = choice.timed[-1]
    if beyond is not kept:
        return (
            f"{reason}; {beyond.crop} pixels would be {slower:,.0f} images/s, {fits:.0f} epochs in "
            f"{minutes:g} min, and {_enough_epochs(summary, beyond):.0f} are needed"
        )
    if kept.crop > max(summary.sides[1], SMALL):
        least = least_crop(kept.model, len(summary.classes), kept.channels)
        why = f": it takes {least} and more" if least > summary.sides[1] else ""
        return f"{reason}, to which images of {summary.sides[1]} are enlarged{why}"
    if choice.larger:
        return f"{reason}; more pixels would not fit into {minutes:g} min"
    if summary.images < MANY and kept.crop == 128 and summary.sides[1] >= 224:
        return f"{reason}; 224 pixels are for {MANY:,} images or more"
    largest = kept.crop >= 224 and summary.sides[1] > 256
    return f"{reason}; {'the most that is tried' if largest else 'the images have no more'}"


def _augmentation_reason(recipe: Recipe) -> str:
    parts = {
        "mirrors": recipe.flip,
        f"shifts of {recipe.shift} pixels": recipe.shift,
        f"crops of {recipe.crop} from {recipe.size}": recipe.crop < recipe.size,
        f"turns of {recipe.rotate:g} degrees": recipe.rotate,
        f"zoom of {recipe.scale:.0%}": recipe.scale,
        f"cut-outs of at least {recipe.area:.0%}": recipe.area < 1,
        f"grey squares of {recipe.cutout}": recipe.cutout,
    }
    reason = ", ".join(name for name, used in parts.items() if used) or "none"
    why = "a mirrored photo is the same thing" if recipe.flip else (
        f"no mirrors, which would change characters ({option('flip', True)} where they do not)"
    )  # fmt: skip
    return f"augmentation: {reason}; {why}"


def _length_reason(choice: Choice, n: int) -> str:
    recipe, summary, minutes = choice.recipe, choice.summary, choice.minutes
    rate, fits = next((r, f) for c, r, f in choice.timed if c is choice.kept)
    per_epoch = max(n // recipe.batch_size, 1)
    steps = recipe.steps or math.ceil(recipe.epochs * per_epoch)
    reason = (
        f"length: {steps / per_epoch:.3g} epochs, {steps:,} steps of {recipe.batch_size}, about "
        f"{duration(steps * recipe.batch_size / rate / TRAINING + n * summary.read_s)}"
    )
    if {"epochs", "steps"} & choice.fields.keys():
        return f"{reason}, as asked"
    if recipe.epochs < 0.5 * (enough := _enough_epochs(summary, recipe)):
        needed = minutes * enough / max(fits, 0.01)
        return (
            f"{reason}; {enough:.0f} epochs would be better: {option('minutes', math.ceil(needed))}"
        )
    early = f"; ends after {recipe.early_stop} validations without a better one"
    return f"{reason} of the {minutes:g} min" + (early if recipe.early_stop else "")


def _splits_reason(choice: Choice, counts: Mapping[str, int]) -> str:
    recipe, summary = choice.recipe, choice.summary
    cut = plan_splits(summary, recipe).keys() - {"train"}
    reason = f"splits: {counts['train']:,} images to train on"
    if "val" in counts:
        reason += f", {counts['val']:,} to validate"
    if "test" in counts:
        reason += f", {counts['test']:,} to test"
    reason += ", held out class by class" if cut else ", as the data has them"
    low, high = min(summary.counts), max(summary.counts)
    if recipe.class_weights == "balanced":
        reason += "; an image of a small class counts more, so that each class is even"
    elif high >= UNEVEN * low:
        reason += (
            f"; the largest class has {high / low:.0f} times the smallest: "
            f"{option('class_weights', 'balanced')} counts each class the same"
        )
    validate = counts.get("val", 0)
    if not 0 < validate < 1000:
        return reason
    points = min(98 / math.sqrt(validate), 100)  # 95 % of a proportion, at its widest
    return f"{reason}; on {validate:,} images a figure is sure to {points:.0f} points or less"
