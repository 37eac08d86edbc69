"""Fields of a recipe that contradict each other: which, with their values and the remedy."""

from typing import TYPE_CHECKING

from alexnet.errors import UsageError

if TYPE_CHECKING:
    from alexnet.recipe import Recipe


def refuse_contradictions(recipe: "Recipe") -> None:
    """UsageError on the first that is found; each field alone is taken to be valid."""
    if recipe.crop > recipe.size:
        raise UsageError(
            f"crop {recipe.crop} is larger than size {recipe.size}: store larger images "
            f"(--size {recipe.crop}) or cut smaller ones (--crop {recipe.size})"
        )
    if recipe.drops and recipe.schedule != "steps":
        raise UsageError(
            f"drops {recipe.drops} mean nothing to schedule {recipe.schedule}: use --schedule steps"
        )
    if recipe.schedule == "steps" and not recipe.drops:
        raise UsageError("schedule steps needs the epochs of its drops, as --drops 20 30")
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
            "pixels away from it: use --normalize mean"
        )
    if recipe.mixup + recipe.cutmix > 1:
        raise UsageError(
            f"mixup {recipe.mixup} and cutmix {recipe.cutmix} are shares of the batches and are "
            "more than 1 together: lower one"
        )
    if recipe.colour and recipe.channels == 1:
        raise UsageError(
            f"colour {recipe.colour} needs colours, and grey images have none: use --colour 0, "
            "or --channels 3"
        )
    if recipe.flip_rule == "alternate" and recipe.crop_chunk > 1:
        raise UsageError(
            f"flip_rule alternate mirrors each image in turn, and crop_chunk {recipe.crop_chunk} "
            "images share a flip: use --flip-rule random, or --crop-chunk 1"
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
            f"trust {recipe.trust} (LARS) is of --opt sgd, and opt is {recipe.opt}: leave one out"
        )
    if recipe.cutout >= recipe.crop:
        raise UsageError(f"cutout {recipe.cutout} hides the whole {recipe.crop}-pixel image")
    if recipe.shift >= recipe.crop:
        raise UsageError(f"shift {recipe.shift} can move the whole {recipe.crop}-pixel image away")
