"""Training steps, and reading, that take as long as they are told, for what chooses by them."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

# Deep because how long steps and reading take is no option of a verb; the other tests take these
# two from here.
from alexnet.commands import Request, time_decoding, train_request
from alexnet.errors import Unavailable
from alexnet.recipe import Recipe, RecipeOverrides
from alexnet.training import Settings, TimingRule, threads
from conftest import without_report

__all__ = ["Changing", "Given", "Step", "alone_at_first", "time_decoding", "train_and_die",
           "train_choosing"]  # fmt: skip

Step = Callable[[], float]


def train_choosing(choosing: TimingRule, recipe: str | None = None, **options: Any) -> None:
    """`alexnet.train`, whose settings are chosen by a rule of the test's own."""
    own = {field.name for field in dataclasses.fields(Request)}
    fields = {name: options.pop(name) for name in options.keys() - own}
    train_request(Request(recipe, fields=cast(RecipeOverrides, fields), **options), choosing)


class Given:
    """Prepares steps that take a second, times a factor for each of fp32, bf16, last, plain,
    threads1, compiled ... that is given; and notes what was asked for."""

    def __init__(self, **factors: float) -> None:
        self.factors, self.asked, self.cannot = factors, list[Settings](), False

    def __call__(self, recipe: Recipe, count: int) -> Step:
        assert recipe.precision != "auto"
        self.asked.append(Settings(recipe.precision, recipe.channels_last, count, recipe.compile))
        if recipe.compile and self.cannot:
            raise Unavailable("no g++ here: leave --compile out")
        layout = "last" if recipe.channels_last else "plain"
        seconds = 1.0
        for name in (recipe.precision, layout, f"threads{count}", "compiled" * recipe.compile):
            seconds *= self.factors.get(name, 1.0)
        return lambda: seconds


class Changing:
    """Prepares steps of a machine that changes: once the run is begun, `later` is what they take.
    `when_later` is called as each is prepared then."""

    def __init__(
        self, run: Path, first: Given, later: Given, when_later: Callable[[], None] = lambda: None
    ) -> None:
        self.run, self.first, self.later, self.when_later = run, first, later, when_later

    def __call__(self, recipe: Recipe, count: int) -> Step:
        if not (self.run / "environment.json").exists():
            return self.first(recipe, count)
        self.when_later()
        return self.later(recipe, count)

    def choosing(self, after_s: float = 1e9) -> TimingRule:
        """Every training is long for it; it looks again after an epoch, or after some seconds."""
        return TimingRule(lambda *_: self, min_operations=0, long_s=0, recheck_after_s=after_s)


def alone_at_first(run: Path, **more: Any) -> Changing:
    """One thread and contiguous tensors are the best at first, then two and channels last."""
    first, later = Given(bf16=9, plain=0.5, threads1=0.5), Given(bf16=9, last=0.5, threads2=0.5)
    return Changing(run, first, later, **more)


def train_and_die(data: str, run: str, fields: dict[str, Any], call: str, name: str) -> None:
    """Trains with settings that are looked at again, and kills itself while steps are timed again
    (`call` is look), or before the call of os that is to make, or remove, a file of that name.
    Runs in a process of its own, which has two threads."""
    os.environ.pop("OMP_NUM_THREADS", None)
    armed = False

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def arm() -> None:
        nonlocal armed
        armed = True
        if call == "look":
            die()

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            if armed and Path(args[-1]).name == name:
                die()
            return real(*args, **options)

        return guarded

    if call != "look":
        # Patched because a kill between two calls to the disk can be made in no other way.
        setattr(os, call, guard(getattr(os, call)))
    with pytest.MonkeyPatch.context() as patch, threads(2):
        without_report(patch)
        choosing = alone_at_first(Path(run), when_later=arm).choosing()
        train_choosing(choosing, "digits", data=data, run=run, **fields)
