"""How fast this machine trains a recipe: a few of its real steps, on images of noise."""

import time

import numpy as np
import torch

from alexnet.data.loader import Batch
from alexnet.data.statistics import Statistics
from alexnet.engine.network import build_net, preprocessing
from alexnet.engine.optim import build_optimizer
from alexnet.engine.step import train_step
from alexnet.recipe import Recipe
from alexnet.runtime import choose_precision, pick_device
from alexnet.terminal import say

STEPS = 3
ENOUGH_S = 3.0  # of timed steps; a slow machine is known after one


def measure_pace(recipe: Recipe, classes: int) -> float:
    """Images a second through `train_step`, augmentation and update included, reading not.

    The first step, which allocates, is not counted. Weights and generators of the caller stay as
    they are, and nothing is written.
    """
    device = pick_device()
    recipe = recipe.replace(precision=choose_precision(recipe.precision, device), normalize="std")
    say(f"timing a few steps of {recipe.model} at {recipe.crop} pixels")
    before = torch.get_rng_state()
    noise = np.random.default_rng(0)
    shape = (recipe.batch_size, recipe.size, recipe.size, recipe.channels)
    images = torch.from_numpy(noise.integers(0, 256, shape, np.uint8)).to(device)
    labels = torch.arange(recipe.batch_size, device=device) % classes
    net = build_net(recipe, classes).to(device)
    optimizer = build_optimizer(net, recipe)
    grey = (128.0,) * recipe.channels
    covariance = tuple(tuple(float(i == j) for j in range(len(grey))) for i in range(len(grey)))
    preprocess = preprocessing(recipe, Statistics(grey, (64.0,) * len(grey), covariance))
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    done, began = 0, time.perf_counter()
    for step in range(STEPS + 1):
        batch = Batch(step, 0, np.arange(recipe.batch_size), images, labels)
        train_step(net, optimizer, batch, recipe.lr, recipe, preprocess, sums).item()
        if step == 0:
            began = time.perf_counter()
            continue
        done += recipe.batch_size
        if time.perf_counter() - began > ENOUGH_S:
            break
    torch.set_rng_state(before)
    return done / (time.perf_counter() - began)
