"""The trainer: a network, its optimiser, its data, and the training loop.

    trainer = Trainer(recipe, data)
    trainer.run()                                   # to the recipe's end, or

    for batch in trainer.batches():                 # step by step
        loss = trainer.train_step(batch)

`run` takes the parts that a run directory adds: reader, log, checkpoints, guard, clock, signals.
Without them nothing is written or printed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from alexnet.data import draws
from alexnet.data.augment import augment
from alexnet.data.dataset import Dataset
from alexnet.data.loader import Batch, Share, steps_per_epoch, training_batches
from alexnet.data.splits import Split, Unread
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.sentinel import first_not_finite
from alexnet.errors import Diverged, Elsewhere, Interrupted, Unreadable
from alexnet.metrics import Tally
from alexnet.models.net import Net, Spec
from alexnet.recipe import Recipe
from alexnet.records import SavedState, TrainEvent, ValEvent
from alexnet.runtime import pick_device
from alexnet.support.argument_checks import checked
from alexnet.support.options import AdvisedCall, call, option
from alexnet.support.signals import DeferredSignals
from alexnet.support.terminal import say
from alexnet.training.compiled import compiled
from alexnet.training.data_parallel import distribute
from alexnet.training.evaluate import evaluate
from alexnet.training.network import (
    WHITEN_IMAGES,
    build_net,
    check_recipe,
    check_weights,
    preprocessing,
    take_weights,
    whiten,
)
from alexnet.training.optim import build_optimizer, load_optimizer, optimizer_tensors
from alexnet.training.parallel import ALONE, Team
from alexnet.training.schedule import learning_rate, total_steps, validation_steps
from alexnet.training.state import Clock, State
from alexnet.training.step import class_weights, train_step
from alexnet.training.towers import build_towers

PINNED = 64  # flags of losses that may be on their way from the GPU at once


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images, the number of classes, and statistics for preprocessing."""

    train: Split
    val: Split
    classes: int
    statistics: Statistics


class NotFinite(Diverged):
    """A loss or a weight is not finite: the step, the loss, and the first layer or weight."""

    def __init__(self, step: int, loss: float, where: str) -> None:
        self.step, self.loss, self.where = step, loss, where
        message = f"the loss is {loss} at step {step:,}, from {where} on"
        if math.isfinite(loss):  # computed with the weights before the step
            message = f"{where} is not finite after step {step:,}, whose loss was {loss:.4g}"
        super().__init__(message)


class Reader(Protocol):
    """Reads the batches for `Trainer.run`, and handles images that cannot be read."""

    @property
    def failure(self) -> Exception | None:
        """Why there is no next batch; all processes of a team have one at the same step."""

    @property
    def needs_agreement(self) -> bool:
        """Whether this process met an error or an image that the others have to know of."""

    def fetch(self, clock: Clock) -> None:
        """Wait for the next batch."""

    def take(self) -> Batch:
        """Return the batch that `fetch` waited for."""

    def agree(self, step: int) -> None:
        """Exchange errors and unreadable images with the other processes. All of them call it."""

    def evaluate(self, step: int, measure: Callable[[Unread | None], Tally]) -> Tally | None:
        """Return the tally of `measure`, called with the images to leave out; None on failure."""

    def reason(self) -> Exception:
        """Return `failure`, with the command that continues the run."""

    def close(self) -> None:
        """Stop reading ahead."""


class Log(Protocol):
    """Takes the figures of a training."""

    def train(self, event: TrainEvent) -> None:
        """Take the figures of this epoch's images so far."""

    def val(self, event: ValEvent, net: Net) -> None:
        """Take the figures of a validation and the network that was validated."""

    def advance(self) -> None:
        """Count a step."""


class TrainingGuard(Protocol):
    """Measures some steps, and may find that the training cannot learn."""

    @property
    def fatal(self) -> Exception | None:
        """Why this training has to stop, or None."""

    def looks_at(self, step: int) -> bool:
        """Whether this step is measured by hooks, which compiled code does not call."""

    def look(self, step: int) -> AbstractContextManager[None]:
        """Measure the step that is made in the `with` block."""


class Checkpoints(Protocol):
    """Saves a training. `again` is the command that continues it."""

    again: AdvisedCall

    def save(self, trainer: "Trainer", best: bool) -> None:
        """Save `Trainer.state_dict`. All processes of a team call it."""

    def failed(self) -> bool:
        """Whether a save has failed so far."""

    def wait(self) -> None:
        """Wait until everything is on the disk; raise the error of a save that failed."""


