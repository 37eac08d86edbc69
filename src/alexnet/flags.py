"""Flags that several verbs share, and one for every field of a recipe."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NoReturn

from alexnet.errors import UsageError
from alexnet.recipe import Recipe


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def add_reading_of_runs(parser: Parser) -> None:
    parser.add_argument("--views", type=int, default=1,
                        help="1, 2 (mirrored), 5 or 10 crops an image (default: 1)")  # fmt: skip
    add_engine(parser)
    add_precision(parser)
    add_checkpoint(parser)


def add_image_exclusions(parser: Parser) -> None:
    """What becomes of images of --data that say nothing about the network."""
    add_ignore_unknown(parser)
    parser.add_argument("--with-seen", action="store_true",
                        help="count images that the run has learnt from too")  # fmt: skip


def add_ignore_unknown(parser: Parser) -> None:
    parser.add_argument("--ignore-unknown", action="store_true",
                        help="leave out images of classes it does not know")  # fmt: skip


def add_precision(parser: Parser) -> None:
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto",
                        help="of the answers; auto: bf16 where the run was trained so and this "
                        "machine is fast at it (default: auto)")  # fmt: skip


def add_engine(parser: Parser) -> None:
    parser.add_argument("--engine", choices=("torch", "int8", "onnx", "openvino"),
                        default="torch", help="what computes; int8: torch, in integers of 8 bits "
                        "(default: torch)")  # fmt: skip


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", default="best", help="best, last or step-N (default: best)")


def add_reading(parser: Parser) -> None:
    parser.add_argument("--orient", choices=("apply", "ignore"), default="ignore",
                        help="EXIF orientation: apply for own photos")  # fmt: skip
    parser.add_argument("--max-pixels", type=int, default=64_000_000, metavar="INT",
                        help="refuse larger images (default: 64,000,000)")  # fmt: skip
    parser.add_argument("-j", "--workers", type=int, default=2, metavar="INT", help="threads")


def add_fields(parser: Parser) -> None:
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
            kinds = typing.get_args(kind) or (kind,)
            plain = next(k for k in kinds if k is not types.NoneType)
            options |= {"type": plain, "metavar": plain.__name__.upper()}
            if types.NoneType in kinds:
                options |= {"type": _or_none(plain), "metavar": f"{plain.__name__.upper()}|none"}
        group.add_argument(*flags, **options)


def _or_none(kind: type) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        return None if word == "none" else kind(word)

    read.__name__ = f"{kind.__name__} or none"  # as argparse calls it
    return read


def flags_of(recipe: Recipe, base: Recipe) -> list[str]:
    """The words of a command line that make `recipe` of `base`, field by field.

    What has no flag is left out, as are the checkpoints kept and the reading threads, which change
    nothing. With another network `whiten` and `freeze` are said even where they are the same:
    `Recipe.adapted` would drop them.
    """
    words: list[str] = []
    for field in dataclasses.fields(Recipe):
        value, idle = getattr(recipe, field.name), field.name in ("keep", "workers")
        same = value == getattr(base, field.name)
        adapted = recipe.model != base.model and field.name in ("whiten", "freeze")
        if field.metadata.get("flags") == () or idle or (same and not adapted):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, "none" if value is None else str(value)]
    return words
