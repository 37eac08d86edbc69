"""The recipes that come with alexnet: functions that return a complete frozen recipe."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.errors import UsageError, did_you_mean
from alexnet.options import call
from alexnet.recipe import RETIRED_MODELS, Recipe, retired_line
from alexnet.recipebook.imagenet import (
    bn,
    caffe,
    code_2012,
    large_batch,
    modern,
    one_weird_trick_2014,
    paper_2010,
    paper_2012,
    seed_000,
    seed_002,
)
from alexnet.recipebook.small import (
    cifar10,
    cifar10_fast,
    cifar10_long,
    digits,
    fashion_mnist,
    imagenette,
    mnist,
    photos,
    seed_003,
    seed_004,
)
from alexnet.recipebook.written import (
    RECORD,
    SUFFIX,
    read_recipe_file,
    read_recorded_recipe,
    write_recipe,
)

if TYPE_CHECKING:
    from alexnet.recipebook.candidates import DataSummary
    from alexnet.recipebook.choice import choose_recipe

__all__ = [
    "RECIPES",
    "TRAINING",
    "DataSummary",
    "choose_recipe",
    "find_recipe",
    "source_of",
    "write_recipe",
]

# Imported when they are used: a choice builds networks, and a recipe alone needs no torch.
_LATER = {
    "DataSummary": ("alexnet.recipebook.candidates", "DataSummary"),
    "choose_recipe": ("alexnet.recipebook.choice", "choose_recipe"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'alexnet.recipebook' has no attribute {name!r}")
    module, own = _LATER[name]
    return getattr(import_module(module), own)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar10-fast": cifar10_fast,
    "cifar10-long": cifar10_long,
    "imagenette": imagenette,
    "photos": photos,
    "seed-003": seed_003,
    "seed-004": seed_004,
    "paper-2012": paper_2012,
    "paper-2010": paper_2010,
    "code-2012": code_2012,
    "caffe": caffe,
    "one-weird-trick-2014": one_weird_trick_2014,
    "bn": bn,
    "large-batch": large_batch,
    "seed-000": seed_000,
    "seed-002": seed_002,
    "modern": modern,
}

# Where the fields of a recipe come from: one place for all, and those that have another.
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "paper-2012": (
        "paper, section 5",
        {
            "size": "paper, section 2",
            "normalize": "paper, section 2",
            "crop": "paper, section 4.1",
            "flip": "paper, section 4.1",
            "colour": "paper, section 4.1",
            "colour_rule": "paper, section 4.1",
            "decay_biases": "the paper's update makes no exception",
        },
    ),
    "code-2012": ("2012 code, layer file 145 and its log", {}),
    "caffe": (
        "Caffe, models/bvlc_alexnet/solver.prototxt",
        dict.fromkeys(
            ("crop", "normalize", "colour", "bias_lr", "decay_biases", "batch_size"),
            "Caffe, models/bvlc_alexnet/train_val.prototxt",
        ),
    ),
    "one-weird-trick-2014": (
        "cuda-convnet2, layers/layer-params-223-ce2-1gpu.cfg",
        {"normalize": "torchvision"},
    ),
    "large-batch": (
        "You, Gitman, Ginsburg 2017 (arXiv 1708.03888)",
        dict.fromkeys(("model", "lr", "lr_batch", "warmup_epochs", "size", "crop"), "ours"),
    ),
    "seed-000": ("seeds/000 and 001", {"flip": "ours", "schedule": "its closing note"}),
    "seed-002": ("seeds/002", {"lr": "Adam's default", "batch_size": "ours"}),
    "seed-003": ("seeds/003", {"batch_size": "see docs/decisions.md, 8"}),
    "seed-004": ("seeds/004", {}),
}
_SOURCES["paper-2010"] = _SOURCES["paper-2012"]


# The recipe that each network of the literature was trained with; how Caffe trained its two is one.
TRAINING = {
    "alexnet-2012": "paper-2012",
    "alexnet-2012-code": "code-2012",
    "alexnet-2014": "one-weird-trick-2014",
    "alexnet-bn": "seed-002",
    "alexnet-caffe": "caffe",
    "alexnet-one-column": "seed-000",
    "caffenet": "caffe",
}


def source_of(recipe: str, field: str) -> str:
    """Where a field of a recipe comes from; "ours" for what was decided here."""
    general, special = _SOURCES.get(recipe, ("ours", {}))
    return special.get(field, general)


def find_recipe(name: str) -> Recipe:
    """A recipe by name, from a file that ends in .toml, or from a run's record that ends in .json;
    a misspelt one gets the nearest."""
    if name.endswith(SUFFIX):
        return read_recipe_file(Path(name))
    if name.endswith(RECORD):
        return read_recorded_recipe(Path(name))
    if name in RETIRED_MODELS:
        raise UsageError(retired_line(name))
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES, call('recipes'))}")
    return RECIPES[name]()
