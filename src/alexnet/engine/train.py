"""The training loop: batch, step, log, evaluate, save."""

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.data.dataset import Dataset
from alexnet.data.loader import Batch, steps_per_epoch, training_batches
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.sentinel import Sentinel, first_not_finite
from alexnet.diagnosis.verdict import Verdict
from alexnet.engine.evaluate import evaluate
from alexnet.engine.network import (
    WHITEN_IMAGES,
    build_net,
    load_weights,
    preprocessing,
    take_weights,
    whiten,
)
from alexnet.engine.optim import build_optimizer, load_optimizer, optimizer_tensors, set_rate
from alexnet.engine.record import Doctor, Record
from alexnet.engine.schedule import Watch, learning_rate
from alexnet.errors import Diverged, Interrupted
from alexnet.interrupt import Signals
from alexnet.metrics import topk_hits
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.runtime import autocast, pick_device
from alexnet.store.checkpoint import Checkpoint, save_checkpoint
from alexnet.store.rundir import RunDir
from alexnet.terminal import progress, say


@dataclass
class State:
    """What a run is in the middle of; with the weights and the optimiser, all of a checkpoint.

    `sums` are this epoch's images, loss, top-1 and top-5 hits so far; `seconds` is time spent;
    `finished` says why the run ended, or is empty.
    """

    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    watch: Watch = field(default_factory=Watch)
    seconds: float = 0.0
    finished: str = ""

    def to_dict(self, recipe: Recipe) -> dict[str, Any]:
        sums, watch = self.sums.tolist(), asdict(self.watch)
        return {**vars(self), "sums": sums, "watch": watch, "recipe": recipe.digest}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "State":
        sums = torch.tensor(values["sums"], dtype=torch.float64)
        watch = Watch(**values["watch"])
        return State(values["step"], sums, watch, values["seconds"], values["finished"])


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
) -> State:
    """Trains from the beginning or from a checkpoint until the recipe's end, saving as it goes.

    `weights` are what a beginning starts from in the place of the seed's, as far as they fit;
    `show` is called with the step and the network after each validation.
    Raises Interrupted, after saving, when SIGINT or SIGTERM arrives, and Diverged when the loss is
    not a number or, with `doctor` at "stop", when the sentinel finds that it will not learn.
    Weights and metrics are a function of the recipe and the data alone: wherever a run is cut and
    resumed, they are the same bits on the same CPU and thread count.
    """
    train, val = dataset.train, dataset.val
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    total = recipe.steps or math.ceil(recipe.epochs * per_epoch)
    eval_steps = max(1, round(recipe.eval_every * per_epoch))
    preprocess = preprocessing(recipe, statistics)
    model, optimizer, state = _begin(recipe, len(dataset.classes), start, weights)
    if state.finished:
        return state
    if recipe.whiten and start is None and weights is None:
        ids = np.arange(min(WHITEN_IMAGES, len(train)))
        ids = draws.permutation(0, 0, len(train), draws.SPLIT)[: len(ids)]
        whiten(model, preprocess.views(torch.from_numpy(train.read(ids)), 1)[0])
    clock = _Clock(state, total, recipe.batch_size)
    loss = torch.tensor(0.0)

    counts = np.bincount(train.labels, minlength=len(dataset.classes))
    weight = class_weights(recipe, counts, state.sums.device)
    shares = counts if weight is None else np.ones_like(counts)  # as the loss sees them
    sentinel = Sentinel(model, (shares / shares.sum()).tolist())
    record = Record(run, board, per_epoch, sentinel, doctor)
    if start is not None:
        record.read_back(state.step)
    again = f"alexnet train --resume --run {shlex.quote(str(run.path))}"

    def stopped(v: Verdict) -> Diverged:
        return Diverged(
            f"stopped at step {state.step:,}: {v.name}: {v.evidence}; {v.advice}; "
            f"to go on all the same: {again} --doctor say"
        )

    def diverged(loss: float, batch: Batch | None = None) -> Diverged:
        x = None
        if batch is not None:
            x = augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)
        where = first_not_finite(model, x)
        run.log({"event": "diverged", "step": state.step, "loss": str(loss), "where": where})
        return Diverged(
            f"the loss is {loss} at step {state.step:,}, from {where} on: try --lr "
            f"{recipe.lr / 10:g}; the checkpoints before it are kept in {run.path}"
        )

    def save(best: bool = False) -> None:
        if not all(p.isfinite().all() for p in model.parameters()):
            raise diverged(loss.item())
        state.seconds = clock.seconds()
        save_checkpoint(
            run.checkpoints,
            state.step,
            model=model.state_dict(),
            optimizer=optimizer_tensors(optimizer, model),
            state=state.to_dict(recipe),
            best=best,
            keep=recipe.keep,
        )

    if record.fatal:  # before a restart
        raise stopped(record.fatal)
    if start is None:
        save()  # so that a kill before the first validation loses no more than that

    device, steps = state.sums.device, range(state.step, total)
    with Signals() as signals, progress("training", total, "steps", state.step, plain=False) as bar:
        record.bar = bar
        batches = training_batches(train, recipe, steps, recipe.workers, device)
        for batch in clock.waiting(batches):
            lr = learning_rate(recipe, state.step, per_epoch, total, state.watch.drops)
            if state.step % per_epoch == 0:
                state.sums = torch.zeros_like(state.sums)
            with record.look(state.step):
                loss = train_step(
                    model, optimizer, batch, lr, recipe, preprocess, state.sums, weight
                )
            state.step += 1
            bar.advance()

            validate = state.step % eval_steps == 0 or state.step == total
            save_now = recipe.save_every and state.step % recipe.save_every == 0
            if validate or state.step % recipe.log_every == 0:
                if not loss.isfinite():
                    raise diverged(loss.item(), batch)
                figures = {"loss": loss.item(), **_means(state.sums, len(dataset.classes))}
                record.add("train", state.step, {**figures, "lr": lr, **clock.read(state.step)})
            if validate:
                with clock.paused():
                    tally = evaluate(
                        model,
                        val,
                        preprocess,
                        len(dataset.classes),
                        views=recipe.views,
                        precision=recipe.precision,
                        batch=recipe.eval_batch,
                        workers=recipe.workers,
                    )
                    found = tally.figures()
                    record.add("val", state.step, found)
                    if show is not None:
                        show(state.step, model)
                    best, state.finished = state.watch.update(
                        found["top1"], found["loss"], state.step, recipe
                    )
                    if state.step == total:
                        state.finished = state.finished or "all steps are done"
                    save(best)
            elif signals.received or record.fatal or save_now:
                with clock.paused():
                    save()
            if state.finished:
                break
            if record.fatal:
                raise stopped(record.fatal)
            if signals.received:
                say(f"saved at step {state.step:,} of {total:,}")
                raise Interrupted(signals.received, again)
    state.seconds = clock.seconds()
    return state