@dataclass(frozen=True)
class SecondLook:
    """A check after `after_s` seconds, or after the first epoch if that ends sooner.

    `look` takes the step. It returns whether training has to start again from step 0.
    """

    look: Callable[[int], bool]
    after_s: float


class Trainer:
    """A network in training: from step 0, from other weights, or from a checkpoint (`start`).

    `data` is a data set as `open_dataset` of alexnet.data opens it, as in
    `Trainer(recipe, open_dataset(recipe))`, or splits and statistics (`Split` and `Statistics` of
    alexnet.data) of your own in a TrainingData.

    Weights and figures depend on recipe and data alone: wherever a training is interrupted and
    continued, the bits are the same on the same processor, with the same number of threads and
    processes. Every process of a `team` builds a trainer.

    `weights` replace the initial weights of the seed where names and shapes agree. `change` alters
    the specification of the network, for an ablation that has no name.
    """

    @checked()
    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData | Dataset,
        *,
        start: Mapping[str, Any] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        change: Callable[[Spec], Spec] | None = None,
        team: Team = ALONE,
    ) -> None:
        if isinstance(data, Dataset):
            classes = len(data.classes)
            data = TrainingData(data.train, data.val, classes, data.statistics)
        self.recipe, self.data, self.team = recipe, data, team
        self.device = pick_device()
        self.preprocess = preprocessing(recipe, data.statistics)
        self.steps_per_epoch = steps_per_epoch(len(data.train), recipe.batch_size)
        self.total_steps = total_steps(recipe, self.steps_per_epoch)
        self.steps_per_validation = validation_steps(recipe, self.steps_per_epoch)
        self.share = Share(team.rank, team.ranks, recipe.accumulate)
        self.share.places(recipe.batch_size)  # raises if a process would get no images
        self.state = State()
        self.state.sums = self.state.sums.to(self.device)

        net = build_net(recipe, data.classes, change)
        self._shapes = {name: t.shape for name, t in net.state_dict().items()}
        if start is None and weights is not None:
            say(f"weights: {take_weights(net, weights, option('init'))}")
        self.net = net.to(self.device)
        self.towers = build_towers(net, recipe, data.classes, team)
        self.optimizer = build_optimizer(net, recipe)
        if start is not None:
            self.load_state_dict(start)
        elif recipe.whiten and weights is None:
            self._whiten_first_layer()
        counts = np.bincount(data.train.labels, minlength=data.classes)
        self.class_weights = class_weights(recipe, counts, self.device)
        self.class_shares = counts / counts.sum()  # of the training labels
        if self.class_weights is not None:  # the loss weighs all classes alike
            self.class_shares = np.full(data.classes, 1 / data.classes)
        self.model: nn.Module = self.net
        if not self.state.finished:
            self.model = distribute(self.net, team)

    @cached_property
    def step_model(self) -> nn.Module:
        """The model for steps without hooks: compiled if the recipe asks for it."""
        return compiled(self.model, self.recipe, self.team)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        state = self.state
        return learning_rate(
            self.recipe, state.step, self.steps_per_epoch, self.total_steps, state.watch.drops
        )

    def batches(self, steps: range | None = None, **options: Any) -> Iterator[Batch]:
        """Yield this process's share of the batches of `steps`, by default all remaining steps.

        `options` are passed to `training_batches`.
        """
        steps = range(self.state.step, self.total_steps) if steps is None else steps
        recipe = self.recipe
        return training_batches(
            self.data.train, recipe, steps, recipe.workers, self.device, self.share, **options
        )

    def train_step(
        self,
        batch: Batch,
        *,
        lr: float | None = None,
        sums: Tensor | None = None,
        hooked: bool = False,
    ) -> Tensor:
        """Update the weights once. Returns this process's share of the mean loss, on the device.

        `lr` replaces the learning rate of the schedule. Images, loss, top-1 and top-5 hits are
        added to `sums` (4,), by default those of this epoch in the state. With `hooked` the step
        is not compiled, so that hooks on parts of the network are called.
        """
        state = self.state
        if sums is None:
            if state.step % self.steps_per_epoch == 0:
                state.sums = torch.zeros_like(state.sums)
            sums = state.sums
        loss = train_step(
            self.model if hooked else self.step_model,
            self.optimizer,
            batch,
            self.learning_rate if lr is None else lr,
            self.recipe,
            self.preprocess,
            sums,
            self.class_weights,
            self.team,
        )
        state.step += 1
        return loss

    def validate(self, unread: Unread | None = None) -> Tally:
        """Evaluate on the validation images, all processes together; see `evaluate`."""
        recipe = self.recipe
        return evaluate(
            self.net,
            self.data.val,
            self.preprocess,
            self.data.classes,
            views=recipe.views,
            precision=recipe.precision,
            batch=recipe.eval_batch,
            workers=recipe.workers,
            team=self.team,
            unread=unread,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs. All processes call it.

        `model` and `optimizer` are whole tensors by name, also where towers hold halves; `state`
        is plain data. The tensors are the network's own, which the next step changes: clone those
        that you keep.
        """
        model, moments = dict(self.net.state_dict()), optimizer_tensors(self.optimizer, self.net)
        if self.towers is not None:
            model, moments = self.towers.whole(model), self.towers.whole(moments)
        return {
            "model": model,
            "optimizer": moments,
            "state": self.state.to_record(self.recipe, self.team).to_json(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, also with another number of processes.

        Raises CheckpointError if it is of another recipe or network; the message names the entry
        `source` of `saved`.
        """
        source = str(saved.get("source", "the state"))
        check_recipe(saved["state"], self.recipe, source)
        check_weights(self._shapes, saved["model"], source)
        model, moments = saved["model"], saved["optimizer"]
        if self.towers is not None:
            model, moments = self.towers.cut(model), self.towers.cut(moments)
        self.net.load_state_dict(model)
        load_optimizer(self.optimizer, self.net, moments)
        self.state = State.from_record(SavedState.from_json(saved["state"], source), self.team)
        self.state.sums = self.state.sums.to(self.device)

    def run(
        self,
        *,
        reader: Reader | None = None,
        log: Log | None = None,
        checkpoints: Checkpoints | None = None,
        guard: TrainingGuard | None = None,
        clock: Clock | None = None,
        signals: DeferredSignals | None = None,
        second_look: SecondLook | None = None,
    ) -> State:
        """Train to the recipe's end, or until `second_look` decides to start again.

        In the second case, only for a process that is alone, the state is not `finished`.
        Raises Interrupted, after saving, when a signal has arrived; NotFinite at the first loss
        that is not finite; `guard.fatal`; and the reader's failure.
        """
        state, recipe, losses = self.state, self.recipe, LossWatch(self.total_steps)
        reader, log = reader or PlainReader(self), log or NoLog()
        checkpoints, guard = checkpoints or NoCheckpoints(), guard or NoGuard()
        clock, signals = clock or self.clock(), signals or DeferredSignals(())
        _ = self.step_model  # prints that it compiles before the first step
        saves, loss, batch = False, torch.tensor(0.0), None
        while True:
            if second_look and self._is_time_for(second_look, clock):
                with clock.paused():
                    starts_again = second_look.look(state.step)
                if starts_again and not signals.received:
                    break
                second_look = None
            validates = state.due
            best = validates and self._validate(reader, log, clock, loss)
            if not state.finished and reader.failure is None:
                reader.fetch(clock)
            requests = self._exchange_requests(reader, checkpoints, guard, signals, losses)
            if requests.not_finite:
                raise self._not_finite(loss, requests.not_finite, batch)
            if validates or requests.stop or requests.fatal or saves or reader.failure:
                self.save(checkpoints, clock, loss, best=best)
            if requests.fatal:  # also at the last step: a run that cannot learn is a failure
                raise guard.fatal or Elsewhere()
            if state.finished:
                break
            if requests.stop or reader.failure:
                checkpoints.wait()
                if requests.stop:
                    raise self._interrupted(requests, checkpoints)
                raise reader.reason()

            batch, lr = reader.take(), self.learning_rate
            with guard.look(state.step):
                loss = self.train_step(batch, lr=lr, hooked=guard.looks_at(state.step))
            losses.note(state.step, loss)
            log.advance()
            state.due = state.step % self.steps_per_validation == 0 or self.is_at_end
            saves = bool(recipe.save_every) and state.step % recipe.save_every == 0
            if state.due or state.step % recipe.log_every == 0:
                mean = self.team.sum(loss).item()
                if not math.isfinite(mean):
                    raise self._not_finite(loss, state.step, batch)
                log.train(self._train_event(mean, lr, clock))
        reader.close()
        state.seconds = clock.seconds()
        return state

    @property
    def is_at_end(self) -> bool:
        """Whether all steps are done."""
        return self.state.step == self.total_steps

    def clock(self) -> Clock:
        """A clock that continues from the seconds that the training has taken so far."""
        return Clock(self.state, self.total_steps, self.recipe.batch_size)

    def save(
        self, checkpoints: Checkpoints, clock: Clock, loss: Tensor | None = None, *, best: bool
    ) -> None:
        """Save the training. Raises NotFinite if weights or optimiser state are not finite."""
        with clock.paused():
            self._refuse_not_finite(loss)
            self.state.seconds = clock.seconds()
            checkpoints.save(self, best)

    def _validate(self, reader: Reader, log: Log, clock: Clock, loss: Tensor) -> bool:
        """Validate, and return whether this is the best so far.

        If images cannot be read the validation stays due, and is made after the run continues.
        """
        self._refuse_not_finite(loss)
        state, recipe = self.state, self.recipe
        with clock.paused():
            tally = reader.evaluate(state.step, self.validate)
            if tally is None:
                return False
            state.due = False
            figures = tally.figures()
            event = ValEvent(
                step=state.step,
                epoch=state.step / self.steps_per_epoch,
                **figures.by_field(),
                views=recipe.views if recipe.views > 1 else None,
            )
            log.val(event, self.net)
            best, state.finished = state.watch.update(
                figures.top1, figures.loss, state.step, recipe
            )
            if self.is_at_end:
                state.finished = state.finished or "all steps are done"
            return best

    def _exchange_requests(
        self,
        reader: Reader,
        checkpoints: Checkpoints,
        guard: TrainingGuard,
        signals: DeferredSignals,
        losses: "LossWatch",
    ) -> "_StopRequests":
        """Return the requests of all processes, so that all follow them at the same step."""
        stop, fatal, failed, disagree, early = self.team.largest(
            signals.received or 0,
            guard.fatal is not None,
            checkpoints.failed(),
            reader.needs_agreement,
            losses.earliness,
        )
        if stop:  # of any process: all end with its exit status
            signals.received = stop
        if failed:
            checkpoints.wait()
            raise Elsewhere()
        not_finite = self.total_steps + 1 - early if early else 0
        if disagree and not stop and not not_finite:
            reader.agree(self.state.step)
        return _StopRequests(stop, bool(fatal), not_finite)

    def _interrupted(self, requests: "_StopRequests", checkpoints: Checkpoints) -> Interrupted:
        say(f"saved at step {self.state.step:,} of {self.total_steps:,}")
        return Interrupted(requests.stop, str(checkpoints.again))

    def _is_time_for(self, second: SecondLook, clock: Clock) -> bool:
        step = self.state.step
        return 0 < step < self.total_steps and (
            clock.seconds() >= second.after_s or step >= self.steps_per_epoch
        )

    def _train_event(self, loss: float, lr: float, clock: Clock) -> TrainEvent:
        """Figures of this epoch so far over all processes, with the mean loss of the last step."""
        step = self.state.step
        n, losses, hits1, hits5 = self.team.sum(self.state.sums).tolist()
        return TrainEvent(
            step=step,
            epoch=step / self.steps_per_epoch,
            loss=loss,
            n=round(n),
            loss_mean=losses / n,
            top1=hits1 / n,
            top5=hits5 / n if self.data.classes > 5 else None,
            lr=lr,
            **clock.read(step),
        )

    def _refuse_not_finite(self, loss: Tensor | None) -> None:
        """Raise NotFinite if weights or optimiser state are not finite."""
        tensors = {**self.net.state_dict(), **optimizer_tensors(self.optimizer, self.net)}
        bad = [name for name, t in tensors.items() if not bool(t.isfinite().all())]
        if any(self.team.largest(bool(bad))):
            loss = torch.tensor(0.0) if loss is None else loss
            raise self._not_finite(loss, self.state.step, where=bad[0] if bad else "")

    def _not_finite(
        self, loss: Tensor, step: int, batch: Batch | None = None, where: str = ""
    ) -> Exception:
        mean = self.team.sum(loss).item()
        if not self.team.leads:
            return Elsewhere()
        x = None
        if batch is not None and self.towers is None:
            x = augment(
                batch.images, batch.ids, batch.epoch, self.recipe, self.preprocess, batch.leaders
            )
        # In training mode a batch norm of several processes would wait for the others.
        net = self.net if self.team.size == 1 else self.net.eval()
        return NotFinite(step, mean, where or first_not_finite(net, x))

    def _whiten_first_layer(self) -> None:
        """Initialise the first layer from training images; see `whiten`.

        Raises Unreadable if images cannot be read, unless the recipe skips them.
        """
        train = self.data.train
        ids = draws.permutation(0, 0, len(train), draws.SPLIT)[:WHITEN_IMAGES]
        pixels, unread = train.try_read(ids)
        if unread and self.recipe.bad_images == "stop":
            raise Unreadable("train", unread)
        images = torch.from_numpy(pixels[~np.isin(ids, list(unread))])
        whiten(self.net, self.preprocess.views(images, 1)[0])


@dataclass(frozen=True)
class _StopRequests:
    """What any process of the team asks for: a signal to `stop` with, a `fatal` verdict of a guard,
    and the first step whose loss is not finite; 0 or False for none."""

    stop: int
    fatal: bool
    not_finite: int


class LossWatch:
    """Finds the first step whose loss is not finite, without waiting for the device.

    On a CPU the loss is read at once. On a GPU a flag of each step is copied to the host behind the
    step, and read when the copy has arrived: usually one step later.
    """

    def __init__(self, total: int) -> None:
        self._total, self._first = total, 0
        self._flags: Tensor | None = None
        self._pending: deque[tuple[int, int, Any]] = deque()

    def note(self, step: int, loss: Tensor) -> None:
        """Record the loss of step `step`, counted from 1."""
        if loss.device.type != "cuda":
            if not self._first and not math.isfinite(loss.item()):
                self._first = step
            return
        if self._flags is None:
            self._flags = torch.empty(PINNED, dtype=torch.bool, pin_memory=True)
        if len(self._pending) == PINNED:  # the host is that many steps ahead
            self._pending[0][2].synchronize()
            self._read()
        place = step % PINNED
        self._flags[place].copy_(loss.isfinite(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending.append((step, place, event))

    @property
    def first(self) -> int:
        """The first step, counted from 1, whose loss is known not to be finite; 0 for none."""
        self._read()
        return self._first

    @property
    def earliness(self) -> int:
        """A number that grows the earlier that step was; 0 for none.

        The largest of several processes belongs to the earliest step.
        """
        return self._total + 1 - self.first if self.first else 0

    def _read(self) -> None:
        while self._pending and self._pending[0][2].query():
            step, place, _ = self._pending.popleft()
            assert self._flags is not None
            if not self._first and not bool(self._flags[place]):
                self._first = step


class PlainReader:
    """Reads the batches of a trainer in order; an image that cannot be read ends the training."""

    failure: Exception | None = None
    needs_agreement = False

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._batches: Iterator[Batch] | None = None
        self._batch: Batch | None = None

    def fetch(self, clock: Clock) -> None:
        if self._batches is None:
            self._batches = clock.waiting(self._trainer.batches())
        self._batch = next(self._batches)

    def take(self) -> Batch:
        assert self._batch is not None
        return self._batch

    def agree(self, step: int) -> None: ...

    def evaluate(self, step: int, measure: Callable[[Unread | None], Tally]) -> Tally | None:
        return measure(None)

    def reason(self) -> Exception:
        raise AssertionError("a plain reader raises its errors at once")

    def close(self) -> None:
        self._batches = None


class NoLog:
    """A log that records nothing."""

    def train(self, event: TrainEvent) -> None: ...

    def val(self, event: ValEvent, net: Net) -> None: ...

    def advance(self) -> None: ...


class NoCheckpoints:
    """Checkpoints that are not written."""

    again = call("train", resume=True)

    def save(self, trainer: Trainer, best: bool) -> None: ...

    def failed(self) -> bool:
        return False

    def wait(self) -> None: ...


class NoGuard:
    """A guard that measures nothing."""

    fatal: Exception | None = None

    def looks_at(self, step: int) -> bool:
        return False

    def look(self, step: int) -> AbstractContextManager[None]:
        return nullcontext()
