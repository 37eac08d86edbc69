"""alexnet completion: what a shell needs to complete verbs, flags and their values."""

import argparse
from collections.abc import Iterator

import shtab

from alexnet.errors import UsageError
from alexnet.recipebook import RECIPES
from alexnet.runs.records import CompletionResult
from alexnet.verbs import make_parser

SHELLS = ("bash", "zsh", "fish", "tcsh")
HOW = {
    "bash": 'eval "$(alexnet completion bash)"      # in ~/.bashrc',
    "zsh": "alexnet completion zsh > DIR/_alexnet  # DIR one of $fpath",
    "fish": "alexnet completion fish > ~/.config/fish/completions/alexnet.fish",
    "tcsh": "alexnet completion tcsh > FILE         # and `source FILE` in ~/.tcshrc",
}
_PLACES = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "RUN_OR_FILE": shtab.FILE}
_NAMES = {"run": shtab.DIRECTORY, "runs": shtab.DIRECTORY, "images": shtab.FILE,
          "file": shtab.FILE, "path": shtab.FILE, "source": shtab.FILE}  # fmt: skip


def completion(shell: str = "bash") -> CompletionResult:
    """What one of SHELLS needs to complete words. Returns the script, and how to use it."""
    if shell not in SHELLS:
        raise UsageError(f"no completion for {shell!r}: there are {', '.join(SHELLS)}")
    parser = make_parser()
    for action in _actions(parser):
        if action.dest == "recipe":
            action.choices = tuple(RECIPES)  # a file may stand there too: names are the likelier
        place = _PLACES.get(str(action.metavar)) or _NAMES.get(action.dest)
        if place and not action.choices and (action.nargs is None or action.nargs in ("+", "*")):
            action.complete = place  # type: ignore[attr-defined]  # where shtab looks for it
    return CompletionResult(shell=shell, script=shtab.complete(parser, shell=shell), how=HOW[shell])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        else:
            yield action
