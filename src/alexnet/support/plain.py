"""The switch from fast ways to plain ones, and the line where a fast way is missing.

A fast way is code that uses private parts of torch, or of the OpenMP library, and has a plain way
beside it that gives the same numbers (some in another order of sums).
"""

import os
from collections.abc import Mapping

from alexnet.errors import UsageError
from alexnet.support.terminal import say

SWITCH = "ALEXNET_PLAIN"
_reported: set[str] = set()


def is_plain(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user turned all fast ways off, by ALEXNET_PLAIN=1."""
    value = environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{SWITCH}={value}: it takes 1 (plain ways) or 0 (fast ways)")
    return value == "1"


def report_missing(what: str, instead: str) -> None:
    """Say once a process that this torch lacks a private part, and what is done without it."""
    if what not in _reported:
        _reported.add(what)
        say(f"this version of torch has no {what}: {instead}, slower; {SWITCH}=1 expects that")
