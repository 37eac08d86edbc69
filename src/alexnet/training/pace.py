"""How fast this machine trains a recipe: a few of its real steps, on images of noise."""

import torch

from alexnet.data.statistics import Statistics
from alexnet.recipe import Recipe
from alexnet.runtime import chance_kept, choose_precision, pick_device
from alexnet.terminal import say
from alexnet.training.network import preprocessing
from alexnet.training.settings import Prepare, prepare_steps, time_alone, trial_size

ROUNDS = 6  # of one step each, after one that is not timed


def measure_pace(recipe: Recipe, classes: int, prepare: Prepare | None = None) -> float:
    """Images a second through training steps, augmentation and update included, reading not: those
    of the fastest of several steps, for what else the machine does makes steps slower.

    `prepare` makes the steps that are timed: real ones unless it is given. The random state of the
    caller stays as it is, and nothing is written.
    """
    precision = choose_precision(recipe.precision, pick_device())
    recipe = recipe.replace(precision=precision, normalize="std", compile=False)
    say(f"timing a few steps of {recipe.model} at {recipe.crop} pixels")
    if prepare is None:
        middle, spread = (128.0,) * recipe.channels, (64.0,) * recipe.channels
        even = tuple(tuple(float(i == j) for j in range(len(middle))) for i in range(len(middle)))
        preprocess = preprocessing(recipe, Statistics(middle, spread, even))
        prepare = prepare_steps(preprocess, classes)
    with chance_kept():
        seconds = time_alone(prepare(recipe, torch.get_num_threads()), ROUNDS)
    return trial_size(recipe) / min(seconds)
