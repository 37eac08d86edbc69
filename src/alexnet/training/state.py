"""The state of a training between two steps, and the clock that measures its speed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from alexnet.data.loader import Batch
from alexnet.recipe import Recipe
from alexnet.records import SavedState, WatchState
from alexnet.training.parallel import ALONE, Team
from alexnet.training.schedule import Watch


@dataclass
class State:
    """State of a training; with weights and optimiser state, this is a whole checkpoint.

    `sums` are this rank's images, loss, top-1 and top-5 hits of this epoch so far. `seconds` is the
    time the run has taken. `finished` is the reason why the run ended, or empty. `due` is whether
    the validation of this step is still to be made.
    """

    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    watch: Watch = field(default_factory=Watch)
    seconds: float = 0.0
    finished: str = ""
    due: bool = False

    def to_record(self, recipe: Recipe, team: Team = ALONE) -> SavedState:
        """Convert to a record, with the sums of every rank: float sums depend on their order."""
        by_rank = torch.stack(team.gather(self.sums)).tolist()
        return SavedState(
            step=self.step,
            sums=by_rank[0] if team.ranks == 1 else by_rank,
            watch=WatchState(**asdict(self.watch)),
            seconds=self.seconds,
            finished=self.finished,
            due=self.due or None,
            recipe=recipe.digest,
        )

    @staticmethod
    def from_record(saved: SavedState, team: Team = ALONE) -> "State":
        """Convert from a record; if the number of ranks differs, the first rank gets all sums."""
        by_rank = torch.tensor(saved.sums, dtype=torch.float64).view(-1, 4)
        if len(by_rank) != team.ranks:
            by_rank = torch.cat([by_rank.sum(0)[None], by_rank.new_zeros(team.ranks - 1, 4)])
        watch = Watch(**saved.watch.by_field())
        sums = by_rank[team.rank].clone()
        return State(saved.step, sums, watch, saved.seconds, saved.finished, bool(saved.due))


class Pace(TypedDict):
    """Speed figures of a TrainEvent."""

    data_wait: float
    images_per_s: float
    eta_s: float
    wall_s: float


class Clock:
    """Measures throughput and time left of the training steps, without validation and saving."""

    def __init__(self, state: State, total: int, batch: int) -> None:
        self._total, self._batch, self._before = total, batch, state.seconds
        self._began = self._since = time.monotonic()
        self._step, self._rate, self._waited = state.step, 0.0, 0.0

    def seconds(self) -> float:
        """Return the seconds of the whole run, also those before it was continued."""
        return self._before + time.monotonic() - self._began

    def read(self, step: int) -> Pace:
        """Return the speed since the last call."""
        now = time.monotonic()
        spent = max(now - self._since, 1e-9)
        self._rate = (step - self._step) / spent
        self._since, self._step = now, step
        left = (self._total - step) / self._rate
        waited, self._waited = self._waited, 0.0
        return {
            "data_wait": round(waited / spent, 4),
            "images_per_s": round(self._rate * self._batch, 1),
            "eta_s": round(left, 1),
            "wall_s": round(self.seconds(), 3),
        }

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, and measure the time spent waiting for them."""
        began = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of the speed figures."""
        paused_at = time.monotonic()
        yield
        self._since += time.monotonic() - paused_at
