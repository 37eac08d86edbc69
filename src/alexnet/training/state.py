"""What a run is in the middle of, and the time that it takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from alexnet.data.loader import Batch
from alexnet.recipe import Recipe
from alexnet.runs.records import SavedState, WatchState
from alexnet.training.parallel import ALONE, Team
from alexnet.training.schedule import Watch


@dataclass
class State:
    """What a run is in the middle of; with the weights and the optimiser, all of a checkpoint.

    `sums` are this epoch's images, loss, top-1 and top-5 hits so far, of this rank; `seconds` is
    time spent; `finished` says why the run ended, or is empty; `due` is whether this step was to
    be validated and could not be.
    """

    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    watch: Watch = field(default_factory=Watch)
    seconds: float = 0.0
    finished: str = ""
    due: bool = False

    def to_record(self, recipe: Recipe, team: Team = ALONE) -> SavedState:
        """The state as a checkpoint has it. Every rank's sums are in it: float sums depend on their
        order."""
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
        """The inverse; from another number of ranks the first takes all sums."""
        by_rank = torch.tensor(saved.sums, dtype=torch.float64).view(-1, 4)
        if len(by_rank) != team.ranks:
            by_rank = torch.cat([by_rank.sum(0)[None], by_rank.new_zeros(team.ranks - 1, 4)])
        watch = Watch(**saved.watch.by_field())
        sums = by_rank[team.rank].clone()
        return State(saved.step, sums, watch, saved.seconds, saved.finished, bool(saved.due))


class Pace(TypedDict):
    """How fast training is: see TrainEvent."""

    data_wait: float
    images_per_s: float
    eta_s: float
    wall_s: float


class Clock:
    """Throughput and time left, of training alone: validation and saving are not counted."""

    def __init__(self, state: State, total: int, batch: int) -> None:
        self._total, self._batch, self._before = total, batch, state.seconds
        self._began = self._since = time.monotonic()
        self._step, self._rate, self._waited = state.step, 0.0, 0.0

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def read(self, step: int) -> Pace:
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
        """The same batches; the time that each is waited for is counted."""
        began = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - began
            yield batch
            began = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        paused_at = time.monotonic()
        yield
        self._since += time.monotonic() - paused_at