def train_step(
    model: Net,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lr: float,
    recipe: Recipe,
    preprocess: Preprocess,
    sums: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """One update from a batch on the model's device; `weight` (K,) is what each class counts.

    Returns the mean loss, and adds to `sums` without waiting for the device.
    """
    labels = batch.labels
    x = augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)
    x, other_labels, share = mix(x, labels, batch.step, recipe)
    if recipe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(draws.net_seed(recipe.seed, batch.step))
    set_rate(optimizer, lr, batch.epoch)
    with autocast(x.device, recipe.precision):
        logits = model(x)
    loss = F.cross_entropy(logits, labels, weight, label_smoothing=recipe.label_smoothing)
    if share < 1:
        other = F.cross_entropy(
            logits, other_labels, weight, label_smoothing=recipe.label_smoothing
        )
        loss = share * loss + (1 - share) * other
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        n = len(labels)
        hits = [topk_hits(logits, labels, k)[:, 2].sum() for k in (1, 5)]
        sums += torch.stack([loss.new_tensor(n), loss.detach() * n, *hits]).double()
    return loss.detach()


def class_weights(
    recipe: Recipe, counts: NDArray[np.integer], device: torch.device
) -> Tensor | None:
    """What an image of each class counts, (K,) with mean 1 over the images; None for all alike."""
    if recipe.class_weights == "none":
        return None
    weights = counts.sum() / (len(counts) * counts)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _begin(
    recipe: Recipe,
    classes: int,
    start: Checkpoint | None,
    weights: Mapping[str, Tensor] | None,
) -> tuple[Net, torch.optim.Optimizer, State]:
    device = pick_device()
    model = build_net(recipe, classes).to(device)
    optimizer = build_optimizer(model, recipe)
    state = State()
    if start is not None:
        load_weights(model, start, recipe)
        load_optimizer(optimizer, model, start.optimizer)
        state = State.from_dict(start.state)
    elif weights is not None:
        say(f"weights: {take_weights(model, weights, '--init')}")
    state.sums = state.sums.to(device)
    return model, optimizer, state


def _means(sums: Tensor, classes: int) -> dict[str, Any]:
    n, loss, hits1, hits5 = sums.tolist()
    return {
        "loss_mean": loss / n,
        "top1": hits1 / n,
        "top5": hits5 / n if classes > 5 else None,
    }


class _Clock:
    """Throughput and time left, of training alone: validation and saving are not counted."""

    def __init__(self, state: State, total: int, batch: int) -> None:
        self._total, self._batch, self._before = total, batch, state.seconds
        self._began = self._since = time.monotonic()
        self._step, self._rate, self._waited = state.step, 0.0, 0.0

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def read(self, step: int) -> dict[str, float]:
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
