"""The recipes that suit a set of images, by their size, number and colours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet.errors import UsageError
from alexnet.models.layers import BatchNorm, Linear
from alexnet.models.net import named_parts
from alexnet.models.zoo import find_model, model_spec
from alexnet.recipe import Recipe
from alexnet.recipe.shipped import cifar10, digits, fashion_mnist, imagenette, mnist, modern, photos
from alexnet.support.options import option

SMALL = 40  # pixels of the shorter side, up to which images are trained at their own size
MANY = 20_000  # images from which IDX files are a published set, and photos get 224 pixels
PATCHES = range(110, 200)  # sizes of a packed set that suit the network patch-128
# (crop, size, network), the cheapest first; 48 and 64 pixels take longer than 128 with patch-128.
SMALL_RUNGS = ((32, 36, "fast-32"), (48, 54, "fast-32"), (64, 72, "fast-32"))
RUNGS = ((32, 36, "fast-32"), (128, 144, "patch-128"), (224, 256, "alexnet-bn"))
# Grey images are often characters: a mirror changes them, a hidden part makes them another one.
GREY = {"channels": 1, "flip": False, "cutout": 0, "area": 1, "label_smoothing": 0.1}


@dataclass(frozen=True)
class DataSummary:
    """The facts of a set that a choice needs, from labels, headers and folder names alone.

    `counts` are the images of each class in the training part; `sides` the smallest, the median and
    the largest shorter side in pixels; `channels` 1 where all are grey, and `mixed` where some are;
    `held` the other parts of the set; `read_s` the seconds to read an image.
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


def candidates(summary: DataSummary) -> list[Recipe]:
    """The recipes that suit the images, the cheapest first."""
    side = summary.sides[1]
    if summary.kind in ("digits", "cifar10"):
        return [digits() if summary.kind == "digits" else cifar10()]
    if summary.kind == "idx" and side <= SMALL and summary.images >= MANY:
        return [fashion_mnist() if "Sneaker" in summary.classes else mnist()]
    packed = summary.kind == "packed"
    if side <= SMALL:
        shown = side if packed else max(side, 28)
        small = photos().replace(
            name=f"images-{shown}", about=_about(shown), size=shown, crop=shown, shift=shown // 8,
            cutout=0, batch_size=64, lr=5e-3, epochs=20,
        )  # fmt: skip
        return [small if summary.channels == 3 else small.replace(**GREY)]
    if packed:
        crop = side * 7 // 8
        if side in PATCHES:
            return [_photos(crop // 4 * 4, side, summary.channels, "patch-128")]
        large = side >= PATCHES.stop
        return [_photos(crop, side, summary.channels, "alexnet-bn" if large else "fast-32")]
    # Enlarged images show no more detail.
    most = min(side, 224 if summary.images >= MANY else 128)
    fitting = [rung for rung in (RUNGS if side >= 128 else SMALL_RUNGS) if rung[0] <= most]
    return [_photos(crop, size, summary.channels, model) for crop, size, model in fitting]


def _photos(crop: int, size: int, channels: int, model: str) -> Recipe:
    """The recipe of the network for a resolution."""
    base = {"fast-32": photos, "patch-128": imagenette, "alexnet-bn": modern}[model]()
    base = base.replace(
        name=f"photos-{crop}", about=_about(crop), size=size, crop=crop, orient="apply",
        eval_batch=100, log_every=10,
    )  # fmt: skip
    if model == "fast-32":
        base = base.replace(cutout=crop // 4)
    return base if channels == 3 else base.replace(**GREY)


def at_own_size(summary: DataSummary, own: Mapping[str, Any]) -> Recipe:
    """The recipe for the user's network at the resolution it is made for, where it takes none of
    the images' resolutions: they are enlarged. UsageError for a packed set, whose size is fixed."""
    model, side = own["model"], summary.sides[1]
    made_for = find_model(model).size
    if summary.kind == "packed":
        least = least_crop(model, len(summary.classes), summary.channels)
        if side < least:
            raise UsageError(
                f"{option('model', model)} takes images of {least} pixels a side and more, and "
                f"{summary.where} is packed at {side}: pack it again with "
                f"{option('size', max(least, made_for))}, or choose another model"
            )
        crop, size = int(own.get("crop", side)), side
    else:
        crop = int(own.get("crop", min(made_for, own.get("size", made_for))))
        size = int(own.get("size", crop if crop <= SMALL else round(crop * 8 / 7)))
    near = next((rung for rung in reversed(RUNGS) if rung[0] <= crop), RUNGS[0])
    return _photos(crop, size, summary.channels, near[2])


def least_crop(model: str, classes: int, channels: int) -> int:
    """The smallest input side, in pixels, that a network takes."""
    return next(n for n in range(1, 4097) if _takes(model, classes, (channels, n, n)))


def _takes(model: str, classes: int, shape: tuple[int, int, int]) -> bool:
    try:
        model_spec(model, classes, shape)
    except UsageError:
        return False
    return True


def fine_tuning(
    summary: DataSummary, inherited: Mapping[str, Any], own: Mapping[str, Any]
) -> list[Recipe]:
    """The recipe that fine-tunes initial weights: a low learning rate, ten times that for the new
    last layer, few epochs. `inherited` are the fields of the weights, `own` those of the user."""
    merged = {**inherited, **own}
    preset = find_model(merged["model"])
    crop = int(merged.get("crop", preset.size))
    size = int(merged.get("size", crop if crop <= SMALL else round(crop * 8 / 7)))
    if "crop" in inherited and "crop" not in own:
        least = least_crop(merged["model"], len(summary.classes), preset.channels)
        if crop < least:
            wide = preset.size if preset.size <= SMALL else round(preset.size * 8 / 7)
            raise UsageError(
                f"{option('model', merged['model'])} takes images of {least} pixels a side and "
                f"more, and the run of {option('init')} saw {crop}: add "
                f"{option('crop', preset.size)} {option('size', wide)}"
            )
    spec = named_parts(
        model_spec(merged["model"], len(summary.classes), (preset.channels, crop, crop))
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
            orient="apply",
            shift=crop // 16 if small else 0,
            flip=summary.channels == 3,
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
