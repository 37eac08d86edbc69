"""The training itself, once recipe, data and run are settled, and what is made of it at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alexnet.commands.boarding import Show
from alexnet.commands.reporting import report
from alexnet.data.bad_images import left_out_of
from alexnet.data.dataset import Dataset
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, Diverged
from alexnet.interchange.certificate import certify_run
from alexnet.predict import load
from alexnet.recipe import Recipe
from alexnet.runs.board import Board
from alexnet.runs.checkpoint import Checkpoint, find_checkpoint
from alexnet.runs.rundir import RunDir
from alexnet.terminal import say
from alexnet.training.network import preprocessing
from alexnet.training.parallel import Team
from alexnet.training.record import Doctor
from alexnet.training.state import State
from alexnet.training.train import SecondLook, fit

RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True)
class How:
    """What of a call does not change what is computed."""

    tensorboard: bool
    doctor: Doctor
    stop: Sequence[int]


def train_on(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    folder: RunDir,
    start: Checkpoint | None,
    how: How,
    team: Team,
    weights: Mapping[str, Tensor] | None = None,
    second_look: SecondLook | None = None,
) -> State:
    """Trains from the beginning or from `start` as far as `fit` goes."""
    board, show = None, None
    if how.tensorboard and team.leads:
        board = Board(folder.path, start.step if start else 0)
        show = Show(board, dataset.val, preprocessing(recipe, statistics), dataset.classes)
    try:
        state = fit(
            recipe, dataset, statistics, folder, start,
            weights=weights, board=board, show=show, doctor=how.doctor, team=team, stop=how.stop,
            second_look=second_look,
        )  # fmt: skip
        if board is not None and state.finished:
            best_of = {"best/acc1": state.watch.best_top1, "best/loss": state.watch.best_loss}
            board.settings(recipe.to_dict(), best_of)
    except Diverged as error:
        page = _page(folder)["out"]
        raise Diverged(f"{error}; its page: {page}" if page else str(error)) from error
    finally:
        if board is not None:
            board.close()
        folder.close()
    return state


def _page(folder: RunDir) -> dict[str, Any]:
    """The run's page: `out`, or None where there can be none, and `figures`."""
    try:
        return report(folder.path, brief=True)
    except CheckpointError as error:  # what was trained is worth more than its page
        say(f"warning: no report: {error}")
    return {"out": None, "figures": []}


def training_pace(events: Sequence[Mapping[str, Any]], batch: int) -> float | None:
    """Images a second of training steps alone, over every stretch of steps that the log has:
    without validation, saving and reports. None where it has none.

    The rate of each line is of the steps since the line before, or since the run was continued.
    """
    images, seconds, before = 0.0, 0.0, 0
    for event in events:
        if event["event"] == "train" and (rate := event.get("images_per_s")):
            images += (event["step"] - before) * batch
            seconds += (event["step"] - before) * batch / rate
        if event["event"] in ("train", "resume"):
            before = event["step"]
    return round(images / seconds, 1) if seconds > 0 else None


def finish(recipe: Recipe, folder: RunDir, state: State) -> dict[str, Any]:
    """Makes certificate and page of a trained run; its figures."""
    certify_run(load(folder.path))
    events = folder.events()
    validations = (e for e in events if e["event"] == "val")
    lost = {
        "top1": state.watch.best_top1,
        "loss": state.watch.best_loss,
    }  # with its line in the log
    best = next((e for e in validations if e["step"] == state.watch.best_step), lost)
    page = _page(folder)
    result = {k: best.get(k) for k in ("top1", "top1_ci95", "top5", "top5_ci95", "loss", "n")}
    return {
        **result,
        "run": str(folder.path),
        "checkpoint": str(find_checkpoint(folder.checkpoints, "best")),
        "recipe": recipe.name,
        "recipe_file": str(folder.path / RECIPE_FILE),
        "step": state.step,
        "best_step": state.watch.best_step,
        "views": recipe.views,
        "finished": state.finished,
        "images_per_s": training_pace(events, recipe.batch_size),
        "wall_s": round(state.seconds, 2),
        "report": page["out"],
        "figures": page["figures"],
        "left_out": left_out_of(folder.path, folder.recipe["data"]),
    }
