"""The recipe: all settings that determine the result of a training, in one frozen dataclass.

Together with the data it determines the result. Each field is also a flag of the command line
(`batch_size` is `--batch-size`), and all fields are checked on construction.
"""

import dataclasses
import hashlib
import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, cast

from alexnet.errors import UsageError, did_you_mean
from alexnet.support.argument_checks import Range, check_argument, quote_value
from alexnet.support.options import option

Precision = Literal["auto", "fp32", "bf16"]
Normalize = Literal["std", "mean", "image", "centre", "torchvision"]


def _f(default: Any, help: str, **metadata: Any) -> Any:
    """A field with its help text. In `metadata`: `flags`, where they differ from the field's name;
    `free`, where the field does not affect the result; `later`, where the field is younger than the
    first runs, so that its default does not change their digests."""
    return field(default=default, metadata={"help": help, **metadata})


# Retired networks and their successors: runs that have them go on, new trainings refuse them.
RETIRED_MODELS = {"fast-128": "patch-128", "wide-32": "fast-32"}


def retired_line(name: str) -> str:
    """The message that refuses a retired network for a new training, with its successor."""
    new = RETIRED_MODELS[name]
    return (
        f"the network {name} is retired, since {new} is at least as accurate in the same time: "
        f"train with {option('model', new)}; runs that have {name} still load, test and continue"
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training. Durations are in epochs unless the name of a field says steps."""

    name: str = _f("custom", "name of the recipe, and of its runs")
    model: str = _f("alexnet-28", "network, see `alexnet recipes`")
    data: str = _f("digits", "data set name or folder", flags=())
    about: str = _f("", "one sentence on what to expect", flags=())

    channels: int = _f(3, "image channels the network sees: 1 grey, 3 RGB")
    size: int = _f(32, "stored image: shorter side, then centre square, pixels")
    orient: Literal["apply", "ignore"] = _f(
        "ignore",
        "EXIF orientation of image files: apply turns photos upright, as viewers do, in training "
        "and wherever the weights are used; ignore reads them as they are stored",
        later=True,
    )
    crop: int = _f(32, "network input, pixels; if below size, training crops at random")
    val_fraction: float = _f(0.1, "fraction of train that is held out for decisions")
    test_fraction: float = _f(0.2, "fraction held out for test, where the data has no test part")
    split_seed: int = _f(
        0, "seed of the splits, separate from seed, so that seeds share a test set"
    )

    normalize: Literal["std", "mean", "image", "centre", "torchvision"] = _f(
        "std",
        "std: subtract the channels' mean and divide by their standard deviation; mean: only "
        "subtract the mean; image: subtract the mean image before cropping (paper, section 2); "
        "centre: subtract its centre after cropping (2012 code); torchvision: its constants",
        later=True,
    )

    shift: int = _f(0, "augment: move by up to this many pixels (zero padding)")
    flip: bool = _f(False, "augment: mirror left-right, with probability one half")
    flip_rule: Literal["random", "alternate"] = _f(
        "random",
        "random: each epoch by itself; alternate: in every other epoch, the first one at random",
        later=True,
    )
    rotate: float = _f(0.0, "augment: rotate by up to this many degrees")
    scale: float = _f(0.0, "augment: zoom by up to this fraction, each axis independently")
    cutout: int = _f(0, "augment: grey out a square with this side, pixels")
    area: float = _f(
        1.0, "augment: crop at least this fraction of the image, sides 3:4 to 4:3", later=True
    )
    crop_chunk: int = _f(
        1, "augment: consecutive images that share one crop and flip (2012 code: 32)", later=True
    )
    colour: float = _f(
        0.0, "augment: standard deviation of PCA colour noise (paper, section 4.1: 0.1)", later=True
    )
    colour_rule: Literal["paper", "code"] = _f(
        "paper",
        "paper: noise times the eigenvalue; code: times its root, and the image divided by 1.1",
        later=True,
    )
    colour_until: float = _f(0.0, "epoch at which colour noise ends; 0: never", later=True)
    mixup: float = _f(
        0.0,
        "augment: fraction of batches blended with a permutation of themselves",
        later=True,
    )
    cutmix: float = _f(
        0.0, "augment: fraction of batches that get a rectangle of another image", later=True
    )

    dropout: float | None = _f(None, "replaces all dropout rates of the network")
    epochs: float = _f(10.0, "passes over the training images", flags=("--epochs",))
    steps: int | None = _f(None, "optimiser updates; replaces epochs")
    batch_size: int = _f(128, "images per update", flags=("-b", "--batch-size"))
    accumulate: int = _f(
        1,
        "micro-batches that a batch is cut into; gradients are summed, batch norms see one of them",
        later=True,
    )
    opt: Literal["sgd", "adam", "adamw"] = _f("sgd", "sgd is the paper's update, section 5")
    lr: float = _f(0.01, "peak learning rate")
    lr_batch: int = _f(
        0,
        "batch size that lr is for; another one scales lr in proportion; 0: no scaling",
        later=True,
    )
    trust: float = _f(
        0.0,
        "sgd: step of a layer relative to its weights' norm (LARS: 0.001); 0: off",
        later=True,
    )
    momentum: float = _f(0.9, "sgd only")
    weight_decay: float = _f(5e-4, "L2 term (adamw: decoupled)")
    decay_biases: bool = _f(False, "decay biases and norm parameters too")
    bias_lr: float = _f(1.0, "learning rate of biases, relative to that of weights", later=True)
    part_lr: tuple[str, ...] = _f(
        (),
        "learning rates of parts, relative to lr: fc8=10, or conv1=0.1@67 from epoch 67",
        later=True,
    )
    freeze: tuple[str, ...] = _f((), "parts that are not trained: conv1..conv5", later=True)
    class_weights: Literal["none", "balanced"] = _f(
        "none",
        "balanced: images of rare classes count more, so that all classes count the same",
        later=True,
    )
    label_smoothing: float = _f(0.0, "fraction of the target that is spread over all classes")
    schedule: Literal["constant", "steps", "cosine", "onecycle", "plateau", "poly"] = _f(
        "cosine", "learning rate as a function of the step"
    )
    warmup_epochs: float = _f(0.0, "linear rise to lr at the start")
    drops: tuple[float, ...] = _f((), "epochs at which schedule steps multiplies lr by lr_factor")
    lr_factor: float = _f(0.1, "factor by which schedules steps and plateau multiply lr")
    final_lr: float = _f(0.0, "last learning rate of cosine and onecycle, as a fraction of lr")
    plateau_patience: int = _f(3, "validations without improvement before plateau drops lr")
    plateau_drops: int = _f(3, "drops before plateau stops the run (paper: three)")
    early_stop: int = _f(0, "stop after this many validations without improvement; 0: never")

    precision: Literal["auto", "fp32", "bf16"] = _f(
        "auto", "matrix work in fp32 or bf16 (weights stay fp32); auto: bf16 where it is fast"
    )
    whiten: bool = _f(
        False,
        "start the first convolution with filters that whiten patches of the training images: its "
        "outputs are uncorrelated and of equal variance (--freeze conv1 keeps them so)",
        later=True,
    )
    views: int = _f(1, "views of an image in validation: 1, or 2 with its mirror image", later=True)
    channels_last: bool = _f(True, "memory layout channels last; results agree up to rounding")
    compile: bool = _f(
        False, "compile training steps with torch.compile; results agree up to rounding", later=True
    )
    seed: int = _f(0, "seed of weights, order, augmentation and dropout")
    eval_every: float = _f(1.0, "validate every so many epochs")
    eval_batch: int = _f(500, "images per forward pass in validation and test")
    log_every: int = _f(20, "steps between log lines")
    save_every: int = _f(0, "steps between checkpoints; 0: at every validation")
    keep: int = _f(2, "number of newest checkpoints to keep, beside the best", free=True)
    workers: int = _f(2, "threads that read images", flags=("-j", "--workers"), free=True)
    memory_gib: float = _f(
        2.0,
        "a split whose pixels need at most this many GiB is decoded once and kept in memory; a "
        "larger one is decoded as it is used; 0: every split is",
        later=True,
    )
    bad_images: Literal["stop", "skip"] = _f(
        "stop",
        "where an image cannot be read: stop saves and stops; skip leaves it out and names it",
        free=True,
    )
    bad_share: float = _f(
        0.01,
        "fraction of a split that bad_images skip may leave out; at least one image",
        free=True,
    )
    wait_for_data: float = _f(
        30.0, "seconds to wait for a folder that is missing, such as a network drive", free=True
    )

    def __post_init__(self) -> None:
        for name, value in check_fields(vars(self)).items():
            object.__setattr__(self, name, value)
        self._check_parts()
        _refuse_contradictions(self)

    def _check_parts(self) -> None:
        for entry in self.part_lr:
            _require(bool(_PART_LR.fullmatch(entry)), "part_lr", entry, "like fc8=10 or conv1=0@72")
        changes = [(part, epoch) for part, _, epoch in self.part_rates]
        _require(
            len(set(changes)) == len(changes), "part_lr", self.part_lr, "each part once an epoch"
        )
        for entry, (_, factor, _) in zip(self.part_lr, self.part_rates, strict=True):
            _require(math.isfinite(factor), "part_lr", entry, "a finite factor")
        for entry in self.freeze:
            _require(bool(_PARTS.fullmatch(entry)), "freeze", entry, "like conv1 or conv1..conv5")

    @property
    def peak_lr(self) -> float:
        """The highest learning rate: `lr`, scaled from `lr_batch` to this batch size."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr

    @property
    def digest(self) -> str:
        """The sha256 over all fields that can affect the result (16 hex digits).

        `later` fields count only where they differ from their default, so that the digests of older
        runs stay valid.
        """
        relevant = {
            name: value
            for name, value in self.to_dict().items()
            if name not in _FREE and value != _LATER_DEFAULTS.get(name, ...)
        }
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`. Raises UsageError for an unknown field or a wrong type."""
        return Recipe().replace(**values)

    @property
    def part_rates(self) -> list[tuple[str, float, float]]:
        """The entries of `part_lr` as (part, factor, first epoch)."""
        matches = [_PART_LR.fullmatch(entry) for entry in self.part_lr]
        return [(match[1], float(match[2]), float(match[3] or 0)) for match in matches if match]

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with changed fields. Raises UsageError for an unknown name, with the nearest
        one."""
        for key in changes:
            if key not in _HINTS:
                raise UsageError(f"unknown recipe field {key!r:.80}{did_you_mean(key, _HINTS)}")
        return dataclasses.replace(self, **changes)

    def adapted(self, changes: Mapping[str, Any], weights: bool = False) -> "Recipe":
        """A copy with the fields that a user changed.

        A recipe whose first layer whitens the images (`whiten`, `freeze`) is for its own network
        from its start. With another network, or with initial `weights`, these two fields get their
        defaults, unless they are among the changes.
        """
        changed = self.replace(**changes)
        if self.whiten and (weights or changed.model != self.model):
            defaults = {"whiten": False, "freeze": ()}
            changed = changed.replace(**{k: v for k, v in defaults.items() if k not in changes})
        return changed

    def conflicts(self, other: "Recipe") -> list[str]:
        """The names of the fields that differ between two recipes and can affect the result."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [k for k in mine if mine[k] != theirs[k] and k not in _FREE]


class RecipeOverrides(TypedDict, total=False):
    """The fields of a recipe that a call may replace, as `epochs=20`; data is a separate argument.
    A test keeps them equal to those of Recipe."""

    name: str
    model: str
    about: str
    channels: int
    size: int
    orient: Literal["apply", "ignore"]
    crop: int
    val_fraction: float
    test_fraction: float
    split_seed: int
    normalize: Literal["std", "mean", "image", "centre", "torchvision"]
    shift: int
    flip: bool
    flip_rule: Literal["random", "alternate"]
    rotate: float
    scale: float
    cutout: int
    area: float
    crop_chunk: int
    colour: float
    colour_rule: Literal["paper", "code"]
    colour_until: float
    mixup: float
    cutmix: float
    dropout: float | None
    epochs: float
    steps: int | None
    batch_size: int
    accumulate: int
    opt: Literal["sgd", "adam", "adamw"]
    lr: float
    lr_batch: int
    trust: float
    momentum: float
    weight_decay: float
    decay_biases: bool
    bias_lr: float
    part_lr: tuple[str, ...] | list[str]
    freeze: tuple[str, ...] | list[str]
    class_weights: Literal["none", "balanced"]
    label_smoothing: float
    schedule: Literal["constant", "steps", "cosine", "onecycle", "plateau", "poly"]
    warmup_epochs: float
    drops: tuple[float, ...] | list[float]
    lr_factor: float
    final_lr: float
    plateau_patience: int
    plateau_drops: int
    early_stop: int
    precision: Precision
    whiten: bool
    views: int
    channels_last: bool
    compile: bool
    seed: int
    eval_every: float
    eval_batch: int
    log_every: int
    save_every: int
    keep: int
    workers: int
    memory_gib: float
    bad_images: Literal["stop", "skip"]
    bad_share: float
    wait_for_data: float


def check_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values of recipe fields, each converted to its type: lists to tuples, whole numbers to
    float, numbers of NumPy to plain ones. UsageError for one that its field does not take."""
    checked = {}
    for name, value in fields.items():
        checked[name] = check_argument(name, value, _HINTS[name], _RANGES.get(name, Range(low=0)))
    if "name" in checked:
        expected = "letters, digits, -, _ and . only, a letter or digit first"
        _require(bool(_NAME.fullmatch(checked["name"])), "name", checked["name"], expected)
    if "channels" in checked:
        _require(checked["channels"] in (1, 3), "channels", checked["channels"],
                 "1 (grey) or 3 (RGB)")  # fmt: skip
    return checked


def check_overrides(
    fields: RecipeOverrides, function: str, options: Iterable[str]
) -> RecipeOverrides:
    """The recipe fields of a call, converted. UsageError for a keyword that is no field of a
    recipe, with the nearest field or other option of the function."""
    for name in fields:
        if name not in _HINTS:
            hint = did_you_mean(name, [*_HINTS, *options], f"help(alexnet.{function})")
            raise UsageError(f"{function} takes no {name!r:.80}{hint}")
    return cast(RecipeOverrides, check_fields(fields))


def _refuse_contradictions(recipe: Recipe) -> None:
    """Raise UsageError where fields contradict each other, with their values and a remedy. Each
    field by itself is valid already."""
    if recipe.crop > recipe.size:
        raise UsageError(
            f"crop {recipe.crop} is larger than size {recipe.size}: store larger images "
            f"({option('size', recipe.crop)}) or cut smaller ones ({option('crop', recipe.size)})"
        )
    if recipe.drops and recipe.schedule != "steps":
        raise UsageError(
            f"drops {recipe.drops} have no effect in schedule {recipe.schedule}: use "
            f"{option('schedule', 'steps')}, or leave out drops"
        )
    if recipe.schedule == "steps" and not recipe.drops:
        raise UsageError(
            "schedule steps needs the epochs of its drops: add them, as "
            f"{option('drops', (20, 30))}"
        )
    if list(recipe.drops) != sorted(set(recipe.drops)):
        raise UsageError(f"drops {recipe.drops} are not in order: use rising epochs, each once")
    if recipe.schedule != "onecycle" and 0 < recipe.epochs <= recipe.warmup_epochs:
        raise UsageError(
            f"warmup_epochs {recipe.warmup_epochs} leaves nothing of {recipe.epochs} epochs: "
            f"use fewer, or train longer ({option('epochs')})"
        )
    displacing = [name for name in ("shift", "rotate", "scale") if getattr(recipe, name)]
    displacing += ["area"] * (recipe.area < 1)
    if recipe.normalize == "image" and displacing:
        raise UsageError(
            f"normalize image subtracts the mean image pixel by pixel, and {displacing[0]} moves "
            f"the pixels: use {option('normalize', 'mean')}"
        )
    if recipe.mixup + recipe.cutmix > 1:
        raise UsageError(
            f"mixup {recipe.mixup} and cutmix {recipe.cutmix} are fractions of the batches, and "
            "their sum is more than 1: lower one"
        )
    if recipe.colour and recipe.channels == 1:
        raise UsageError(
            f"colour {recipe.colour} needs colours, and grey images have none: use "
            f"{option('colour', 0)}, or {option('channels', 3)}"
        )
    if recipe.flip_rule == "alternate" and recipe.crop_chunk > 1:
        raise UsageError(
            f"flip_rule alternate mirrors each image in turn, and crop_chunk {recipe.crop_chunk} "
            f"images share a flip: use {option('flip_rule', 'random')}, or "
            f"{option('crop_chunk', 1)}"
        )
    if recipe.accumulate > recipe.batch_size:
        raise UsageError(
            f"accumulate {recipe.accumulate} cuts a batch of {recipe.batch_size} images into more "
            "parts than it has images: lower it"
        )
    if recipe.compile and recipe.accumulate > 1:  # dropout's masks depend on the micro-batch
        raise UsageError(
            f"compile works with whole batches only, and accumulate is {recipe.accumulate}: leave "
            "one out"
        )
    if recipe.trust and recipe.opt != "sgd":
        raise UsageError(
            f"trust {recipe.trust} (LARS) works with {option('opt', 'sgd')} only, and opt is "
            f"{recipe.opt}: leave one out"
        )
    if recipe.cutout >= recipe.crop:
        raise UsageError(
            f"cutout {recipe.cutout} hides the whole {recipe.crop}-pixel image: lower it"
        )
    if recipe.shift >= recipe.crop:
        raise UsageError(
            f"shift {recipe.shift} can move the whole {recipe.crop}-pixel image away: lower it"
        )


def _require(ok: bool, name: str, value: Any, expected: str) -> None:
    if not ok:
        raise UsageError(f"{name} is {quote_value(value)}; it must be {expected}")


_COUNT, _SEED = Range(low=1, high=10**9), Range(low=0, below=2**63)
_FRACTION, _PART = Range(low=0, high=1), Range(low=0, below=1)
_RANGES = {
    **dict.fromkeys(("crop", "batch_size", "eval_batch", "log_every", "keep"), _COUNT),
    **dict.fromkeys(("crop_chunk", "accumulate", "steps"), _COUNT),
    **dict.fromkeys(("momentum", "label_smoothing", "scale", "lr_factor", "dropout"), _PART),
    **dict.fromkeys(("mixup", "cutmix", "bad_share"), _FRACTION),
    **dict.fromkeys(("val_fraction", "test_fraction"), Range(above=0, below=1)),
    **dict.fromkeys(("seed", "split_seed"), _SEED),
    **dict.fromkeys(("epochs", "eval_every"), Range(above=0, high=10**9)),
    "lr": Range(above=0),
    "area": Range(above=0, high=1),
    "size": Range(low=1, high=4096),
    "views": Range(low=1, high=2),
    "workers": Range(low=0, high=1024),
}


_NAME = re.compile(r"\w[\w.-]{0,99}")
_PART_LR = re.compile(r"([a-z]+[0-9]+)=([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)(?:@([0-9]*\.?[0-9]+))?")
_PARTS = re.compile(r"[a-z]+[0-9]+(\.\.[a-z]+[0-9]+)?")
_HINTS = typing.get_type_hints(Recipe)
_FREE = {f.name for f in fields(Recipe) if f.metadata.get("free")} | {"about"}
_DEFAULTS = Recipe().to_dict()
_LATER_DEFAULTS = {f.name: _DEFAULTS[f.name] for f in fields(Recipe) if f.metadata.get("later")}
