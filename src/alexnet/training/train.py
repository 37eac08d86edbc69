"""The training loop: batch, step, log, evaluate, save."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment
from alexnet.data.dataset import Dataset
from alexnet.data.loader import Batch, Share, steps_per_epoch
from alexnet.data.slices import Slice
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.sentinel import Sentinel, first_not_finite
from alexnet.diagnosis.verdict import Verdict
from alexnet.errors import DataError, Diverged, Elsewhere, Interrupted, Unreadable
from alexnet.interrupt import PREEMPT, Signals
from alexnet.launch import launched
from alexnet.models.net import Net
from alexnet.recipe import Recipe
from alexnet.runs.checkpoint import Checkpoint, save_checkpoint
from alexnet.runs.rundir import RunDir
from alexnet.runs.writer import Writer, snapshot
from alexnet.runtime import pick_device
from alexnet.terminal import progress, say, shows_top5
from alexnet.training.compiled import compiled
from alexnet.training.digest_keeper import DigestKeeper
from alexnet.training.evaluate import evaluate
from alexnet.training.intake import Intake
from alexnet.training.network import (
    WHITEN_IMAGES,
    build_net,
    load_weights,
    preprocessing,
    take_weights,
    whiten,
)
from alexnet.training.optim import build_optimizer, load_optimizer, optimizer_tensors
from alexnet.training.parallel import ALONE, Team
from alexnet.training.record import Doctor, Record
from alexnet.training.schedule import learning_rate, total_steps, validation_steps
from alexnet.training.spread import spread
from alexnet.training.state import Clock, State
from alexnet.training.step import train_step
from alexnet.training.towers import Towers, build_towers


@dataclass(frozen=True)
class SecondLook:
    """At how a training is computed, once, after its first seconds or at its first epoch's end.

    `look` is given the step; it says whether training is to start again from step 0.
    """

    look: Callable[[int], bool]
    after_s: float


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
    """Trains from the beginning or from a checkpoint until the recipe's end, saving as it goes; or,
    alone in its team, until a `second_look` says that it is to start again: then what comes back is
    not `finished`.

    `weights` are what a beginning starts from in the place of the seed's, as far as they fit;
    `show` is called with the step and the network after each validation.
    Raises Interrupted, after saving, when a signal of `stop` arrives, and Diverged when the loss is
    not a number or, with `doctor` at "stop", when the sentinel finds that it will not learn.
    Weights and metrics are a function of the recipe and the data alone: wherever a run is cut and
    resumed, they are the same bits on the same CPU, thread count and number of processes. Every
    process of a `team` calls this; the first writes and looks, and all stop at the same step.
    """
    keeper = DigestKeeper(run, dataset.train, dataset.val, resumed=start is not None)
    train, val = keeper.train, keeper.val
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    total = total_steps(recipe, per_epoch)
    eval_steps = validation_steps(recipe, per_epoch)
    preprocess = preprocessing(recipe, statistics)
    share = Share(team.rank, team.ranks, recipe.accumulate)
    share.places(recipe.batch_size)  # refuses what leaves a process without images
    net, towers, optimizer, state = _begin(recipe, len(dataset.classes), start, weights, team)
    if state.finished:
        return state
    keeper.read_what_is_in_memory(dataset, recipe.workers)
    if recipe.whiten and start is None and weights is None:
        _whiten(net, recipe, train, preprocess)
    model = spread(net, team)
    quick = compiled(model, recipe, team)
    clock = Clock(state, total, recipe.batch_size)
    loss = torch.tensor(0.0)

    counts = np.bincount(train.labels, minlength=len(dataset.classes))
    weight = class_weights(recipe, counts, state.sums.device)
    shares = counts if weight is None else np.ones_like(counts)  # as the loss sees them
    sentinel = Sentinel(net, (shares / shares.sum()).tolist())
    record = Record(
        run,
        board,
        per_epoch,
        recipe.batch_size,
        sentinel,
        doctor if team.leads else "off",
        shows_top5(len(dataset.classes)),
    )
    if start is not None:
        record.read_back(state.step)
    again = f"alexnet train --resume --run {shlex.quote(str(run.path))}"
    writer = Writer()

    def stopped(v: Verdict | None) -> Exception:
        if v is None:
            return Elsewhere()
        return Diverged(
            f"stopped at step {state.step:,}: {v.name}: {v.evidence}; {v.advice}; "
            f"to go on all the same: {again} --doctor say"
        )

    def diverged(loss: float, batch: Batch | None = None, where: str = "") -> Exception:
        if not team.leads:
            return Elsewhere()
        x = None
        if batch is not None and towers is None:
            x = augment(batch.images, batch.ids, batch.epoch, recipe, preprocess, batch.leaders)
        # Among several a batch norm would wait for the others.
        where = where or first_not_finite(net if team.size == 1 else net.eval(), x)
        run.log({"event": "diverged", "step": state.step, "loss": str(loss), "where": where})
        what = f"the loss is {loss} at step {state.step:,}, from {where} on"
        if math.isfinite(loss):  # that of the weights before the step
            what = f"{where} is not finite after step {state.step:,}, whose loss was {loss:.4g}"
        return Diverged(
            f"{what}: try --lr {recipe.lr / 10:g}; the checkpoints before it are kept in {run.path}"
        )

    def refuse_not_finite() -> None:
        """Raises Diverged where a step left what can be neither used nor gone on from."""
        tensors = {**net.state_dict(), **optimizer_tensors(optimizer, net)}
        bad = [name for name, t in tensors.items() if not bool(t.isfinite().all())]
        if any(team.largest(bool(bad))):
            raise diverged(team.sum(loss).item(), where=bad[0] if bad else "")

    def save(best: bool = False) -> None:
        """Copies what a checkpoint holds, and leaves it to be written."""
        refuse_not_finite()
        state.seconds = clock.seconds()
        keeper.save(team)
        held = [net.state_dict(), optimizer_tensors(optimizer, net)]
        if towers is not None:
            held = [towers.whole(tensors) for tensors in held]
        saved = state.to_dict(recipe, team)
        if team.leads:
            weights, moments = (snapshot(tensors) for tensors in held)
            writer.submit(
                save_checkpoint,
                run.checkpoints,
                state.step,
                model=weights,
                optimizer=moments,
                state=saved,
                best=best,
                keep=recipe.keep,
            )

    def look() -> bool:
        """Validates; whether it is the best so far. An image that cannot be read may leave it due,
        so that it is made up for before the next step."""
        refuse_not_finite()
        with clock.paused():
            gone = dict.fromkeys(dataset.bad.out_at("val", state.step).tolist(), ("", ""))
            unread = dict(gone)
            state.due = True
            try:
                tally = evaluate(
                    net,
                    val,
                    preprocess,
                    len(dataset.classes),
                    views=recipe.views,
                    precision=recipe.precision,
                    batch=recipe.eval_batch,
                    workers=recipe.workers,
                    team=team,
                    unread=unread,
                )
            except (DataError, Elsewhere) as error:
                intake.trouble = error
                return False
            intake.settle("val", {i: x for i, x in unread.items() if i not in gone}, state.step)
            if intake.trouble:
                return False
            state.due = False
            found = tally.figures()
            shown = {**found, "views": recipe.views} if recipe.views > 1 else found
            record.add("val", state.step, shown)
            if show is not None:
                show(state.step, net)
            best, state.finished = state.watch.update(
                found["top1"], found["loss"], state.step, recipe
            )
            if state.step == total:
                state.finished = state.finished or "all steps are done"
            return best

    def is_time_for(second: SecondLook) -> bool:
        return 0 < state.step < total and (
            clock.seconds() >= second.after_s or state.step >= per_epoch
        )

    if any(team.largest(record.fatal is not None)):  # before a restart
        raise stopped(record.fatal)

    steps, signals = range(state.step, total), Signals(stop, patient=launched())
    intake = Intake(dataset, train, recipe, run, steps, share, team, state.sums.device, signals)
    with writer, signals, progress("training", total, "steps", state.step, plain=False) as bar:
        record.bar = bar
        if start is None:
            with clock.paused():
                save()  # so that a kill before the first validation loses no more than that
                team.together(writer.wait)  # figures without a checkpoint cannot be gone on from
        validate, save_now = state.due, False
        while True:
            if second_look and is_time_for(second_look):
                with clock.paused():
                    again_from_0 = second_look.look(state.step)
                if again_from_0 and not signals.received:
                    intake.close()
                    break
                second_look = None
            best = validate and look()
            if not state.finished and intake.trouble is None:
                intake.fetch(clock)
            signal, fatal, failed, odd = team.largest(
                signals.received or 0,
                record.fatal is not None,
                writer.failed(),
                intake.is_odd,
            )
            if signal:  # of whichever process: all end with its status, and note what follows
                signals.received = signal
            if failed:
                writer.wait()
                raise Elsewhere()
            if odd and not signal:
                intake.agree(state.step)
            if validate or signal or fatal or save_now or intake.trouble:
                with clock.paused():
                    save(best)
            if fatal:  # also at the last step: what cannot learn has not ended well
                raise stopped(record.fatal)
            if state.finished:
                intake.close()
                break
            if signal:
                writer.wait()
                say(f"saved at step {state.step:,} of {total:,}")
                raise Interrupted(signal, again)
            if intake.trouble:
                writer.wait()
                raise intake.reason(again)

            batch = intake.take()
            lr = learning_rate(recipe, state.step, per_epoch, total, state.watch.drops)
            if state.step % per_epoch == 0:
                state.sums = torch.zeros_like(state.sums)
            # A look is by hooks on each layer, which compiled code does not call.
            used = quick if state.step % sentinel.every else model
            with record.look(state.step):
                loss = train_step(
                    used, optimizer, batch, lr, recipe, preprocess, state.sums, weight, team
                )
            if towers is not None and state.step == steps.start:
                say(towers.describe(len(batch.labels), recipe.precision))
            state.step += 1
            bar.advance()

            validate = state.step % eval_steps == 0 or state.step == total
            save_now = bool(recipe.save_every) and state.step % recipe.save_every == 0
            if validate or state.step % recipe.log_every == 0:
                mean = team.sum(loss)
                if not mean.isfinite():
                    raise diverged(mean.item(), batch)
                means = _means(team.sum(state.sums), len(dataset.classes))
                figures = {"loss": mean.item(), **means, "lr": lr, **clock.read(state.step)}
                record.add("train", state.step, figures)
    state.seconds = clock.seconds()
    return state


def save_step_0(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    checkpoints: Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    seconds: float = 0.0,
) -> None:
    """Saves the checkpoint that `fit` begins with, alone in its team, into a new folder of
    checkpoints; training goes on from it as if it had begun so. `seconds` were spent before.
    """
    net, _, optimizer, state = _begin(recipe, len(dataset.classes), None, weights, ALONE)
    if recipe.whiten and weights is None:
        _whiten(net, recipe, dataset.train, preprocessing(recipe, statistics))
    state.seconds = seconds
    save_checkpoint(
        checkpoints,
        state.step,
        model=net.state_dict(),
        optimizer=optimizer_tensors(optimizer, net),
        state=state.to_dict(recipe),
        best=False,
        keep=recipe.keep,
    )


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
    team: Team,
) -> tuple[Net, Towers | None, torch.optim.Optimizer, State]:
    device = pick_device()
    net = build_net(recipe, classes)
    if start is not None:
        load_weights(net, start, recipe)
    elif weights is not None:
        say(f"weights: {take_weights(net, weights, '--init')}")
    net = net.to(device)
    towers = build_towers(net, recipe, classes, team)
    optimizer = build_optimizer(net, recipe)
    state = State()
    if start is not None:
        moments = start.optimizer if towers is None else towers.cut(start.optimizer)
        load_optimizer(optimizer, net, moments)
        state = State.from_dict(start.state, team)
    state.sums = state.sums.to(device)
    return net, towers, optimizer, state


def _whiten(net: Net, recipe: Recipe, train: Slice, preprocess: Preprocess) -> None:
    """Makes the first layer from training images. Unreadable where some cannot be read, unless the
    recipe leaves such out."""
    ids = draws.permutation(0, 0, len(train), draws.SPLIT)[:WHITEN_IMAGES]
    pixels, unread = train.try_read(ids)
    if unread and recipe.bad_images == "stop":
        raise Unreadable("train", unread)
    seen = torch.from_numpy(pixels[~np.isin(ids, list(unread))])
    whiten(net, preprocess.views(seen, 1)[0])


def _means(sums: Tensor, classes: int) -> dict[str, Any]:
    n, loss, hits1, hits5 = sums.tolist()
    return {
        "n": round(n),
        "loss_mean": loss / n,
        "top1": hits1 / n,
        "top5": hits5 / n if classes > 5 else None,
    }
