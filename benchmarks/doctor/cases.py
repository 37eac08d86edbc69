"""Healthy cases: networks with real data, for the matrix to break."""

from collections.abc import Iterator
from typing import Any

import torch
from benchmarks.doctor.faults import Case
from torch import Tensor

from alexnet.data.augment import Preprocess
from alexnet.data.dataset import open_dataset
from alexnet.models.net import Net
from alexnet.models.zoo import model_spec, narrowed
from alexnet.recipe import Recipe, find_recipe

TRAIN, VAL = 2000, 500

# The recipe that reads the data, and the networks with their learning rates; "/ 4" is a fourth of
# the units.
NETS = {
    "digits": ("digits", {"mnist-alexnet": 0.001, "alexnet-28": 0.01}),
    "cifar": ("cifar10", {"cifar-alexnet": 0.01}),
    "imagenette": ("photos", {"alexnet-2012 / 4": 0.01}),
}
TRAINED = {"digits": ("digits", {"mnist-alexnet / 4": 0.001, "alexnet-28": 0.01})}


def cases(
    kind: str, folder: str | None, seeds: list[int], nets: dict[str, Any] | None = None
) -> Iterator[tuple[str, Case]]:
    """The networks of a kind of data with each seed, by name."""
    recipe_name, networks = (nets or NETS)[kind]
    recipe = find_recipe(recipe_name)
    if kind == "imagenette":
        recipe = recipe.replace(size=256, crop=224)
        recipe = recipe.replace(normalize="mean")  # the paper's weights are drawn for it
    x, y, val_x, val_y, raw = _read(recipe, folder)
    for name, rate in networks.items():
        for seed in seeds:
            torch.manual_seed(seed)
            preset, _, by = name.partition(" / ")
            model = Net(
                narrowed(model_spec(preset, 10), int(by or 1)),
                (recipe.channels, recipe.crop, recipe.crop),
            )
            yield name, Case(model, x, y, val_x, val_y, rate, seed=seed, raw=raw)


def _read(
    recipe: Recipe, folder: str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    dataset = open_dataset(recipe, folder)
    s, c = dataset.statistics, recipe.channels
    preprocess = Preprocess(recipe.size, recipe.crop, c, s, recipe.normalize)
    found = []
    for split, count in ((dataset.split("train"), TRAIN), (dataset.split("val"), VAL)):
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        ids = order[:count].numpy()
        images = torch.from_numpy(split.read(ids))
        found += [preprocess.views(images, 1)[0].contiguous(), torch.from_numpy(split.labels[ids])]
    x, y, val_x, val_y = found
    std = torch.ones(c) if recipe.normalize == "mean" else torch.tensor(s.std[:c])
    return x, y, val_x, val_y, (torch.tensor(s.mean[:c]), std)
