"""The machine and the software versions that something was computed with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexnet.runs.records.base import Record, optional
from alexnet.runs.records.settings import SettingsChoice


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """A machine and the software on it.

    `python` and `packages` are versions, `platform` is the system's name. `cpu` is the processor's
    name, `cpus` the number of processors, and `usable_cpus` how many of them this process may use
    (`usable_because` says why). `gpu` is the name of the GPU, or None. `threads` is the number of
    torch's threads. `threads_given` names the environment variable that set it, and `waiting` the
    variables that set how threads wait; both are empty where there are none. `processes` is the
    number that torchrun started. `commit` is that of the source, and `dirty` says whether the
    source was changed since; both are None for an installed package. `command` are the words of
    the command line. In the environment.json of a run, `settings` say how it was computed.
    `plain` is True where ALEXNET_PLAIN=1 turned off the fast ways.
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
    settings: SettingsChoice | None = optional()
