"""Training in a run directory: the trainer, with all that a run keeps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet.data.dataset import Dataset
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.sentinel import Sentinel
from alexnet.errors import Diverged, Elsewhere
from alexnet.launch import is_launched
from alexnet.models.net import Net
from alexnet.options import AdvisedCall, call, option
from alexnet.recipe import Recipe
from alexnet.runs.checkpoint import Checkpoint, save_checkpoint
from alexnet.runs.checkpoint_writer import CheckpointWriter, snapshot
from alexnet.runs.records import DivergedEvent
from alexnet.runs.rundir import RunDir
from alexnet.signals import PREEMPT, DeferredSignals
from alexnet.terminal import shows_top5
from alexnet.training.digest_keeper import DigestKeeper
from alexnet.training.guard import Doctor, RunGuard
from alexnet.training.intake import Intake
from alexnet.training.log import RunLog
from alexnet.training.parallel import ALONE, Team
from alexnet.training.state import State
from alexnet.training.trainer import NotFinite, SecondLook, Trainer, TrainingData


def fit(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    run: RunDir,
    start: Checkpoint | None,
    *,
    weights: Mapping[str, Tensor] | None = None,
    board: Any = None,
    show: Callable[[int, Net], None] | None = None,
    doctor: Doctor = "stop",
    team: Team = ALONE,
    stop: Sequence[int] = PREEMPT,
    second_look: SecondLook | None = None,
) -> State:
    """Train from the beginning or from a checkpoint to the recipe's end, and save on the way; or,
    alone in the team, until `second_look` says that training has to start again: what comes back
    is then not `finished`.

    `weights` replace the seed's at a beginning, as far as they fit; `show` is called with the step
    and the network after each validation. Every process of a `team` calls this; the first writes
    and looks, and all stop at the same step.

    Raises Interrupted, after saving, when a signal of `stop` arrives, and Diverged when the loss is
    not a number or, with `doctor` at "stop", when the sentinel finds that it will not learn.
    """
    keeper = DigestKeeper(run, dataset.train, dataset.val, resumed=start is not None)
    data = TrainingData(keeper.train, keeper.val, len(dataset.classes), statistics)
    begun = None if start is None else start.state_dict()
    trainer = Trainer(recipe, data, start=begun, weights=weights, team=team)
    if trainer.state.finished:
        return trainer.state
    _ = trainer.quick  # refuses, before anything is saved, what cannot be compiled
    keeper.read_what_is_in_memory(dataset, recipe.workers)
    clock = trainer.clock()
    again = call("train", resume=True, run=run.path)
    log = RunLog(run, trainer.steps_per_epoch, board, show, top5=shows_top5(data.classes))
    sentinel = Sentinel(trainer.net, trainer.class_shares.tolist())
    guard = RunGuard(sentinel, log, again, doctor if team.leads else "off")
    if start is not None:
        guard.read_back(run.events(), trainer)
    if any(team.largest(guard.fatal is not None)):  # before a restart
        raise guard.fatal or Elsewhere()

    signals = DeferredSignals(stop, patient=is_launched())
    reader = Intake(dataset, trainer, run, again, signals)
    checkpoints = RunCheckpoints(run, keeper, again)
    with checkpoints, signals, log.progress(trainer.state.step, trainer.total_steps):
        try:
            if start is None:  # so that a kill before the first validation loses no more than that
                trainer.save(checkpoints, clock, best=False)
                with clock.paused(), team.all_or_none():
                    checkpoints.wait()  # figures without a checkpoint cannot be gone on from
            return trainer.run(
                reader=reader,
                log=log,
                checkpoints=checkpoints,
                guard=guard,
                clock=clock,
                signals=signals,
                second_look=second_look,
            )
        except NotFinite as error:
            run.log(DivergedEvent(step=error.step, loss=str(error.loss), where=error.where))
            raise Diverged(
                f"{error}: try {option('lr', recipe.lr / 10)}; the checkpoints before it are "
                "kept in "
                f"{run.path}"
            ) from error


def save_step_0(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    checkpoints: Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    seconds: float = 0.0,
) -> None:
    """Save the checkpoint that `fit` begins with, alone in its team, into a new folder of
    checkpoints; training goes on from it as if it had begun so. `seconds` were spent before.
    """
    data = TrainingData(dataset.train, dataset.val, len(dataset.classes), statistics)
    trainer = Trainer(recipe, data, weights=weights)
    trainer.state.seconds = seconds
    save_checkpoint(checkpoints, 0, **trainer.state_dict(), best=False, keep=recipe.keep)


class RunCheckpoints:
    """The checkpoints of a run directory, written by a thread while training goes on.

    `with RunCheckpoints(...)` waits for the last one at its end.
    """

    def __init__(self, run: RunDir, keeper: DigestKeeper, again: AdvisedCall) -> None:
        self.again = again
        self._run, self._keeper, self._writer = run, keeper, CheckpointWriter()

    def save(self, trainer: Trainer, best: bool) -> None:
        """Copy what a checkpoint holds, and leave it to be written."""
        self._keeper.save(trainer.team)
        saved = trainer.state_dict()
        if trainer.team.leads:
            self._writer.submit(
                save_checkpoint,
                self._run.checkpoints,
                trainer.state.step,
                model=snapshot(saved["model"]),
                optimizer=snapshot(saved["optimizer"]),
                state=saved["state"],
                best=best,
                keep=trainer.recipe.keep,
            )

    def failed(self) -> bool:
        return self._writer.failed()

    def wait(self) -> None:
        self._writer.wait()

    def __enter__(self) -> "RunCheckpoints":
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)
