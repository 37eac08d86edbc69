"""The weights that a training starts from (--init), and what a run's weights bring along."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError
from alexnet.predictor import read_statistics, trained_orient
from alexnet.recipe import Recipe
from alexnet.runs.checkpoint import find_checkpoint, load_checkpoint
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runs.weights import read_weights
from alexnet.support.files import sha256_of
from alexnet.support.options import option
from alexnet.support.terminal import say
from alexnet.training.network import build_net

INHERITED = ("model", "channels", "size", "crop", "normalize", "orient")  # from --init RUN
MEASURED = INHERITED[1:]  # statistics hold for images that are preprocessed by the same


@dataclass(frozen=True)
class InitialWeights:
    """The weights of --init; of a run also its recipe fields, statistics and class names."""

    weights: Mapping[str, Tensor] | None = None
    digest: str = ""
    inherited: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None
    classes: tuple[str, ...] = ()
    recipe: Recipe | None = None
    imported: bool = False

    def statistics_for(self, recipe: Recipe) -> Statistics | None:
        """The statistics, if the recipe preprocesses images as that run did."""
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


def read_init(init: str | Path, named: Collection[str] = ()) -> InitialWeights:
    """Reads a run or a file of weights; fields that the user has `named` are not inherited."""
    path = Path(init)
    if not path.exists():
        raise CheckpointError(
            f"{option('init', init)}: no such folder or file; name a run or weights"
        )
    if not path.is_dir():
        weights = read_weights(path)
        return InitialWeights(weights, sha256_of(path))
    run = RunDir.open(path)
    recipe, described = read_recipe(run)
    checkpoint = load_checkpoint(find_checkpoint(run.checkpoints), optimizer=False)
    digest = sha256_of(checkpoint.path / "model.safetensors")
    inherited = {name: getattr(recipe, name) for name in INHERITED if name not in named}
    imported = described.kind == "imported"
    if "orient" in inherited:
        inherited["orient"] = trained_orient(recipe, described)
        if imported and inherited["orient"] == "ignore":
            del inherited["orient"]  # what their makers left out need not hold for own photos
    statistics, classes = read_statistics(run, described), tuple(described.classes)
    return InitialWeights(
        checkpoint.model, digest, inherited, statistics, classes, recipe, imported
    )
