"""alexnet completion: its arguments, and the script that a shell completes words by."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alexnet.cli import make_parser
from alexnet.cli.arguments import Verbs, add_verb
from alexnet.errors import UsageError
from alexnet.support.argument_checks import quote_value

if TYPE_CHECKING:
    from alexnet.records import CompletionResult

HOW = {
    "bash": 'eval "$(alexnet completion bash)"      # in ~/.bashrc',
    "zsh": "alexnet completion zsh > DIR/_alexnet  # DIR one of $fpath",
    "fish": "alexnet completion fish > ~/.config/fish/completions/alexnet.fish",
    "tcsh": "alexnet completion tcsh > FILE         # and `source FILE` in ~/.tcshrc",
}
"""The shells that can be completed, and how each takes up the script."""


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "completion", "Print shell completion.", completion, show)
    parser.add_argument(
        "shell", choices=tuple(HOW), help="how a shell takes it up: docs/quickstart.md"
    )


def completion(shell: str = "bash") -> CompletionResult:
    """The script by which a shell (bash, zsh, fish or tcsh) completes verbs, flags and their
    values, and how the shell takes it up."""
    import shtab

    from alexnet.recipe import RECIPES
    from alexnet.records import CompletionResult

    if not isinstance(shell, str) or shell not in HOW:
        raise UsageError(f"shell is {quote_value(shell)}; there are {', '.join(HOW)}")
    by_metavar = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "RUN_OR_FILE": shtab.FILE}
    by_name = {
        "run": shtab.DIRECTORY,
        "runs": shtab.DIRECTORY,
        "images": shtab.FILE,
        "file": shtab.FILE,
        "path": shtab.FILE,
        "source": shtab.FILE,
    }
    parser = make_parser()
    for action in _actions(parser):
        if action.dest == "recipe":
            action.choices = tuple(RECIPES)  # a file may stand there too: names are the likelier
        place = by_metavar.get(str(action.metavar)) or by_name.get(action.dest)
        if place and not action.choices and (action.nargs is None or action.nargs in ("+", "*")):
            action.complete = place  # type: ignore[attr-defined]  # where shtab looks for it
    return CompletionResult(shell=shell, script=shtab.complete(parser, shell=shell), how=HOW[shell])


def show(r: CompletionResult) -> None:
    print(r.script)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        else:
            yield action
