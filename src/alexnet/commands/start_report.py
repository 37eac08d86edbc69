"""What is said before the first step of a training: its recipe, its images, its classes."""

import os

import numpy as np
import torch

from alexnet.data.dataset import Dataset
from alexnet.data.images import lies_turned
from alexnet.data.loader import steps_per_epoch
from alexnet.launch import is_launched
from alexnet.processors import describe_threads, find_processors
from alexnet.recipe import Recipe
from alexnet.terminal import shorten
from alexnet.training.parallel import Team
from alexnet.training.schedule import describe_unreached

LOOKED_AT = 64  # training files whose EXIF orientation is counted
NAMED = 12  # classes that are named


def describe_start(
    recipe: Recipe, dataset: Dataset, team: Team, threads: int, as_packed: bool
) -> list[str]:
    """The lines, in their order. `threads` are those that it computes with; `as_packed` is whether
    photos lie as the data's pack has them, and not as the recipe had it."""
    n_train, n_val = len(dataset.train), len(dataset.val)
    lines = [
        f"recipe {recipe.name} ({recipe.model}, {recipe.opt}, {recipe.schedule}, seed "
        f"{recipe.seed}, {recipe.precision}): {n_train:,} images to train on, {n_val:,} to "
        f"validate, {len(dataset.classes)} classes"
    ]
    if dataset.left_out:
        lines.append(
            f"left out, since they cannot be read: {len(dataset.left_out):,} of the images"
        )
    lines.append(f"splits: {dataset.describe_splits()}; test is not read here")
    lines.append(_name_classes(dataset))
    lines += _describe_turned(dataset)
    lines += describe_unreached(recipe, steps_per_epoch(n_train, recipe.batch_size))
    lines += _describe_processes(recipe, team)
    took = torch.get_num_threads()  # fewer were chosen by measuring, and that was said
    if threads == took and (line := describe_threads(took, find_processors())):
        lines.append(line)
    if as_packed:
        lines.append(f"orient {recipe.orient}: so {dataset.source.path} was packed")
    return lines


def _describe_processes(recipe: Recipe, team: Team) -> list[str]:
    lines = []
    if team.size > 1:
        towers = f", each a tower of {team.towers}" if team.towers > 1 else ""
        share = -(-recipe.batch_size // team.ranks)
        lines.append(
            f"{team.size} processes{towers}: up to {share} of a batch's {recipe.batch_size} images"
        )
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if is_launched() and shares_store and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        lines.append(
            "warning: processes that are started anew will not find each other: give torchrun "
            "--standalone (one host) or --rdzv-backend c10d, and set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )
    return lines


def _describe_turned(dataset: Dataset) -> list[str]:
    """How many of some training files have an EXIF orientation, and what is done about it."""
    if dataset.source.kind != "folder":
        return []
    train = dataset.train
    if isinstance(train.pixels, np.ndarray):
        train = dataset.split("train")  # the files that were decoded
    assert isinstance(train.pixels, tuple)
    at = np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(int)
    turned = sum(lies_turned(train.pixels[i]) for i in at)
    if not turned:
        return []
    applied = "they are turned upright (--orient ignore leaves them)"
    ignored = "they are left as stored (--orient apply turns them upright)"
    done = applied if train.orient == "apply" else ignored
    return [f"{turned} of {len(at)} training images looked at have an EXIF orientation: {done}"]


def _name_classes(dataset: Dataset) -> str:
    """The first classes by name, in their order, with the training images of each."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist()
    titles = dataset.source.titles
    even = min(counts) == max(counts)
    named = [
        shorten(f"{name} ({titles[name]})" if name in titles else name, 40)
        + ("" if even else f" {count:,}")
        for name, count in zip(dataset.classes, counts, strict=True)
    ]
    more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    each = f"; {counts[0]:,} images of each to train on" if even else "; images to train on"
    if more and not even:
        each = f"; {min(counts):,} to {max(counts):,} images to train on"
    return f"classes: {', '.join(named[:NAMED])}{more}{each}"
