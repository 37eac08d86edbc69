"""The machine and the versions that something was computed with, and how it was computed there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.runs.records.base import Record, optional


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """A machine and the code on it.

    `python` and `packages` are versions, `platform` the system's name. `cpu` is the processor,
    `cpus` how many there are, of which `usable_cpus` may be used (`usable_because` says why), `gpu`
    the graphics card or None. torch computed in so many `threads`; `threads_given` is the variable
    that fixed them and `waiting` those that say how threads wait, empty where there are none.
    torchrun started so many `processes`. `commit` is that of the code, `dirty` whether it was
    changed since; None of an installed package. `command` are the words of the call. `settings` say
    how a training was computed, in the environment.json of a run. `plain` is True where
    ALEXNET_PLAIN=1 turned the fast ways off.
    """

    python: str
    platform: str
    packages: Mapping[str, str]
    cpu: str
    cpus: int | None = optional()
    usable_cpus: int | None = optional()
    usable_because: str | None = optional()
    threads: int
    threads_given: str | None = optional()
    plain: bool | None = optional()
    waiting: str | None = optional()
    processes: int | None = optional()
    gpu: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    command: Sequence[str] | None = optional()
    settings: Mapping[str, Any] | None = optional()
