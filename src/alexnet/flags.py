"""A flag of the command line for every field of a recipe."""

import argparse
import dataclasses
import types
import typing
from typing import Any, Literal

from alexnet.recipe import Recipe


def add_fields(parser: argparse.ArgumentParser) -> None:
    """A flag for every recipe field; what is not given stays as the recipe has it."""
    group = parser.add_argument_group("recipe fields (defaults: `alexnet recipes NAME`)")
    group.add_argument("--amp", action="store_true", help="short for --precision bf16")
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
            plain = [k for k in typing.get_args(kind) or (kind,) if k is not types.NoneType]
            options |= {"type": plain[0], "metavar": plain[0].__name__.upper()}
        group.add_argument(*flags, **options)
