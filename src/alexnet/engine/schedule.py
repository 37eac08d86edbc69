"""The learning rate as a function of the step; and the one policy that needs a memory."""

import math
from dataclasses import dataclass

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
