"""alexnet train: its arguments and what it prints."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_recipe_fields, add_verb
from alexnet.support.terminal import duration, escaped, percent_with_interval

if TYPE_CHECKING:
    from alexnet.records import TrainResult


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "train", "Train a recipe, or continue a run.", call, show, shared=True)
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a name (see `alexnet recipes`), FILE.toml, or "
        "recipe.json of a run to do it again; default: digits, or with --data one "
        "that is chosen",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of images, IDX, CIFAR, or a set's name"
    )
    parser.add_argument("--run", metavar="DIR", help="where to write (default: runs/RECIPE-N)")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="MIN",
        help="with --data alone: about how long to train (default: 20)",
    )
    parser.add_argument("--init", metavar="RUN_OR_FILE", help="weights to start from")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard/")
    parser.add_argument(
        "--doctor",
        choices=("stop", "say", "off"),
        default="stop",
        help="what is done when it cannot learn (default: stop)",
    )
    parser.add_argument(
        "--no-doctor",
        dest="doctor",
        action="store_const",
        const="off",
        help="short for --doctor off",
    )
    parser.add_argument(
        "--towers",
        type=int,
        default=1,
        metavar="INT",
        help="2: a tower of alexnet-2012 a process, under torchrun",
    )
    parser.add_argument(
        "--stop-signal",
        metavar="NAME",
        help="also save and stop at it (SIGINT, SIGTERM, SIGUSR1 always)",
    )
    add_recipe_fields(parser)


def call(**options: Any) -> TrainResult:
    from alexnet.commands.train import train

    return train(**options)


def show(r: TrainResult) -> None:
    views, at = "", ""
    left_out = ""
    if r.left_out:
        more = f" and {len(r.left_out) - 1:,} more" if len(r.left_out) > 1 else ""
        left_out = f"left out     {escaped(r.left_out[0].path)}{more}, which cannot be read\n"
    if r.views > 1:
        views, at = f" --views {r.views}", f" of {r.views} views"
    pace = r.images_per_s
    steps = f" in all, {pace:,.0f} images/s in training steps" if pace else ""
    best = percent_with_interval(r.top1, r.top1_ci95, r.n)
    print(
        f"{r.finished}: best validation top-1 {best}{at} "
        f"at step {r.best_step:,}; {duration(r.wall_s)}{steps}\n"
        f"run          {r.run}\n"
        f"report       {r.report}\n"
        f"recipe       {r.recipe_file}\n"
        f"{left_out}"
        f"test it      alexnet test {shlex.quote(r.run)}{views}"
    )
