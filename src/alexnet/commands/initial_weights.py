"""What a training is to be: recipe, data and weights put together, and refused in time."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.commands.beginning import begin
from alexnet.commands.diagnosing import examine
from alexnet.data.dataset import Dataset
from alexnet.data.images import lies_turned
from alexnet.data.loader import steps_per_epoch
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.files import sha256_of
from alexnet.launch import launched
from alexnet.models.layers import BatchNorm
from alexnet.models.zoo import find_model, model_spec
from alexnet.predict import read_recipe, read_statistics, trained_orient
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe
from alexnet.recipebook.choice import Choice
from alexnet.recipebook.written import RECORD, SUFFIX, fields_in
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint
from alexnet.runs.rundir import RunDir
from alexnet.runs.weights import read_weights
from alexnet.terminal import say, shorten
from alexnet.training.network import build_net
from alexnet.training.parallel import Team
from alexnet.training.schedule import describe_unreached, refuse_endless_warmup

LOOKED_AT = 64  # training files whose EXIF orientation is counted
NAMED = 12  # classes that are named before the first step
BRIEF_S = 5.0  # for the doctor's look before the first step
INHERITED = ("model", "channels", "size", "crop", "normalize", "orient")  # from --init RUN
MEASURED = INHERITED[1:]  # what statistics are of: images that go through another say nothing


def choose(
    recipe: str | Recipe | None,
    data: str | Path | None,
    init: str | Path | None,
    minutes: float | None,
    given: "Given",
    fields: dict[str, Any],
) -> tuple[Recipe, Choice | None, str | None]:
    """The recipe of a training, the choice where it was chosen, and the EXIF orientation where the
    user asks for one."""
    choice = None
    if given.inherited:
        kept = ", ".join(f"{k} {v}" for k, v in given.inherited.items())
        say(f"from {init}: {kept}")
    if recipe is None and data is not None:
        brought = dict(given.inherited)
        if init and not brought and "model" in fields:  # a file does not say what it is of
            brought = {"model": fields["model"]}
            if find_model(fields["model"]).keys:  # torchvision's own names
                brought["normalize"] = "torchvision"
        choice = begin(data, minutes, brought, fields)
        recipe = choice.recipe
    elif minutes is not None:
        raise UsageError(
            f"--minutes {minutes:g} is for a recipe that is chosen from --data; with one that is "
            "named say --epochs or --steps"
        )
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "digits")
    if init is not None and fields.get("whiten"):
        raise UsageError("--whiten makes the first layer, and --init brings one: leave one out")
    # What was chosen for a folder has its orientation for want of a word.
    named = fields.get("orient") or (None if choice else _names_orient(recipe))
    return chosen.adapted({**given.inherited, **fields}, init is not None), choice, named


def _names_orient(recipe: str | Recipe | None) -> str | None:
    """The orientation that a recipe of the user's own asks for; what comes with the program has
    one for want of a word."""
    if isinstance(recipe, Recipe):
        return recipe.orient if recipe.orient != Recipe().orient else None
    if recipe is not None and recipe.endswith(RECORD):
        return find_recipe(recipe).orient
    return fields_in(Path(recipe)).get("orient") if recipe and recipe.endswith(SUFFIX) else None


def as_packed(dataset: Dataset, named: str | None) -> Dataset:
    """The data with the orientation that its pack has, which nothing can change any more. `named`
    is what the user asks for; UsageError where that is another."""
    packed = dataset.source.orient
    if packed is None or packed == dataset.recipe.orient:
        return dataset
    if named is not None:
        raise UsageError(
            f"orient is {named!r}, and {dataset.source.path} was packed with --orient {packed}: "
            f"pack it again with --orient {named}, or train with --orient {packed}"
        )
    return Dataset(dataset.source, dataset.recipe.replace(orient=packed))


def check(recipe: Recipe, dataset: Dataset, digest: str, recorded: bool = False) -> None:
    """Refuses what cannot be trained before anything is written. A `recorded` recipe was trained
    once, and is trained again as it was."""
    spec = model_spec(
        recipe.model, len(dataset.classes), (recipe.channels, recipe.crop, recipe.crop)
    )
    micro = recipe.batch_size // recipe.accumulate
    if micro == 1 and any(isinstance(part, BatchNorm) for part in spec):
        raise UsageError(
            f"batch_size is {recipe.batch_size} in {recipe.accumulate} parts, and the batch norms "
            f"of {recipe.model} need at least 2 images: use --batch-size {2 * recipe.accumulate}"
        )
    if recipe.freeze or recipe.part_lr:
        with torch.device("meta"):  # refuses parts that are not there, draws no weights
            build_net(recipe, len(dataset.classes))
    per_epoch = steps_per_epoch(len(dataset.train), recipe.batch_size)
    if not recorded:
        refuse_endless_warmup(recipe, per_epoch)
    check_same(dataset, dataset.digest, digest)


def check_same(dataset: Dataset, here: str, first: str) -> None:
    """DataError where what this process reads has another digest than what the first reads."""
    if here != first:
        raise DataError(
            f"the data in {dataset.source.path} is not what the first process reads (digest "
            f"{first} there, {here} here): give all of them the same"
        )


@dataclass(frozen=True)
class Given:
    """What --init brings: weights, and of a run also recipe fields, statistics and class names."""

    weights: Mapping[str, Tensor] | None = None
    digest: str = ""
    inherited: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None
    classes: tuple[str, ...] = ()
    recipe: Recipe | None = None
    imported: bool = False

    def statistics_for(self, recipe: Recipe) -> Statistics | None:
        """The statistics, where that run's images went through what the recipe's go through."""
        if self.recipe is None:
            return None
        # What makers of weights subtract holds for them, however photos are turned here.
        names = [name for name in MEASURED if not (self.imported and name == "orient")]
        same = all(getattr(recipe, name) == getattr(self.recipe, name) for name in names)
        return self.statistics if same else None

    def for_classes(self, recipe: Recipe, classes: Sequence[str]) -> Mapping[str, Tensor] | None:
        """The weights, without the last layer where it tells as many other classes apart."""
        if self.weights is None or len(self.classes) != len(classes):
            return self.weights
        new = [name for name in classes if name not in self.classes]
        if self.classes == tuple(classes):
            return self.weights
        with torch.device("meta"):
            net = build_net(recipe, len(classes))
        head = f"{net.parts[net.layers[-1]]}."
        what = f"{new[0]!r} is not among its classes" if new else "its classes are in another order"
        say(f"{net.layers[-1]} of the given weights is not taken: {what}")
        return {k: v for k, v in self.weights.items() if not k.startswith(head)}


def read_init(init: str | Path, said: Collection[str]) -> Given:
    """What a run or a file of weights brings; fields that are `said` are not inherited."""
    path = Path(init)
    if not path.exists():
        raise CheckpointError(f"--init {init}: no such folder or file; name a run or weights")
    if not path.is_dir():
        weights = read_weights(path)
        return Given(weights, sha256_of(path))
    run = RunDir.open(path)
    recipe, described = read_recipe(run)
    checkpoint = load_checkpoint(find_checkpoint(run.checkpoints), optimizer=False)
    digest = sha256_of(checkpoint.path / "model.safetensors")
    inherited = {name: getattr(recipe, name) for name in INHERITED if name not in said}
    imported = described.get("kind") == "imported"
    if "orient" in inherited:
        inherited["orient"] = trained_orient(recipe, described)
        if imported and inherited["orient"] == "ignore":
            del inherited["orient"]  # what their makers left out need not hold for own photos
    statistics, classes = read_statistics(run, described), tuple(described["classes"])
    return Given(checkpoint.model, digest, inherited, statistics, classes, recipe, imported)


def announce(recipe: Recipe, dataset: Dataset, team: Team) -> None:
    n_train, n_val = len(dataset.train), len(dataset.val)
    say(
        f"recipe {recipe.name} ({recipe.model}, {recipe.opt}, {recipe.schedule}, seed "
        f"{recipe.seed}, {recipe.precision}): {n_train:,} images to train on, {n_val:,} to "
        f"validate, {len(dataset.classes)} classes"
    )
    if dataset.left_out:
        say(f"left out, since they cannot be read: {len(dataset.left_out):,} of the images")
    say(f"splits: {dataset.describe_splits()}; test is not read here")
    say(_name_classes(dataset))
    _say_turned(dataset)
    for line in describe_unreached(recipe, steps_per_epoch(n_train, recipe.batch_size)):
        say(line)
    if team.size > 1:
        towers = f", each a tower of {team.towers}" if team.towers > 1 else ""
        share = -(-recipe.batch_size // team.ranks)
        say(f"{team.size} processes{towers}: up to {share} of a batch's {recipe.batch_size} images")
    shares_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if launched() and shares_store and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        say(
            "warning: processes that are started anew will not find each other: give torchrun "
            "--standalone (one host) or --rdzv-backend c10d, and set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )


def _say_turned(dataset: Dataset) -> None:
    """How many of some training files have an EXIF orientation, and what is done about it."""
    if dataset.source.kind != "folder":
        return
    train = dataset.train
    if isinstance(train.pixels, np.ndarray):
        train = dataset.split("train")  # the files that were decoded
    assert isinstance(train.pixels, tuple)
    at = np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(int)
    turned = sum(lies_turned(train.pixels[i]) for i in at)
    if turned:
        applied = "they are turned upright (--orient ignore leaves them)"
        ignored = "they are left as stored (--orient apply turns them upright)"
        done = applied if train.orient == "apply" else ignored
        say(f"{turned} of {len(at)} training images looked at have an EXIF orientation: {done}")


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


def look_before(
    recipe: Recipe,
    dataset: Dataset,
    statistics: Statistics,
    weights: Mapping[str, Tensor] | None,
) -> None:
    """A brief look before the first step: data, signals and contract, no trial steps."""
    given = len(dataset.classes), dataset.train, dataset.val, statistics
    for verdict in examine(recipe, *given, BRIEF_S, steps=0, weights=weights)["verdicts"]:
        if verdict["severity"] != "note":
            say(f"doctor: {verdict['name']}: {verdict['evidence']}; {verdict['advice']}")
