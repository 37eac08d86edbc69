"""How a bench that is a script ends, where the fault is its user's or a signal came, and what its
processes compute with."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from alexnet.errors import AlexNetError, Interrupted
from alexnet.memory import keep_pages


def obeyed(main: Callable[[], int | None], again: str = "the same command goes on") -> None:
    """Runs a script, with memory as the program has it. What its user can mend ends it with one
    line, as the program's verbs do; a signal with another, once everything is saved, which says
    what comes of calling it `again`."""
    keep_pages()
    try:
        sys.exit(main())
    except AlexNetError as error:
        line, status = str(error), error.exit_status
    except Interrupted as error:
        line, status = f"interrupted; {again}", 128 + error.signum
    print(f"{Path(sys.argv[0]).name}: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(status)


def as_commands_compute(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with what the program's commands add to it for their threads, for a process that is
    still to load torch. Nothing is added by a tree from before they did."""
    added: dict[str, str] = {}
    if importlib.util.find_spec("alexnet.processors"):
        processors = importlib.import_module("alexnet.processors")
        added = processors.thread_variables(environ, processors.find_processors())
    return {**environ, **added}
