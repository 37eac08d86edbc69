"""The learning rate as a function of the step; and the one policy that needs a memory."""

import math
from dataclasses import dataclass

from alexnet.errors import UsageError
from alexnet.options import option
from alexnet.recipe import Recipe


@dataclass
class Watch:
    """What validation has shown so far: the best, how long ago, and the plateau policy's drops.

    All of it is in every checkpoint. `waited` counts validations since the best or the last drop.
    """

    best_top1: float = -1.0
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    waited: int = 0
    drops: int = 0

    def update(self, top1: float, loss: float, step: int, recipe: Recipe) -> tuple[bool, str]:
        """Takes one validation in. Returns whether it is the best, and why to stop ("" to go on).

        Source of the plateau policy: paper, section 5: divide by 10 when the validation error
        stops improving with the current rate; three times prior to termination.
        """
        best = (top1, -loss) > (self.best_top1, -self.best_loss)
        if best:
            self.best_top1, self.best_loss, self.best_step = top1, loss, step
            self.stale = self.waited = 0
            return True, ""
        self.stale += 1
        self.waited += 1
        if recipe.schedule == "plateau" and self.waited >= recipe.plateau_patience:
            if self.drops == recipe.plateau_drops:
                return False, f"no improvement after {self.drops} drops of the learning rate"
            self.drops += 1
            self.waited = 0
        if recipe.early_stop and self.stale >= recipe.early_stop:
            return False, f"no improvement in {self.stale} validations"
        return False, ""


def total_steps(recipe: Recipe, per_epoch: int) -> int:
    """Updates of a whole run on data of so many an epoch."""
    return recipe.steps or math.ceil(recipe.epochs * per_epoch)


def refuse_endless_warmup(recipe: Recipe, per_epoch: int) -> None:
    """UsageError where a run ends before its learning rate has risen to what it should be.

    Known only with the data, where the run's length is in steps: a warm-up is in epochs.
    """
    warmup, total = recipe.warmup_epochs * per_epoch, total_steps(recipe, per_epoch)
    if warmup < total:
        return
    length = option("steps", recipe.steps) if recipe.steps else f"{total:,} steps"
    raise UsageError(
        f"warmup_epochs {recipe.warmup_epochs:g} is {warmup:,.0f} steps of this data, and {length} "
        f"end within it, at {total / warmup:.1%} of the learning rate: use "
        f"{option('warmup_epochs', _short_warmup(recipe, per_epoch))}, or more steps"
    )


def shorten_warmup(recipe: Recipe, per_epoch: int) -> tuple[Recipe, str]:
    """A recipe whose `steps` end within its warm-up, with one that takes the share of the run that
    it has of the recipe's own epochs; and a line that says so. Any other recipe as it is."""
    warmup, total = recipe.warmup_epochs * per_epoch, total_steps(recipe, per_epoch)
    if warmup < total or not recipe.steps:
        return recipe, ""
    short = _short_warmup(recipe, per_epoch)
    line = (
        f"the recipe's warm-up of {recipe.warmup_epochs:g} epochs is {warmup:,.0f} steps here, and "
        f"{option('steps', recipe.steps)} end within it: shortened to {short:g} epochs "
        f"({short * per_epoch / total:.0%} of the run; {option('warmup_epochs')} says otherwise)"
    )
    return recipe.replace(warmup_epochs=short), line


def _short_warmup(recipe: Recipe, per_epoch: int) -> float:
    """A tenth of the run at most, in epochs."""
    share = min(recipe.warmup_epochs / recipe.epochs, 0.1)
    return float(f"{share * total_steps(recipe, per_epoch) / per_epoch:.1g}")


def describe_unreached(recipe: Recipe, per_epoch: int) -> list[str]:
    """Lines on what of a recipe's schedule lies beyond the end of a run, or takes most of it."""
    total = total_steps(recipe, per_epoch)
    last = (total - 1) // per_epoch  # epoch, counted from 0, of the last update
    validations = math.ceil(total / validation_steps(recipe, per_epoch))
    beyond = [f"{epoch:g}" for epoch in recipe.drops if epoch * per_epoch >= total]
    found = [f"the drop{'s' * (len(beyond) > 1)} at {', '.join(beyond)}"] if beyond else []
    found += [f"{entry} of part_lr" for entry, (_, _, epoch)
              in zip(recipe.part_lr, recipe.part_rates, strict=True) if epoch > last]  # fmt: skip
    if recipe.colour and recipe.colour_until > last:
        found.append(f"the end of colour noise at {recipe.colour_until:g}")
    waits = f"of {validations} validation{'s' * (validations > 1)} without improvement"
    if recipe.schedule == "plateau" and validations <= recipe.plateau_patience:
        found.append(f"a lower rate after {recipe.plateau_patience} {waits}")
    if recipe.early_stop and validations <= recipe.early_stop:
        found.append(f"an early stop after {recipe.early_stop} {waits}")
    lines = []
    if found:
        lines.append(f"a run of {total / per_epoch:.3g} epochs does not reach: {'; '.join(found)}")
    warmup = recipe.warmup_epochs * per_epoch
    if warmup > total / 2:
        lines.append(f"warm-up takes {warmup / total:.0%} of this run's {total:,} steps")
    return lines


def validation_steps(recipe: Recipe, per_epoch: int) -> int:
    """Updates from one validation to the next."""
    return max(1, round(recipe.eval_every * per_epoch))


def learning_rate(recipe: Recipe, step: int, per_epoch: int, total: int, drops: int = 0) -> float:
    """The rate of update `step` (from 0) of `total`; `drops` is the plateau policy's.

    `poly` falls with the square of what is left (You, Gitman, Ginsburg 2017, section 5).
    """
    peak = recipe.peak_lr
    warmup = recipe.warmup_epochs * per_epoch
    if recipe.schedule == "onecycle" and not warmup:
        warmup = 0.3 * total
    if step < warmup:
        return peak * (step + 1) / math.ceil(warmup)
    if recipe.schedule == "plateau":
        return peak * recipe.lr_factor**drops
    if recipe.schedule == "steps":
        passed = sum(step >= epoch * per_epoch for epoch in recipe.drops)
        return peak * recipe.lr_factor**passed
    done = (step - warmup) / max(total - warmup, 1)
    if recipe.schedule in ("cosine", "onecycle"):
        low = recipe.final_lr
        return peak * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)
    if recipe.schedule == "poly":
        return peak * (1 - done) ** 2
    return peak
