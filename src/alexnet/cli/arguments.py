"""The command line's parser: how a verb is added, and the arguments that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from alexnet.errors import UsageError
from alexnet.recipe import add_recipe_flags

if TYPE_CHECKING:
    from alexnet.records import Record


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


@dataclass(frozen=True)
class Verb:
    """The function that a verb calls with its arguments, what prints the result for people, and the
    exit status of a result. Several processes of torchrun may run a verb that is `shared`."""

    call: Callable[..., Record]
    show: Callable[[Any], None]
    exit_status: Callable[[Any], int]
    shared: bool


def add_verb(
    verbs: Verbs,
    name: str,
    help: str,
    call: Callable[..., Record],
    show: Callable[[Any], None],
    exit_status: Callable[[Any], int] = lambda result: 0,
    shared: bool = False,
) -> Parser:
    """Adds a verb with --json and returns its parser, to which the verb adds its own arguments."""
    parser = verbs.add_parser(name, help=help, description=help, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(verb=Verb(call, show, exit_status, shared), parser=parser)
    return parser


def add_recipe_fields(parser: Parser) -> None:
    """--amp, and a flag for every field of a recipe."""
    group = parser.add_argument_group("recipe fields (defaults: `alexnet recipes NAME`)")
    group.add_argument("--amp", action="store_true", help="short for --precision bf16")
    add_recipe_flags(group)


def add_inference(parser: Parser) -> None:
    """How a trained network is asked: views, engine, precision, checkpoint."""
    parser.add_argument(
        "--views", type=int, default=1, help="1, 2 (mirrored), 5 or 10 crops an image (default: 1)"
    )
    add_engine(parser)
    add_precision(parser)
    add_checkpoint(parser)


def add_image_exclusions(parser: Parser) -> None:
    """Which images of --data a figure leaves out."""
    add_ignore_unknown(parser)
    parser.add_argument(
        "--with-seen", action="store_true", help="count images that the run has learnt from too"
    )


def add_ignore_unknown(parser: Parser) -> None:
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="leave out images of classes it does not know"
    )


def add_precision(parser: Parser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the answers; auto: bf16 where the run was trained so and this machine is fast at "
        "it (default: auto)",
    )


def add_engine(parser: Parser) -> None:
    parser.add_argument(
        "--engine",
        choices=("torch", "int8", "onnx", "openvino"),
        default="torch",
        help="what computes; int8: torch, in integers of 8 bits (default: torch)",
    )


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", default="best", help="best, last or step-N (default: best)")


def add_reading(parser: Parser) -> None:
    """How image files are read."""
    parser.add_argument(
        "--orient",
        choices=("apply", "ignore"),
        default="ignore",
        help="EXIF orientation: apply for own photos",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=64_000_000,
        metavar="INT",
        help="refuse larger images (default: 64,000,000)",
    )
    parser.add_argument("-j", "--workers", type=int, default=2, metavar="INT", help="threads")
