"""Whether this process is one of several that torchrun started, and which: the one place that reads
the variables which say so."""

import os
from collections.abc import Mapping

from alexnet.errors import UsageError

# What torchrun sets for each process, and torch needs to bring them together.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = VARIABLES[:3]
ALONE = f"or to run alone: unset {' '.join(VARIABLES)}"


def launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, or what sets all of the same variables, started this process."""
    return all(environ.get(name) for name in VARIABLES)


def processes() -> int:
    """How many were started together: 1 where this one is alone."""
    return max(_number("WORLD_SIZE"), 1) if launched() else 1


def rank() -> int:
    """Which of them this one is, from 0; 0 also where it is alone."""
    return _number("RANK") if processes() > 1 else 0


def refuse_half_launched() -> None:
    """UsageError where some variables say that there are other processes, and others are missing or
    contradict them: alone, each would do all of the work, and those of a higher rank in silence.

    Variables that speak of no other process are no matter: they stay in shells and images.
    """
    present = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    said = ", ".join(f"{name}={value}" for name, value in present.items())
    if launched():
        least = (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
        good = all(present[name].isdecimal() and int(present[name]) >= low for name, low in least)
        if good and max(_number("RANK"), _number("LOCAL_RANK")) < _number("WORLD_SIZE"):
            return
        raise UsageError(
            f"{said}: ranks are whole numbers from 0 to WORLD_SIZE - 1: start with torchrun, which "
            f"sets them, {ALONE}"
        )
    if _number("RANK") > 0 or _number("LOCAL_RANK") > 0 or _number("WORLD_SIZE") > 1:
        missing = ", ".join(name for name in VARIABLES if name not in present)
        raise UsageError(
            f"{said} in the environment: one of several processes, which cannot find the others "
            f"without {missing}: start with torchrun, which sets all, {ALONE}"
        )


def _number(name: str) -> int:
    """The whole number that a variable holds, 0 where it holds none."""
    word = os.environ.get(name, "")
    return int(word) if word.isdecimal() else 0
