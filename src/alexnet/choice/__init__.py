"""Chooses a recipe for images that came without one, and says why."""

from alexnet.choice.candidates import DataSummary
from alexnet.choice.choose import MINUTES, Choice, choose_recipe

__all__ = ["MINUTES", "Choice", "DataSummary", "choose_recipe"]
