"""How a training is computed on its machine: the settings, and the timing that chose them."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.recipe import Recipe
from alexnet.records.base import Entry, optional


@dataclass(frozen=True)
class Settings(Entry):
    """How the steps of a training are computed.

    `precision` is fp32 or bf16, `channels_last` the memory layout, `threads` the number of threads,
    and `compile` whether torch.compile is used. Results agree up to rounding; with `compile`
    dropout also draws other units.
    """

    precision: str
    channels_last: bool
    threads: int
    compile: bool = False

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        compiled = ", compiled" if self.compile else ""
        return f"{self.precision}, {layout}, {self.threads} thread(s){compiled}"

    def apply_to(self, recipe: Recipe) -> Recipe:
        """The recipe with these settings; threads are no part of a recipe."""
        return recipe.replace(
            precision=self.precision, channels_last=self.channels_last, compile=self.compile
        )


@dataclass(frozen=True, kw_only=True)
class TimedSettings(Settings):
    """Settings with the `seconds` of their fastest step, and those of each step (`rounds`)."""

    seconds: float
    rounds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class SecondTiming(Entry):
    """The second timing of a training's settings, made after `step` updates.

    `before` are the settings until then, `measured` what was timed. `lost_s` is the time in seconds
    that the training had spent, where it started again with other settings.
    """

    step: int
    before: Settings
    measured: Sequence[TimedSettings]
    lost_s: float | None = optional()


@dataclass(frozen=True, kw_only=True)
class SettingsChoice(Entry):
    """The settings of a training, and how they were chosen.

    `chosen` are the settings; `measured` is what was timed, empty where a rule chose. `expected_s`
    is the time in seconds that the training was expected to take, where it was measured. `again` is
    the second timing, where there was one.
    """

    chosen: Settings
    expected_s: float | None = optional()
    measured: Sequence[TimedSettings]
    again: SecondTiming | None = optional()
