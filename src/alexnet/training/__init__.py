"""Training: the network of a recipe, its optimiser, the trainer, evaluation, several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.fitting import fit
from alexnet.training.network import build_net, preprocessing, take_weights
from alexnet.training.optim import build_optimizer
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.state import State
from alexnet.training.step import class_weights, plain_step, train_step
from alexnet.training.trainer import NotFinite, SecondLook, Trainer, TrainingData

__all__ = [
    "ALONE",
    "NotFinite",
    "SecondLook",
    "State",
    "Team",
    "Trainer",
    "TrainingData",
    "Watch",
    "build_net",
    "build_optimizer",
    "class_weights",
    "evaluate",
    "fit",
    "join",
    "learning_rate",
    "plain_step",
    "predict_views",
    "preprocessing",
    "take_weights",
    "train_step",
]
