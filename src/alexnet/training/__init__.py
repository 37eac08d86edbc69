"""Training: the network of a recipe, its optimiser, the step, evaluation, and several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.metrics import Tally, topk_hits, wilson
from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.infer import Inference
from alexnet.training.int8 import Int8, measure_ranges
from alexnet.training.network import build_net, preprocessing, take_weights, whiten
from alexnet.training.optim import build_optimizer, set_rate
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.step import train_step
from alexnet.training.towers import build_towers, plan_towers

__all__ = [
    "ALONE",
    "Inference",
    "Int8",
    "Tally",
    "Team",
    "Watch",
    "build_net",
    "build_optimizer",
    "build_towers",
    "evaluate",
    "join",
    "learning_rate",
    "measure_ranges",
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
