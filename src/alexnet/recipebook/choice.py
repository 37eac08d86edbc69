"""A recipe for data that came without one: what the data is and how fast this machine is, to a
recipe and the reasons for it. Nothing is read or measured here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alexnet.errors import DataError, UsageError
from alexnet.models.layers import BatchNorm, Linear
from alexnet.models.net import named_parts
from alexnet.models.zoo import find_model, model_spec
from alexnet.recipe import Recipe
from alexnet.recipebook.imagenet import modern
from alexnet.recipebook.small import cifar10, digits, fashion_mnist, imagenette, mnist, photos
from alexnet.terminal import duration

SMALL = 40  # pixels up to which images are seen as they are
BIG = 96  # pixels beyond which a packed set is for the network of 224
MINUTES = 20.0
TRAINING = 0.75  # of the time given: validation, the look before and the page after have the rest
RUNGS = (  # crop, size and network for photos, the cheapest first
    (32, 36, "fast-32"),
    (48, 54, "fast-32"),
    (64, 72, "fast-32"),
    (128, 144, "fast-128"),
    (224, 256, "alexnet-bn"),
)
# Grey images often are characters, which a mirror changes.
CHARACTERS = {"channels": 1, "flip": False, "rotate": 10, "scale": 0.1, "cutout": 0, "area": 1}
UNEVEN = 3  # times the smallest class, from which on the largest is worth a word

Pace = Callable[[Recipe], float]


@dataclass(frozen=True)
class Look:
    """What data is, from labels, headers and folder names alone.

    `counts` are the images of each class in the part that is trained on; `sides` the smallest, the
    median and the largest shorter side in pixels; `channels` 1 where all are grey; `held` the parts
    that exist beside it; `read_s` the seconds that reading an image takes.
    """

    where: str
    kind: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    sides: tuple[int, int, int]
    channels: int
    mixed: bool = False
    held: tuple[str, ...] = ()
    read_s: float = 0.0

    @property
    def images(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Choice:
    """A recipe, and five lines that say why it is this one."""

    recipe: Recipe
    reasons: tuple[str, str, str, str, str]


def choose(
    look: Look,
    pace: Pace,
    *,
    minutes: float = MINUTES,
    inherited: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Choice:
    """The recipe for what `look` says, in about `minutes` at `pace` (recipe -> images/s trained).

    `inherited` is what comes with weights to start from (model, size ...): it is then fine-tuned;
    `fields` are the user's own and stay as they are. Of several resolutions the largest is taken
    at which enough epochs fit. `pace` is asked for the smallest first, and for a larger one only
    while the ones before left room. DataError where a class is too small to be split.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise UsageError(f"--minutes {minutes:g}: give a time above 0, as --minutes 20")
    given, own = dict(inherited or {}), dict(fields or {})
    _refuse_few(look)
    candidates, faults = [], []
    for candidate in _fine_tuning(look, given, own) if given else _candidates(look):
        try:
            candidate = _sized(candidate, look).replace(**{**given, **own})
            if not (candidate.flip or "views" in own):  # a mirror image would be another thing
                candidate = candidate.replace(views=1)
            candidates.append(candidate)
        except UsageError as fault:  # such as a crop that this resolution does not hold
            faults.append(fault)
    if not candidates:
        raise faults[0]
    kept, heard = candidates[0], []
    seconds = 60 * minutes * TRAINING - look.images * look.read_s
    for candidate in candidates:  # the smallest first
        fits = max(seconds, 1.0) * (rate := pace(candidate)) / _train_images(look, candidate)
        heard.append((candidate, rate, fits))
        if fits < (_wanted(look, candidate) if candidate is not candidates[0] else 0):
            break
        kept = candidate
        if fits < 1.5 * _wanted(look, candidate):
            break
    rate, fits = next((r, f) for c, r, f in heard if c is kept)
    recipe = _timed(kept, look, fits, own)
    return Choice(
        recipe,
        (
            _say_data(look, recipe),
            _say_network(heard, kept, look, minutes, given, kept is not candidates[-1]),
            _say_augmentation(recipe),
            _say_length(recipe, look, rate, fits, minutes, own),
            _say_splits(look, recipe),
        ),
    )


