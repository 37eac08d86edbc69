"""What a training is to be: recipe, data and weights put together, and refused in time."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.commands.beginning import begin
from alexnet.commands.diagnosing import examine
from alexnet.data.dataset import Dataset
from alexnet.data.loader import steps_per_epoch
from alexnet.data.statistics import Statistics
from alexnet.engine.network import build_net
from alexnet.engine.parallel import Team, launched
from alexnet.errors import CheckpointError, DataError, UsageError
from alexnet.files import sha256_of
from alexnet.models.layers import BatchNorm
from alexnet.models.zoo import find_model, model_spec
from alexnet.predict import read_recipe, read_statistics
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe
from alexnet.store.checkpoint import find_checkpoint, load_checkpoint
from alexnet.store.rundir import RunDir
from alexnet.store.weights import read_weights
from alexnet.terminal import say

BRIEF_S = 5.0  # for the doctor's look before the first step
INHERITED = ("model", "channels", "size", "crop", "normalize")  # from --init RUN


def choose(
    recipe: str | Recipe | None,
    data: str | Path | None,
    init: str | Path | None,
    minutes: float | None,
    given: "Given",
    fields: dict[str, Any],
) -> dict[str, Any]:
    """`recipe` as plain data, and the `reasons` for it where it was chosen."""
    reasons: tuple[str, ...] = ()
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
        recipe, reasons = choice.recipe, choice.reasons
    elif minutes is not None:
        raise UsageError(
            f"--minutes {minutes:g} is for a recipe that is chosen from --data; with one that is "
            "named say --epochs or --steps"
        )
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe or "digits")
    if init is not None and fields.get("whiten"):
        raise UsageError("--whiten makes the first layer, and --init brings one: leave one out")
    chosen = chosen.adapted({**given.inherited, **fields}, init is not None)
    return {"recipe": chosen.to_dict(), "reasons": list(reasons)}


def check(recipe: Recipe, dataset: Dataset, digest: str) -> None:
    """Refuses what cannot be trained before anything is written."""
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
    steps_per_epoch(len(dataset.train), recipe.batch_size)
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


def read_init(init: str | Path, fields: dict[str, Any]) -> Given:
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
    inherited = {name: getattr(recipe, name) for name in INHERITED if name not in fields}
    # Statistics are of images as that run stored them; for any others they are measured anew.
    same = not set(fields) & {"channels", "size", "crop", "normalize"}
    statistics = read_statistics(run, described) if same else None
    return Given(checkpoint.model, digest, inherited, statistics, tuple(described["classes"]))


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
