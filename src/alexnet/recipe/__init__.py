"""The recipe: all settings that determine the result of a training, as fields, flags and files, and
the recipes that come with alexnet."""

from alexnet.recipe.fields import (
    RETIRED_MODELS,
    Normalize,
    Precision,
    Recipe,
    RecipeOverrides,
    check_overrides,
    retired_line,
)
from alexnet.recipe.files import RECORD, SUFFIX, fields_in, fields_written, write_recipe
from alexnet.recipe.flags import add_recipe_flags, parse_recipe_words, recipe_words
from alexnet.recipe.shipped import RECIPES, TRAINING, find_recipe, source_of

__all__ = [
    "RECIPES",
    "RECORD",
    "RETIRED_MODELS",
    "SUFFIX",
    "TRAINING",
    "Normalize",
    "Precision",
    "Recipe",
    "RecipeOverrides",
    "add_recipe_flags",
    "check_overrides",
    "fields_in",
    "fields_written",
    "find_recipe",
    "parse_recipe_words",
    "recipe_words",
    "retired_line",
    "source_of",
    "write_recipe",
]
