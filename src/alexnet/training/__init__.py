"""Training: the network of a recipe, its optimiser, the trainer, evaluation, several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.metrics import Tally, topk_hits, wilson
from alexnet.records import Settings
from alexnet.runtime import threads
from alexnet.training.compiled import Compiled
from alexnet.training.data_parallel import distribute
from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.fitting import fit
from alexnet.training.inference import Inference, Int8, measure_ranges
from alexnet.training.network import (
    build_net,
    load_weights,
    preprocessing,
    take_weights,
    whiten,
)
from alexnet.training.optim import (
    Lars,
    PaperSGD,
    build_optimizer,
    load_optimizer,
    optimizer_tensors,
    set_rate,
)
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.settings import (
    Hardware,
    TimingRule,
    choose_settings,
    measure_pace,
)
from alexnet.training.state import State
from alexnet.training.step import class_weights, plain_step, train_step
from alexnet.training.towers import build_towers, plan_towers
from alexnet.training.trainer import NotFinite, SecondLook, Trainer, TrainingData

__all__ = [
    "ALONE",
    "Compiled",
    "Hardware",
    "Inference",
    "Int8",
    "Lars",
    "NotFinite",
    "PaperSGD",
    "SecondLook",
    "Settings",
    "State",
    "Tally",
    "Team",
    "TimingRule",
    "Trainer",
    "TrainingData",
    "Watch",
    "build_net",
    "build_optimizer",
    "build_towers",
    "choose_settings",
    "class_weights",
    "distribute",
    "evaluate",
    "fit",
    "join",
    "learning_rate",
    "load_optimizer",
    "load_weights",
    "measure_pace",
    "measure_ranges",
    "optimizer_tensors",
    "plain_step",
    "plan_towers",
    "predict_views",
    "preprocessing",
    "set_rate",
    "take_weights",
    "threads",
    "topk_hits",
    "train_step",
    "whiten",
    "wilson",
]
