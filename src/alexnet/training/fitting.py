"""Training in a run directory: the trainer with checkpoints, log, image digests and doctor."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import Dataset
from alexnet.data.digests import BEFORE, UNREAD, ImageDigests, SplitDigests
from alexnet.data.splits import Split
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.sentinel import Sentinel
from alexnet.errors import Diverged, Elsewhere
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.records import DivergedEvent
from alexnet.runs.checkpoint import Checkpoint, save_checkpoint
from alexnet.runs.checkpoint_writer import CheckpointWriter, snapshot
from alexnet.runs.rundir import RunDir
from alexnet.support.launch import is_launched
from alexnet.support.options import AdvisedCall, call, option
from alexnet.support.signals import PREEMPT, DeferredSignals
from alexnet.support.terminal import shows_top5
from alexnet.training.guard import Doctor, RunGuard
from alexnet.training.log import RunLog
from alexnet.training.parallel import ALONE, Team
from alexnet.training.reader import RunReader
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
    """Train to the recipe's end, from step 0 or from the checkpoint `start`, and save on the way.

    Training ends early, with a state that is not `finished`, where `second_look` decides to start
    again; only a process that is alone passes one. `weights` replace the initial weights of the
    seed where names and shapes agree. `show` is called with the step and the network after each
    validation. Every process of a `team` calls this function: only the first writes and runs the
    doctor, and all stop at the same step.

    Raises Interrupted, after saving, when a signal of `stop` arrives. Raises Diverged when the loss
    is not finite or, with `doctor` "stop", when the sentinel finds that the run will not learn.
    """
    recorder = DigestRecorder(run, dataset.train, dataset.val, resumed=start is not None)
    data = TrainingData(recorder.train, recorder.val, len(dataset.classes), statistics)
    saved = None if start is None else start.state_dict()
    trainer = Trainer(recipe, data, start=saved, weights=weights, team=team)
    if trainer.state.finished:
        return trainer.state
    _ = trainer.step_model  # raises before anything is saved if the model cannot be compiled
    recorder.digest_memory(dataset, recipe.workers)
    clock = trainer.clock()
    again = call("train", resume=True, run=run.path)
    log = RunLog(run, trainer.steps_per_epoch, board, show, top5=shows_top5(data.classes))
    sentinel = Sentinel(trainer.net, trainer.class_shares.tolist())
    guard = RunGuard(sentinel, log, again, doctor if team.leads else "off")
    if start is not None:
        guard.replay(run.events(), trainer)
    if any(team.largest(guard.fatal is not None)):  # found before the run was interrupted
        raise guard.fatal or Elsewhere()

    signals = DeferredSignals(stop, patient=is_launched())
    reader = RunReader(dataset, trainer, run, again, signals)
    checkpoints = RunCheckpoints(run, recorder, again)
    with checkpoints, signals, log.progress(trainer.state.step, trainer.total_steps):
        try:
            if start is None:  # a run killed before its first validation can be continued
                trainer.save(checkpoints, clock, best=False)
                with clock.paused(), team.all_or_none():
                    checkpoints.wait()  # a log without a checkpoint cannot be continued
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
                f"{error}: try {option('lr', recipe.lr / 10)}; the checkpoints saved before are in "
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
    """Save the checkpoint of step 0, as `fit` does in one process, into the folder `checkpoints`.

    A training that continues from it has the same bits as one that begins. `seconds` is the time
    already spent on the run.
    """
    data = TrainingData(dataset.train, dataset.val, len(dataset.classes), statistics)
    trainer = Trainer(recipe, data, weights=weights)
    trainer.state.seconds = seconds
    save_checkpoint(checkpoints, 0, **trainer.state_dict(), best=False, keep=recipe.keep)


class DigestRecorder:
    """Records the digest of every image that a run trains or validates on, for later tests.

    Images in memory are digested before the first step, all others as they are read. `train` and
    `val` are the splits to read from. The digests are in the run's folder from its first checkpoint
    on. A `resumed` run without digests (of version 0.1.0) gets them only when they are complete:
    incomplete ones would say that the run never learnt from the other images.
    """

    def __init__(self, run: RunDir, train: Split, val: Split, *, resumed: bool) -> None:
        self._run = run
        recorded = run.digests() or {}
        self._digests = ImageDigests.unread(train=len(train), val=len(val))
        for name, digests in self._digests.to_arrays().items():
            if name in recorded and len(recorded[name]) == len(digests):
                digests[:] = recorded[name].numpy()
        if BEFORE in recorded:  # of the run whose weights this one started from
            self._digests.splits[BEFORE] = SplitDigests(
                recorded[BEFORE].numpy(), recorded[f"{BEFORE}.look"].numpy()
            )
        self._only_complete = resumed and not {*recorded} - {BEFORE, f"{BEFORE}.look"}
        self._saved = self._digests.missing == 0
        self._in_memory = isinstance(train.pixels, np.ndarray) and isinstance(
            val.pixels, np.ndarray
        )
        self._splits = train, val
        self.train = train if self._in_memory else self._digests.watch(train)
        self.val = val if self._in_memory else self._digests.watch(val)

    def digest_memory(self, dataset: Dataset, workers: int) -> None:
        """Compute the digests of images in memory: a few seconds for two gigabytes.

        Images that the run has left out are black in memory, and get no digest.
        """
        if self._in_memory:
            for part in self._splits:
                self._digests.read_all(part, workers, dataset.excluded_ids(part.name))

    def save(self, team: Team) -> None:
        """Write the digests of all processes, until they are complete. Every process calls it."""
        if self._saved:
            return
        tensors: dict[str, Tensor] = {}
        for name, digests in self._digests.to_arrays().items():
            shares = torch.stack(team.gather(torch.from_numpy(digests)))
            # Processes that read an image have the same digest, the others have UNREAD, which is 0.
            first = (shares != UNREAD).int().argmax(0)
            tensors[name] = shares.gather(0, first[None])[0]
            read = tensors[name].numpy() != UNREAD
            digests[read] = tensors[name].numpy()[read]  # readers write into it meanwhile
        complete = not self._digests.missing
        if team.leads and (complete or not self._only_complete):
            self._run.write_digests(tensors)
        self._saved = complete


class RunCheckpoints:
    """Writes the checkpoints of a run directory in a thread, while training continues.

    The end of a `with` block waits for the last one.
    """

    def __init__(self, run: RunDir, recorder: DigestRecorder, again: AdvisedCall) -> None:
        self.again = again
        self._run, self._recorder, self._writer = run, recorder, CheckpointWriter()

    def save(self, trainer: Trainer, best: bool) -> None:
        """Copy the state of the training and queue it for the writing thread."""
        self._recorder.save(trainer.team)
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