def _candidates(look: Look) -> list[Recipe]:
    """Recipes by what the images are, the cheapest first."""
    side = look.sides[1]
    if look.kind in ("digits", "cifar10"):
        return [digits() if look.kind == "digits" else cifar10()]
    if look.kind == "idx" and side <= SMALL:
        return [fashion_mnist() if "Sneaker" in look.classes else mnist()]
    packed = look.kind == "packed"
    if side <= SMALL:
        shown = side if packed else max(side, 28)
        small = mnist() if look.channels == 1 else photos().replace(batch_size=64, cutout=0)
        return [
            small.replace(
                name=f"images-{shown}", about=_about(shown), data="", size=shown, crop=shown,
                shift=shown // 8, epochs=20,
            )
        ]  # fmt: skip
    if packed:
        crop = side * 7 // 8
        return [_photos(crop, side, look.channels, "alexnet-bn" if side > BIG else "fast-32")]
    # Enlarged images show nothing more.
    fitting = [rung for rung in RUNGS if rung[0] <= side]
    return [_photos(crop, size, look.channels, model) for crop, size, model in fitting]


def _photos(crop: int, size: int, channels: int, model: str) -> Recipe:
    """At a resolution, the recipe whose network is made for it; that of digits for small grey ones,
    which costs a third of the time."""
    if model == "fast-32":
        grey = mnist().replace(data="", shift=0)
        base = grey if channels == 1 and crop < 64 else photos().replace(cutout=crop // 4)
    else:
        base = imagenette() if model == "fast-128" else modern()
    base = base.replace(
        name=f"photos-{crop}", about=_about(crop), size=size, crop=crop, eval_batch=100,
        log_every=10,
    )  # fmt: skip
    return base.replace(**CHARACTERS) if channels == 1 else base


def _fine_tuning(look: Look, given: Mapping[str, Any], own: Mapping[str, Any]) -> list[Recipe]:
    """Given weights: a lower rate, the new last layer ten times as fast, few epochs."""
    merged = {**given, **own}
    preset = find_model(merged["model"])
    crop = int(merged.get("crop", preset.size))
    size = int(merged.get("size", crop if crop <= SMALL else round(crop * 8 / 7)))
    spec = named_parts(
        model_spec(merged["model"], len(look.classes), (preset.channels, crop, crop))
    )
    head = [name for name, part in spec if isinstance(part, Linear)][-1]
    rate = 3e-4 if any(isinstance(part, BatchNorm) for _, part in spec) else 1e-4
    small = crop <= SMALL
    return [
        Recipe(
            name="fine-tuned",
            about=f"fine-tuning of given weights, chosen for {crop} pixels",
            data="",
            model=merged["model"],
            channels=preset.channels,
            size=size,
            crop=crop,
            shift=crop // 16 if small else 0,
            flip=look.channels == 3,
            opt="adamw",
            lr=rate,
            weight_decay=0.05,
            label_smoothing=0.1,
            part_lr=(f"{head}=10",),
            schedule="onecycle",
            epochs=15,
            eval_batch=500 if small else 100,
            log_every=10,
        )
    ]


def _about(side: int) -> str:
    return f"Chosen for a folder of images, seen at {side} pixels."


def _refuse_few(look: Look) -> None:
    needed = 3 - len(set(look.held) & {"val", "test"})
    smallest = min(look.counts)
    if smallest < needed:
        name = look.classes[look.counts.index(smallest)]
        where = "train, validation and test" if needed == 3 else "train and validation"
        raise DataError(
            f"{look.where}: class {name!r} has {smallest} image(s), and {where} need one each: "
            f"add {needed - smallest} or more, or take the class out"
        )


def _sized(recipe: Recipe, look: Look) -> Recipe:
    """Splits and batch as a small set needs them."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10") and look.images >= 2000:
        return recipe
    if look.images < 2000:
        recipe = recipe.replace(val_fraction=0.2)
    few = max(2, _train_images(look, recipe) // 6)
    batch = max(b for b in (2, 4, 8, 16, 32, 64, 128) if b <= min(few, recipe.batch_size))
    return recipe.replace(batch_size=batch)


def _train_images(look: Look, recipe: Recipe) -> int:
    """How many are left to train on, as `Dataset` cuts them (up to rounding in each class)."""
    left = float(look.images)
    if not look.held:
        left *= 1 - recipe.test_fraction
    if not {"val", "test"} <= set(look.held):
        left *= 1 - recipe.val_fraction
    return max(round(left), len(look.counts))


def _wanted(look: Look, recipe: Recipe) -> float:
    """Epochs that are enough: a small set is seen more often, for there is less in an epoch."""
    if recipe.name in ("digits", "mnist", "fashion-mnist", "cifar10", "fine-tuned"):
        return recipe.epochs
    return min(60, max(15, round(12_000 / _train_images(look, recipe))))


def _timed(recipe: Recipe, look: Look, fits: float, own: Mapping[str, Any]) -> Recipe:
    """Epochs that fit, at most twice what is enough for photos; and when to stop before."""
    if not {"epochs", "steps"} & own.keys():
        most = _wanted(look, recipe)
        if recipe.name.startswith("photos"):
            most *= 2
        fits = fits if fits < 3 else math.floor(fits)
        recipe = recipe.replace(epochs=max(min(most, fits), 0.1))
    every = max(1.0, round(recipe.epochs / 30)) if recipe.epochs >= 1 else recipe.epochs
    changes: dict[str, Any] = {"eval_every": every}
    if look.images < 20_000 and recipe.epochs >= 10:
        # The rate of one cycle falls for two thirds of it, and the best often comes at its end.
        changes["early_stop"] = max(5, math.ceil(0.4 * recipe.epochs / every))
    return recipe.replace(**{k: v for k, v in changes.items() if k not in own})


def _say_data(look: Look, recipe: Recipe) -> str:
    low, high = min(look.counts), max(look.counts)
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    small, middle, large = look.sides
    pixels = f"{middle}" if small == large else f"{small} to {large} (median {middle})"
    colour = "grey" if look.channels == 1 else "grey and colour" if look.mixed else "colour"
    return (
        f"data: {look.where or look.kind}: {look.images:,} images to learn from, "
        f"{len(look.counts):,} classes of {each}, shorter side {pixels} pixels, {colour}"
    )


def _say_learning(kept: Recipe) -> str:
    said = f"{' and '.join(kept.freeze)} stay as given" if kept.freeze else "all learn"
    factors = [
        f"{part} {factor:g} times as fast{f' from epoch {since:g}' if since else ''}"
        for part, factor, since in kept.part_rates
    ]
    return ", ".join([said, *factors])


def _say_network(
    heard: list[tuple[Recipe, float, float]],
    kept: Recipe,
    look: Look,
    minutes: float,
    given: Mapping[str, Any],
    more: bool,
) -> str:
    rate = next(rate for recipe, rate, _ in heard if recipe is kept)
    said = f"network: {kept.model} at {kept.crop} pixels, {rate:,.0f} images/s here"
    if given:
        return f"{said}, as the given weights have it; {_say_learning(kept)}"
    beyond, slower, fits = heard[-1]
    if beyond is not kept:
        return (
            f"{said}; {beyond.crop} pixels would be {slower:,.0f} images/s, {fits:.0f} epochs in "
            f"{minutes:g} min, and {_wanted(look, beyond):.0f} are needed"
        )
    if more:
        return f"{said}; more pixels would not fit into {minutes:g} min"
    largest = kept.crop >= 224 and look.sides[1] > 256
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
        "no mirrors, which would change characters (--flip where they do not)"
    )  # fmt: skip
    return f"augmentation: {said}; {why}"


def _say_length(
    recipe: Recipe, look: Look, rate: float, fits: float, minutes: float, own: Mapping[str, Any]
) -> str:
    n = _train_images(look, recipe)
    per_epoch = max(n // recipe.batch_size, 1)
    steps = recipe.steps or math.ceil(recipe.epochs * per_epoch)
    said = (
        f"length: {steps / per_epoch:.3g} epochs, {steps:,} steps of {recipe.batch_size}, about "
        f"{duration(steps * recipe.batch_size / rate / TRAINING + n * look.read_s)}"
    )
    if {"epochs", "steps"} & own.keys():
        return f"{said}, as asked"
    if recipe.epochs < 0.5 * (wanted := _wanted(look, recipe)):
        needed = minutes * wanted / max(fits, 0.01)
        return f"{said}; {wanted:.0f} epochs would be better: --minutes {math.ceil(needed)}"
    early = f"; ends after {recipe.early_stop} validations without a better one"
    return f"{said} of the {minutes:g} min" + (early if recipe.early_stop else "")


def _say_splits(look: Look, recipe: Recipe) -> str:
    held = set(look.held)
    shares = [] if held else [f"{recipe.test_fraction:.0%} for test"]
    if not {"val", "test"} <= held:
        shares.append(f"{recipe.val_fraction:.0%} to validate")
    cut = f"{' and '.join(shares)} held out class by class" if shares else "as the data has them"
    low, high = min(look.counts), max(look.counts)
    if recipe.class_weights == "balanced":
        return f"splits: {cut}; an image of a small class counts more, so that each class is even"
    if high >= UNEVEN * low:
        return (
            f"splits: {cut}; the largest class has {high / low:.0f} times the smallest: "
            "--class-weights balanced counts each class the same"
        )
    learning = look.images * (1 if held else 1 - recipe.test_fraction)
    validate = round(learning * recipe.val_fraction)
    if not shares or validate >= 1000:
        return f"splits: {cut}"
    error = 0.98 / math.sqrt(max(validate, 1))  # 95 % of a proportion, at its widest
    return f"splits: {cut}; on {validate:,} images a figure is sure to {min(error, 1):.0%} or less"
