"""What benches that are scripts share: threads as the program's commands have them, and how a bench
ends where the fault is its user's or a signal came."""

import sys
from collections.abc import Callable
from pathlib import Path

from alexnet.errors import AlexNetError, Interrupted
from alexnet.support.memory import keep_pages
from alexnet.support.processors import set_up_threads

# Here and not in a function: scripts import torch after this module, and then it is too late.
set_up_threads()


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
