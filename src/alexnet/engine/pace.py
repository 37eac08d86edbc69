"""How fast this machine trains a recipe: a few of its real steps, on images of noise."""

import torch

from alexnet.data.statistics import Statistics
from alexnet.engine.network import preprocessing
from alexnet.engine.settings import measure_steps, trial_size
from alexnet.recipe import Recipe
from alexnet.runtime import choose_precision, pick_device
from alexnet.terminal import say


def measure_pace(recipe: Recipe, classes: int) -> float:
    """Images a second through training steps, augmentation and update included, reading not.

    The random state of the caller stays as it is, and nothing is written.
    """
    precision = choose_precision(recipe.precision, pick_device())
    recipe = recipe.replace(precision=precision, normalize="std", compile=False)
    say(f"timing a few steps of {recipe.model} at {recipe.crop} pixels")
    middle, spread = (128.0,) * recipe.channels, (64.0,) * recipe.channels
    even = tuple(tuple(float(i == j) for j in range(len(middle))) for i in range(len(middle)))
    preprocess = preprocessing(recipe, Statistics(middle, spread, even))
    before = torch.get_rng_state()
    seconds = measure_steps(preprocess, classes)(recipe, torch.get_num_threads())
    torch.set_rng_state(before)
    return trial_size(recipe) / seconds
