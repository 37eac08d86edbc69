"""What one fault is, and what came of it."""

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """`outcomes` are counted by name; `losses` are what must not be, a line each."""

    outcomes: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.outcomes.total()


@dataclass(frozen=True)
class Fault:
    """`full` and `few` are counts; a `few` of 0 leaves it to the full run."""

    what: str
    promise: str
    run: Callable[[int, int, Path], Tally]
    full: int
    few: int


def in_child(work: Callable[[], str]) -> tuple[int, str]:
    """What a forked child says, and its status: minus the signal that killed it, or its exit code.

    What it raises is what it says, with status 99.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.close(read)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.write(write, work().encode()[:60_000])
            status = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said
