"""Training: the network of a recipe, its optimiser, the step, evaluation, and several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.network import build_net, preprocessing, take_weights
from alexnet.training.optim import build_optimizer
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.step import train_step

__all__ = [
    "ALONE",
    "Team",
    "Watch",
    "build_net",
    "build_optimizer",
    "evaluate",
    "join",
    "learning_rate",
    "predict_views",
    "preprocessing",
    "take_weights",
    "train_step",
]
