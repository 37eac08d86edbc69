"""The command line: one module a verb, the table of verbs, and how a command runs and ends.

A module of a verb has `add(verbs)`, which adds its parser and names the function that is called and
what prints its result. torch is imported by the function, once the words are right.
"""

import contextlib
import io
import json
import os
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any, NoReturn

from alexnet.cli.arguments import Parser, Verb
from alexnet.errors import AlexNetError, Elsewhere, Interrupted, UsageError, did_you_mean
from alexnet.support.launch import process_count, rank, refuse_partial_launch
from alexnet.support.memory import keep_pages, short_of_memory
from alexnet.support.options import command_line
from alexnet.support.processors import set_up_threads
from alexnet.support.terminal import escaped, say

VERBS = (
    "train",
    "doctor",
    "test",
    "classify",
    "inspect",
    "report",
    "export",
    "import_weights",
    "serve",
    "recipes",
    "data",
    "bench",
    "claim",
    "completion",
)
"""The modules of the verbs, in the order of `alexnet --help`."""


def make_parser() -> Parser:
    """Every verb and flag."""
    top = Parser(
        prog="alexnet",
        description="From raw images to a trained, tested AlexNet-family classifier.",
        epilog="Start with `alexnet train`: 5,000 digits in under a minute, no download.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=metadata.version("alexnet"))
    top.set_defaults(verb=None, parser=top, needs="name a verb: see `alexnet --help`")
    verbs = top.add_subparsers(metavar="VERB", parser_class=Parser)
    for name in VERBS:
        import_module(f"alexnet.cli.{name}").add(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status. Results go to stdout, all else to stderr."""
    status = 1
    try:
        with command_line():
            status = _run(argv)
    except Exception:
        if not _left_others():
            raise
        traceback.print_exc()
    if _left_others():  # an ordinary end would wait for them
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    return status


def _left_others() -> bool:
    """Whether other processes of a team wait for this one on their GPUs."""
    parallel = sys.modules.get("alexnet.training.parallel")
    return parallel is not None and parallel.left_others()


def _run(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    keep_pages()
    # Pillow's warnings do not name the file, and `data check` does.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    as_json = "--json" in argv
    failure: dict[str, Any]
    with contextlib.suppress(ValueError):  # not in the main thread, where signals cannot be set
        signal.signal(signal.SIGTERM, _terminate)
    try:
        verb, options = _parse(argv)
        set_up_threads()  # before torch is loaded, which is next
        result = verb.call(**options)
        if rank():  # the first process prints for all
            return 0
        return verb.exit_status(result) if _print(result, None if as_json else verb.show) else 2
    except AlexNetError as error:
        line = " ".join(str(error).split())
        if line:
            say(f"alexnet: {line}", everywhere=True)
        message = line or "another process of this run failed: its line is on standard error"
        failure, status = {"error": message}, error.exit_status
    except (MemoryError, RuntimeError) as error:
        if not (line := short_of_memory(error)):
            raise
        say(f"alexnet: {line}", everywhere=True)
        failure, status = {"error": line}, 2
    except Interrupted as error:
        say(f"alexnet: interrupted; continue with: {error}" if str(error) else "alexnet: stopped")
        failure, status = {"interrupted": error.signum, "continue": str(error)}, 128 + error.signum
    except KeyboardInterrupt:
        say("alexnet: interrupted before there was anything to save")
        failure, status = {"interrupted": signal.SIGINT}, 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; there is nobody to tell
        return 128 + signal.SIGPIPE
    if as_json and not rank():
        _print(failure, None)
    return status


def _parse(argv: list[str]) -> tuple[Verb, dict[str, Any]]:
    """Reads a command line; of several processes with the same one, the first reports errors."""
    try:
        verb, options = _read(argv)
    except UsageError as error:
        raise _reported_once(error) from None
    refuse_partial_launch()
    if not verb.shared and process_count() > 1:
        raise _reported_once(
            UsageError(f"{argv[0]} runs in one process, and torchrun started more: leave it")
        )
    return verb, options


def _reported_once(error: UsageError) -> AlexNetError:
    """The error in the first of several processes; in the others one without a message."""
    return Elsewhere(exit_status=2) if rank() else error


def _read(argv: Sequence[str]) -> tuple[Verb, dict[str, Any]]:
    """The verb of a command line and the arguments of its function. UsageError with a hint."""
    top = make_parser()
    if not argv:
        top.print_help()
        raise SystemExit(0)
    verbs = next(a.choices for a in top._actions if isinstance(a.choices, dict))
    if not argv[0].startswith("-") and argv[0] not in verbs:
        raise UsageError(f"there is no verb {argv[0]!r:.80}{did_you_mean(argv[0], verbs)}")
    args, unknown = top.parse_known_args(argv)
    options = vars(args)
    verb, sub, needs = (options.pop(key) for key in ("verb", "parser", "needs"))
    if verb is None:
        raise UsageError(needs)
    if unknown:
        word = unknown[0].partition("=")[0]
        hint = did_you_mean(word, sub._option_string_actions)
        raise UsageError(f"{sub.prog} does not take {word!r}{hint}")
    if options.pop("amp", False) and options.setdefault("precision", "bf16") != "bf16":
        raise UsageError(f"--amp is bf16, and --precision {options['precision']}: leave one out")
    del options["json"]
    return verb, options


def _print(result: dict[str, Any], show: Callable[[Any], None] | None) -> bool:
    """Prints a result. Returns False, after a line that says why, where standard output fails."""
    if sys.stdout is None:
        return True
    try:
        if show is None:
            print(json.dumps(result))
        else:
            sys.stdout.write(_escaped_text(show, result))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"alexnet: standard output cannot be written ({error.strerror}): send it elsewhere")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries once more at its end
        return False
    return True


def _escaped_text(show: Callable[[Any], None], result: dict[str, Any]) -> str:
    """The text of a result. Names in it come from folders and files, so control characters, and
    characters that standard output cannot encode, are escaped."""
    written = io.BytesIO()
    encoding = sys.stdout.encoding or "ascii"
    words = io.TextIOWrapper(written, encoding, "backslashreplace", newline="\n")
    with contextlib.redirect_stdout(words):
        show(result)
        words.flush()
    return escaped(written.getvalue().decode(encoding), keep="\n\t")


def _terminate(signum: int, frame: types.FrameType | None) -> NoReturn:
    raise Interrupted(signum)
