"""The fields of a recipe as flags: adds them to a parser, writes them, and reads them back."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from alexnet.recipe.fields import Recipe


def add_recipe_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add a flag for every field. Only the flags in a call appear in its parsed arguments."""
    hints = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        flags = field.metadata.get("flags", (f"--{field.name.replace('_', '-')}",))
        if not flags:
            continue
        options: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": field.metadata["help"].replace("%", "%%"),
        }
        kind = hints[field.name]
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is Literal:
            options["choices"] = typing.get_args(kind)
        elif typing.get_origin(kind) is tuple:
            item = typing.get_args(kind)[0]
            options |= {"type": item, "nargs": "*", "metavar": "EPOCH" if item is float else "PART"}
        else:
            kinds = typing.get_args(kind) or (kind,)
            plain = next(k for k in kinds if k is not types.NoneType)
            options |= {"type": plain, "metavar": plain.__name__.upper()}
            if types.NoneType in kinds:
                options |= {"type": _or_none(plain), "metavar": f"{plain.__name__.upper()}|none"}
        parser.add_argument(*flags, **options)


def _or_none(kind: type) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        return None if word == "none" else kind(word)

    read.__name__ = f"{kind.__name__} or none"  # as argparse calls it
    return read


def recipe_words(recipe: Recipe, base: Recipe) -> list[str]:
    """The flags that turn `base` into `recipe`.

    Fields without a flag are left out, and so are `keep` and `workers`, which do not affect the
    result. With another network `whiten` and `freeze` are written even where they are equal,
    because `Recipe.adapted` would reset them.
    """
    words: list[str] = []
    for field in dataclasses.fields(Recipe):
        value, has_effect = getattr(recipe, field.name), field.name not in ("keep", "workers")
        same = value == getattr(base, field.name)
        adapted = recipe.model != base.model and field.name in ("whiten", "freeze")
        if field.metadata.get("flags") == () or not has_effect or (same and not adapted):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, "none" if value is None else str(value)]
    return words


def parse_recipe_words(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The recipe name and the fields in the words of `alexnet train WORDS`."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("recipe")
    add_recipe_flags(parser)
    fields = vars(parser.parse_args(words))
    return fields.pop("recipe"), fields
