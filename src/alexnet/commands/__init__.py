"""The functions behind the verbs: `alexnet.commands.NAME` has what `alexnet NAME` does.

Each returns what --json prints. The public names are in `alexnet`; those here are parts of verbs,
for tests and benchmarks.
"""

from alexnet.commands.doctor import diagnose_recipe
from alexnet.commands.initial_weights import InitialWeights
from alexnet.commands.recipe_choice import choose, summarize_data, time_decoding
from alexnet.commands.train import Request, train_request

__all__ = [
    "InitialWeights",
    "Request",
    "choose",
    "diagnose_recipe",
    "summarize_data",
    "time_decoding",
    "train_request",
]
