"""A recipe: every number that decides what a training run computes, in one frozen value.

The recipe and the data determine the result; nothing else does. Fields are flat so that each is
one command-line flag (`batch_size` is `--batch-size`), and all are checked on construction.
"""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

from alexnet.errors import UsageError, did_you_mean
from alexnet.options import option

Precision = Literal["auto", "fp32", "bf16"]
Normalize = Literal["std", "mean", "image", "centre", "torchvision"]


def _f(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


# Networks that others superseded, and by which: runs that have them go on, new ones take others.
RETIRED_MODELS = {"fast-128": "patch-128", "wide-32": "fast-32"}


def retired_line(name: str) -> str:
    """Why no new training takes a retired network, and what to do."""
    new = RETIRED_MODELS[name]
    return (
        f"the network {name} is retired, since {new} is at least as accurate in the same time: "
        f"train with {option('model', new)}; runs that have {name} still load, test and continue"
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train, on what, and how. Durations are in epochs unless a name says steps."""

    name: str = _f("custom", "what the run is called")
    model: str = _f("alexnet-28", "network, see `alexnet recipes`")
    data: str = _f("digits", "data set name or folder", flags=())
    about: str = _f("", "one sentence on what to expect", flags=())

    channels: int = _f(3, "image channels the network sees: 1 grey, 3 RGB")
    size: int = _f(32, "stored image: shorter side, then centre square, pixels")
    orient: Literal["apply", "ignore"] = _f(
        "ignore",
        "EXIF orientation of image files: apply turns photos upright, as viewers do, in training "
        "and wherever the weights are used; ignore leaves them as they are stored",
        later=True,
    )
    crop: int = _f(32, "network input, pixels; below size it is cut out at random in training")
    val_fraction: float = _f(0.1, "share of train held out for every decision")
    test_fraction: float = _f(0.2, "share kept for test where the data has no test part")
    split_seed: int = _f(0, "seed of the splits; apart from seed, so that seeds share a test set")

    normalize: Literal["std", "mean", "image", "centre", "torchvision"] = _f(
        "std",
        "subtract the channels' mean and divide by their deviation (std); only subtract the "
        "channels' mean (mean), the mean image before cropping (image: paper, section 2), or its "
        "centre after cropping (centre: 2012 code); torchvision: its constants",
        later=True,
    )

    shift: int = _f(0, "augment: move by up to this many pixels (zero padding)")
    flip: bool = _f(False, "augment: mirror left-right, half of the time")
    flip_rule: Literal["random", "alternate"] = _f(
        "random",
        "alternate: an image is mirrored in every other epoch, and which it begins with is drawn",
        later=True,
    )
    rotate: float = _f(0.0, "augment: rotate by up to this many degrees")
    scale: float = _f(0.0, "augment: zoom by up to this fraction, each axis by itself")
    cutout: int = _f(0, "augment: grey out a square of this side, pixels")
    area: float = _f(
        1.0, "augment: cut out at least this share of the image, sides 3:4 to 4:3", later=True
    )
    crop_chunk: int = _f(
        1, "augment: images in a row that share one crop and flip (2012 code: 32)", later=True
    )
    colour: float = _f(
        0.0, "augment: deviation of PCA colour noise (paper, section 4.1: 0.1)", later=True
    )
    colour_rule: Literal["paper", "code"] = _f(
        "paper",
        "noise times the eigenvalue; code: its root, and the image divided by 1.1",
        later=True,
    )
    colour_until: float = _f(0.0, "epoch at which colour noise ends; 0 is never", later=True)
    mixup: float = _f(
        0.0, "augment: share of batches blended with another order of themselves", later=True
    )
    cutmix: float = _f(
        0.0, "augment: share of batches with a rectangle of another image", later=True
    )

    dropout: float | None = _f(None, "replaces every dropout rate of the network")
    epochs: float = _f(10.0, "passes over the training slice", flags=("--epochs",))
    steps: int | None = _f(None, "optimiser updates; replaces epochs")
    batch_size: int = _f(128, "images per update", flags=("-b", "--batch-size"))
    accumulate: int = _f(
        1,
        "micro-batches a batch is cut into, gradients summed; batch norms see one of them",
        later=True,
    )
    opt: Literal["sgd", "adam", "adamw"] = _f("sgd", "sgd is the paper's update, section 5")
    lr: float = _f(0.01, "peak learning rate")
    lr_batch: int = _f(
        0, "batch size for which lr is meant; others scale it in proportion; 0 is any", later=True
    )
    trust: float = _f(
        0.0, "sgd: step of a layer beside its weights' norm (LARS: 0.001); 0 is plain", later=True
    )
    momentum: float = _f(0.9, "sgd only")
    weight_decay: float = _f(5e-4, "L2 term (adamw: decoupled)")
    decay_biases: bool = _f(False, "decay biases and norm parameters too")
    bias_lr: float = _f(1.0, "learning rate of biases, times that of weights", later=True)
    part_lr: tuple[str, ...] = _f(
        (), "learning rates of parts, times lr: fc8=10, or conv1=0.1@67 from epoch 67", later=True
    )
    freeze: tuple[str, ...] = _f((), "parts that stay as they are: conv1..conv5", later=True)
    class_weights: Literal["none", "balanced"] = _f(
        "none",
        "balanced: an image of a rare class counts more, so that each class counts the same",
        later=True,
    )
    label_smoothing: float = _f(0.0, "share of the target spread over all classes")
    schedule: Literal["constant", "steps", "cosine", "onecycle", "plateau", "poly"] = _f(
        "cosine", "learning rate as a function of the step"
    )
    warmup_epochs: float = _f(0.0, "linear rise to lr at the start")
    drops: tuple[float, ...] = _f((), "epochs at which `steps` multiplies lr by lr_factor")
    lr_factor: float = _f(0.1, "what `steps` and `plateau` multiply lr by")
    final_lr: float = _f(0.0, "where cosine and onecycle end, as a fraction of lr")
    plateau_patience: int = _f(3, "validations without improvement before plateau drops lr")
    plateau_drops: int = _f(3, "drops before plateau stops the run (paper: three)")
    early_stop: int = _f(0, "stop after this many validations without improvement; 0 is never")

    precision: Literal["auto", "fp32", "bf16"] = _f(
        "auto", "matrix work in fp32 or bf16 (weights stay fp32); auto: bf16 where it is fast"
    )
    whiten: bool = _f(
        False,
        "the first convolution's weights from the training images: it takes their patches apart "
        "into uncorrelated parts of one size (freeze it with --freeze conv1)",
        later=True,
    )
    views: int = _f(1, "views of an image in validation: 1, or 2 with its mirror", later=True)
    channels_last: bool = _f(True, "memory layout; numbers agree up to rounding")
    compile: bool = _f(
        False, "training steps through torch.compile; numbers agree up to rounding", later=True
    )
    seed: int = _f(0, "weights, order, augmentation and dropout")
    eval_every: float = _f(1.0, "validate every so many epochs")
    eval_batch: int = _f(500, "images per forward pass in validation and test")
    log_every: int = _f(20, "steps between log lines")
    save_every: int = _f(0, "steps between checkpoints; 0 saves at every validation")
    keep: int = _f(2, "newest checkpoints kept beside the best", free=True)
    workers: int = _f(2, "threads that read images", flags=("-j", "--workers"), free=True)
    memory_gib: float = _f(
        2.0,
        "a split is decoded once and kept where its pixels take at most so many GiB, else decoded "
        "as it is used; 0: always",
        later=True,
    )
    bad_images: Literal["stop", "skip"] = _f(
        "stop",
        "what an image that cannot be read does: stop, with all saved; skip leaves it out by name",
        free=True,
    )
    bad_share: float = _f(
        0.01, "share of a split, or one image, that bad_images skip may leave out", free=True
    )
    wait_for_data: float = _f(
        30.0, "seconds to wait for a folder that is away, as a network drive", free=True
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kinds = getattr(self, f.name), _KINDS[f.name]
            if float in kinds and type(value) is int:
                object.__setattr__(self, f.name, value := float(value))
            if type(value) not in kinds:
                names = " or ".join(k.__name__ for k in kinds)
                raise UsageError(f"{f.name} is {value!r}; it takes {names}")
            if choices := _CHOICES.get(f.name):
                _require(value in choices, f.name, value, "one of " + ", ".join(choices))
            if f.name in ("lr", "epochs", "eval_every"):
                _require(value > 0, f.name, value, "above 0")
            numbers = value if isinstance(value, tuple) else (value,)
            for number in numbers:
                if isinstance(number, int | float):
                    _require(math.isfinite(number), f.name, value, "a finite number")
                    _require(number >= 0, f.name, value, "0 or more")
        words = "letters, digits, -, _ and . only, a letter or digit first"
        _require(bool(_NAME.fullmatch(self.name)), "name", self.name, words)
        whole = ("size", "crop", "batch_size", "eval_batch", "log_every", "keep", "crop_chunk",
                 "accumulate")  # fmt: skip
        for name in whole:
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("momentum", "label_smoothing", "scale", "lr_factor", "dropout"):
            value = getattr(self, name)
            _require(value is None or value < 1, name, value, "below 1")
        for name in ("mixup", "cutmix", "area"):
            _require(getattr(self, name) <= 1, name, getattr(self, name), "at most 1")
        _require(self.area > 0, "area", self.area, "above 0")
        for entry in self.part_lr:
            _require(bool(_PART_LR.fullmatch(entry)), "part_lr", entry, "like fc8=10 or conv1=0@72")
        places = [(part, epoch) for part, _, epoch in self.part_rates]
        _require(
            len(set(places)) == len(places), "part_lr", self.part_lr, "each part once an epoch"
        )
        for entry, (_, factor, _) in zip(self.part_lr, self.part_rates, strict=True):
            _require(math.isfinite(factor), "part_lr", entry, "a finite factor")
        for entry in self.freeze:
            _require(bool(_PARTS.fullmatch(entry)), "freeze", entry, "like conv1 or conv1..conv5")
        for name in ("seed", "split_seed"):
            _require(getattr(self, name) < 2**63, name, getattr(self, name), "below 2^63")
        _require(self.size <= 4096, "size", self.size, "at most 4096 pixels")
        _require(self.views in (1, 2), "views", self.views, "1 or 2")
        _require(self.channels in (1, 3), "channels", self.channels, "1 (grey) or 3 (RGB)")
        _require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1")
        _require(self.bad_share <= 1, "bad_share", self.bad_share, "at most 1")
        _require(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "between 0 and 1")
        _require(0 < self.test_fraction < 1, "test_fraction", self.test_fraction, "between 0 and 1")
        _refuse_contradictions(self)

    @property
    def peak_lr(self) -> float:
        """The learning rate at its highest: `lr`, scaled from `lr_batch` to this batch size."""
        return self.lr * self.batch_size / self.lr_batch if self.lr_batch else self.lr

    @property
    def digest(self) -> str:
        """sha256 over every field that can change a result (16 hex digits).

        A field that came `later` counts once it is used, so that runs from before it stay valid.
        """
        used = {k: v for k, v in self.to_dict().items() if v != _LATER.get(k, ...)}
        kept = {k: v for k, v in used.items() if k not in _FREE}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`; an unknown or ill-typed field is a UsageError."""
        return Recipe().replace(**values)

    @property
    def part_rates(self) -> list[tuple[str, float, float]]:
        """`part_lr` read: (part, factor, epoch from which it holds)."""
        found = [_PART_LR.fullmatch(entry) for entry in self.part_lr]
        return [(m[1], float(m[2]), float(m[3] or 0)) for m in found if m]

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with fields changed; unknown names are refused with the nearest known one."""
        for key, value in changes.items():
            if key not in _KINDS:
                raise UsageError(f"unknown recipe field {key!r}{did_you_mean(key, _KINDS)}")
            if isinstance(value, list | tuple) and tuple in _KINDS[key]:
                changes[key] = tuple(float(v) if type(v) is int else v for v in value)
        return dataclasses.replace(self, **changes)

    def adapted(self, changes: Mapping[str, Any], weights: bool = False) -> "Recipe":
        """`replace` by what a user asks for. With another network or given `weights` the first
        layer is not made from images and held (`whiten`, `freeze`), unless that is asked for."""
        changed = self.replace(**changes)
        if self.whiten and (weights or changed.model != self.model):
            learning = {"whiten": False, "freeze": ()}
            changed = changed.replace(**{k: v for k, v in learning.items() if k not in changes})
        return changed

    def conflicts(self, other: "Recipe") -> list[str]:
        """Names of the fields in which two recipes differ and by which a result could differ."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [k for k in mine if mine[k] != theirs[k] and k not in _FREE]


class RecipeOverrides(TypedDict, total=False):
    """Fields of a recipe that a call replaces, as `epochs=20`. The data is an argument of its own.
    A test holds them equal to those of Recipe."""

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


def refuse_unknown(fields: Mapping[str, Any], function: str, options: Iterable[str]) -> None:
    """UsageError for a keyword of a call that is no field of a recipe, with the nearest field or
    other option of the function."""
    for name in fields:
        if name not in _KINDS:
            hint = did_you_mean(name, [*_KINDS, *options])
            raise UsageError(f"{function} takes no {name!r}{hint}")


def first_line(recipe: Callable[[], Recipe]) -> str:
    """What a function that makes a recipe says of it."""
    return (recipe.__doc__ or "").splitlines()[0]


def _refuse_contradictions(recipe: Recipe) -> None:
    """Raise UsageError on the first fields that contradict each other, with their values and the
    remedy. Each field alone is taken to be valid."""
    if recipe.crop > recipe.size:
        raise UsageError(
            f"crop {recipe.crop} is larger than size {recipe.size}: store larger images "
            f"({option('size', recipe.crop)}) or cut smaller ones ({option('crop', recipe.size)})"
        )
    if recipe.drops and recipe.schedule != "steps":
        raise UsageError(
            f"drops {recipe.drops} mean nothing to schedule {recipe.schedule}: use "
            f"{option('schedule', 'steps')}"
        )
    if recipe.schedule == "steps" and not recipe.drops:
        raise UsageError(
            f"schedule steps needs the epochs of its drops, as {option('drops', (20, 30))}"
        )
    if list(recipe.drops) != sorted(set(recipe.drops)):
        raise UsageError(f"drops {recipe.drops} must rise: give the epochs in order, each once")
    if recipe.schedule != "onecycle" and 0 < recipe.epochs <= recipe.warmup_epochs:
        raise UsageError(
            f"warmup_epochs {recipe.warmup_epochs} leaves nothing of {recipe.epochs} epochs: "
            "use fewer"
        )
    moved = [name for name in ("shift", "rotate", "scale") if getattr(recipe, name)]
    moved += ["area"] * (recipe.area < 1)
    if recipe.normalize == "image" and moved:
        raise UsageError(
            f"normalize image subtracts the mean image before cropping, and {moved[0]} moves "
            f"pixels away from it: use {option('normalize', 'mean')}"
        )
    if recipe.mixup + recipe.cutmix > 1:
        raise UsageError(
            f"mixup {recipe.mixup} and cutmix {recipe.cutmix} are shares of the batches and are "
            "more than 1 together: lower one"
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
            "parts than it has: lower it"
        )
    if recipe.compile and recipe.accumulate > 1:  # each micro-batch has its place in the masks
        raise UsageError(
            f"compile takes whole batches, and accumulate is {recipe.accumulate}: leave one out"
        )
    if recipe.trust and recipe.opt != "sgd":
        raise UsageError(
            f"trust {recipe.trust} (LARS) is of {option('opt', 'sgd')}, and opt is {recipe.opt}: "
            "leave one out"
        )
    if recipe.cutout >= recipe.crop:
        raise UsageError(f"cutout {recipe.cutout} hides the whole {recipe.crop}-pixel image")
    if recipe.shift >= recipe.crop:
        raise UsageError(f"shift {recipe.shift} can move the whole {recipe.crop}-pixel image away")


def _require(ok: bool, name: str, value: Any, expected: str) -> None:
    if not ok:
        raise UsageError(f"{name} is {value!r}; it must be {expected}")


def _kinds(hint: Any) -> tuple[type, ...]:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return (str,)
    if origin is types.UnionType:
        return typing.get_args(hint)
    return (origin or hint,)


_NAME = re.compile(r"\w[\w.-]{0,99}")
_PART_LR = re.compile(r"([a-z]+[0-9]+)=([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)(?:@([0-9]*\.?[0-9]+))?")
_PARTS = re.compile(r"[a-z]+[0-9]+(\.\.[a-z]+[0-9]+)?")
_HINTS = typing.get_type_hints(Recipe)
_KINDS: dict[str, tuple[type, ...]] = {name: _kinds(hint) for name, hint in _HINTS.items()}
_CHOICES = {n: typing.get_args(h) for n, h in _HINTS.items() if typing.get_origin(h) is Literal}
_FREE = {f.name for f in fields(Recipe) if f.metadata.get("free")} | {"about"}
_LATER = {
    k: v
    for k, v in Recipe().to_dict().items()
    if k in {f.name for f in fields(Recipe) if f.metadata.get("later")}
}
