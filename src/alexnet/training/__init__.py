"""Training: the network of a recipe, its optimiser, the trainer, evaluation, several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.metrics import Tally, topk_hits, wilson
from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.fitting import fit
from alexnet.training.infer import Inference
from alexnet.training.int8 import Int8, measure_ranges
from alexnet.training.network import build_net, preprocessing, take_weights, whiten
from alexnet.training.optim import build_optimizer, set_rate
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.state import State
from alexnet.training.step import class_weights, plain_step, train_step
from alexnet.training.towers import build_towers, plan_towers
from alexnet.training.trainer import NotFinite, SecondLook, Trainer, TrainingData

__all__ = [
    "ALONE",
    "Inference",
    "Int8",
    "NotFinite",
    "SecondLook",
    "State",
    "Tally",
    "Team",
    "Trainer",
    "TrainingData",
    "Watch",
    "build_net",
    "build_optimizer",
    "build_towers",
    "class_weights",
    "evaluate",
    "fit",
    "join",
    "learning_rate",
    "measure_ranges",
    "plain_step",
    "plan_towers",
    "predict_views",
    "preprocessing",
    "set_rate",
    "take_weights",
    "topk_hits",
    "train_step",
    "whiten",
    "wilson",
]
