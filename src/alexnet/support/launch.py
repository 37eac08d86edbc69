"""The variables of torchrun: how many processes were started together, and which one this is.

No other module reads them.
"""

import os
from collections.abc import Mapping

from alexnet.errors import UsageError

# torchrun sets these for each process, and torch needs all of them to connect the processes.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ALONE = f"or to run alone: unset {' '.join(VARIABLES)}"


def is_launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, or a launcher that sets the same variables, started this process."""
    return all(environ.get(name) for name in VARIABLES)


def process_count() -> int:
    """The number of processes that were started together; 1 for a process that is alone."""
    return max(_read_count("WORLD_SIZE"), 1) if is_launched() else 1


def rank() -> int:
    """The rank of this process, from 0; 0 also for a process that is alone."""
    return _read_count("RANK") if process_count() > 1 else 0


def refuse_partial_launch() -> None:
    """Raise UsageError where some variables say that there are other processes, and others are
    missing or contradict them. Each process would then do all the work alone, and those of a rank
    above 0 would do it silently.

    Variables that name no other process are accepted: shells and images may keep them.
    """
    present = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    assignments = ", ".join(f"{name}={value}" for name, value in present.items())
    if is_launched():
        minima = (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        are_counts = all(
            present[name].isdecimal() and int(present[name]) >= least for name, least in minima
        )
        highest = max(_read_count("RANK"), _read_count("LOCAL_RANK"))
        if are_counts and highest < _read_count("WORLD_SIZE"):
            return
        raise UsageError(
            f"{assignments}: ranks are whole numbers from 0 to WORLD_SIZE - 1: start with "
            f"torchrun, which sets them, {ALONE}"
        )
    if _read_count("RANK") > 0 or _read_count("LOCAL_RANK") > 0 or _read_count("WORLD_SIZE") > 1:
        missing = ", ".join(name for name in VARIABLES if name not in present)
        raise UsageError(
            f"{assignments} in the environment: this is one of several processes, and it cannot "
            f"connect to the others without {missing}: start with torchrun, which sets all, {ALONE}"
        )


def _read_count(name: str) -> int:
    """The whole number in a variable, 0 where there is none."""
    word = os.environ.get(name, "")
    return int(word) if word.isdecimal() else 0
