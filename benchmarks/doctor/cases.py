"""Healthy cases: networks with real data, for the matrix to break."""

from collections.abc import Iterator

import torch
from benchmarks.doctor.faults import Case
from torch import Tensor, nn

from alexnet.data.augment import Preprocess
from alexnet.data.dataset import open_dataset
from alexnet.models.net import Net
from alexnet.models.zoo import build_model, model_spec, narrowed
from alexnet.recipe import Recipe
from alexnet.recipebook import find_recipe

TRAIN, VAL = 2000, 500
NARROW = 4

# The recipe that reads the data, and the networks with their learning rates.
NETS = {
    "digits": ("digits", {"mnist-alexnet": 0.001, "alexnet-28": 0.01}),
    "cifar": ("cifar10", {"cifar-alexnet": 0.01}),
    "imagenette": ("photos", {"alexnet-2012 / 4": 0.01}),
}


def cases(kind: str, folder: str | None, seeds: list[int]) -> Iterator[tuple[str, Case]]:
    """The networks of a kind of data with each seed, by name."""
    recipe = find_recipe(NETS[kind][0])
    if kind == "imagenette":
        recipe = recipe.replace(size=256, crop=224)
    x, y, val_x, val_y, raw = _read(recipe, folder)
    for name, rate in NETS[kind][1].items():
        for seed in seeds:
            torch.manual_seed(seed)
            if "/" in name:
                model: nn.Module = Net(
                    narrowed(model_spec("alexnet-2012", 10), NARROW), (3, 224, 224)
                )
            else:
                model = build_model(name, 10, channels=recipe.channels, size=recipe.crop)
            yield name, Case(model, x, y, val_x, val_y, rate, seed=seed, raw=raw)


def _read(
    recipe: Recipe, folder: str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    dataset = open_dataset(recipe, folder)
    preprocess = Preprocess(recipe.size, recipe.crop, recipe.channels, dataset.statistics)
    found = []
    for split, count in ((dataset.split("train"), TRAIN), (dataset.split("val"), VAL)):
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        ids = order[:count].numpy()
        images = torch.from_numpy(split.read(ids))
        found += [preprocess.views(images, 1)[0].contiguous(), torch.from_numpy(split.labels[ids])]
    s, c = dataset.statistics, recipe.channels
    x, y, val_x, val_y = found
    return x, y, val_x, val_y, (torch.tensor(s.mean[:c]), torch.tensor(s.std[:c]))
