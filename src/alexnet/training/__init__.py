"""Training: the network of a recipe, its optimiser, the step, evaluation, and several processes.

These names are stable. The modules they come from are not.
"""

from alexnet.training.compiled import Compiled
from alexnet.training.evaluate import evaluate, predict_views
from alexnet.training.network import build_net, preprocessing, take_weights
from alexnet.training.optim import (
    Lars,
    PaperSGD,
    build_optimizer,
    load_optimizer,
    optimizer_tensors,
)
from alexnet.training.pace import measure_pace
from alexnet.training.parallel import ALONE, Team, join
from alexnet.training.schedule import Watch, learning_rate
from alexnet.training.settings import Choosing as SettingsPolicy
from alexnet.training.settings import Hardware, Settings
from alexnet.training.settings import settle as choose_settings
from alexnet.training.spread import spread as distribute
from alexnet.training.step import train_step
from alexnet.training.towers import build_towers, plan_towers

__all__ = [
    "ALONE",
    "Compiled",
    "Hardware",
    "Lars",
    "PaperSGD",
    "Settings",
    "SettingsPolicy",
    "Team",
    "Watch",
    "build_net",
    "build_optimizer",
    "build_towers",
    "choose_settings",
    "distribute",
    "evaluate",
    "join",
    "learning_rate",
    "load_optimizer",
    "measure_pace",
    "optimizer_tensors",
    "plan_towers",
    "predict_views",
    "preprocessing",
    "take_weights",
    "train_step",
]
