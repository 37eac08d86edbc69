"""The learning-rate schedule, and the validations that the plateau policy and early stop need."""

import math
from dataclasses import dataclass

from alexnet.errors import UsageError
from alexnet.recipe import Recipe
from alexnet.support.options import option


@dataclass
class Watch:
    """History of the validations: the best so far, and the drops of the plateau policy.

    Every checkpoint has it. `stale` counts validations since the best, `waited` those since the
    best or the last drop.
    """

    best_top1: float = -1.0
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    waited: int = 0
    drops: int = 0

    def update(self, top1: float, loss: float, step: int, recipe: Recipe) -> tuple[bool, str]:
        """Record a validation. Returns whether it is the best, and why to stop ("" to continue).

        Source of the plateau policy: paper, section 5. The rate is divided by 10 when the
        validation error stops improving, three times before the end.
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
    """Return the number of updates of a whole run; `per_epoch` is updates an epoch."""
    return recipe.steps or math.ceil(recipe.epochs * per_epoch)


def refuse_endless_warmup(recipe: Recipe, per_epoch: int) -> None:
    """Raise UsageError if a run ends within its warm-up.

    The size of the data decides this where a recipe has its length in steps: a warm-up is in
    epochs.
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
    """Shorten the warm-up of a recipe whose `steps` end within it, and describe that in a line.

    The new warm-up is the same share of the run as the old one is of the recipe's epochs, at most a
    tenth. Any other recipe is returned unchanged, with an empty line.
    """
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
    """Return a warm-up of at most a tenth of the run, in epochs."""
    share = min(recipe.warmup_epochs / recipe.epochs, 0.1)
    return float(f"{share * total_steps(recipe, per_epoch) / per_epoch:.1g}")


def describe_unreached(recipe: Recipe, per_epoch: int) -> list[str]:
    """Describe events of the schedule beyond the end of a run, and a warm-up of most of the run."""
    total = total_steps(recipe, per_epoch)
    last_epoch = (total - 1) // per_epoch  # counted from 0
    validations = math.ceil(total / validation_steps(recipe, per_epoch))
    beyond = [f"{epoch:g}" for epoch in recipe.drops if epoch * per_epoch >= total]
    unreached = [f"the drop{'s' * (len(beyond) > 1)} at {', '.join(beyond)}"] if beyond else []
    for entry, (_, _, epoch) in zip(recipe.part_lr, recipe.part_rates, strict=True):
        if epoch > last_epoch:
            unreached.append(f"{entry} of part_lr")
    if recipe.colour and recipe.colour_until > last_epoch:
        unreached.append(f"the end of colour noise at {recipe.colour_until:g}")
    waits = f"of {validations} validation{'s' * (validations > 1)} without improvement"
    if recipe.schedule == "plateau" and validations <= recipe.plateau_patience:
        unreached.append(f"a lower rate after {recipe.plateau_patience} {waits}")
    if recipe.early_stop and validations <= recipe.early_stop:
        unreached.append(f"an early stop after {recipe.early_stop} {waits}")
    lines = []
    if unreached:
        epochs = f"{total / per_epoch:.3g}"
        lines.append(f"a run of {epochs} epochs does not reach: {'; '.join(unreached)}")
    warmup = recipe.warmup_epochs * per_epoch
    if warmup > total / 2:
        lines.append(f"warm-up takes {warmup / total:.0%} of this run's {total:,} steps")
    return lines


def validation_steps(recipe: Recipe, per_epoch: int) -> int:
    """Return the number of updates from one validation to the next."""
    return max(1, round(recipe.eval_every * per_epoch))


def learning_rate(recipe: Recipe, step: int, per_epoch: int, total: int, drops: int = 0) -> float:
    """Return the rate of update `step` (from 0) of `total`, after `drops` of the plateau policy.

    `poly` falls with the square of the remaining share of the run (You, Gitman, Ginsburg 2017,
    section 5).
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
