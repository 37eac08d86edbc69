"""The machine and the software versions that something was computed with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from alexnet.records.base import Record, optional
from alexnet.records.run_files import RunCall
from alexnet.records.settings import SettingsChoice

ONE_PROCESS = RunCall(processes=1, hosts=1, towers=1, doctor="stop", threads=0)
_SETS_BITS = ("cpu", "gpu", "threads", "processes", "packages", "plain")


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


@dataclass(frozen=True)
class RecordedEnvironment:
    """The environment.json of a run, which may lack keys or be edited: nothing is refused.

    Only the description of how a run came about is made of it. Files of 0.1.0 lack some keys.
    """

    content: Mapping[str, Any]

    @property
    def cpu(self) -> Any:
        """The processor's name, or None."""
        return self.content.get("cpu")

    @property
    def gpu(self) -> Any:
        """The name of the GPU, or None."""
        return self.content.get("gpu")

    @property
    def packages(self) -> Mapping[str, Any]:
        """Versions by package."""
        packages = self.content.get("packages")
        return packages if isinstance(packages, dict) else {}

    @property
    def command(self) -> Sequence[str]:
        """The words of the command line."""
        return tuple(self.content.get("command", ()))

    @property
    def threads(self) -> int | None:
        """The number of threads that the training was computed with; None where it is not there."""
        try:
            count = self.content["settings"]["chosen"]["threads"]
        except (KeyError, TypeError):
            return None
        return count if type(count) is int else None

    def without(self, *names: str) -> dict[str, Any]:
        """The content without some fields of Environment."""
        known = {field.name for field in fields(Environment)}
        assert known.issuperset(names)
        return {key: value for key, value in self.content.items() if key not in names}

    def machine(self) -> dict[str, Any]:
        """The part that a certificate has: cpu, gpu and packages."""
        return {key: self.content.get(key) for key in ("cpu", "gpu", "packages")}

    def changes(self, now: Environment) -> str:
        """The differences between this machine and another one on which the bits of a training may
        depend. Runs of 0.1.0 had one process."""
        before, after = {"processes": 1, **self.content}, now.to_json()
        return "; ".join(
            f"{key} was {before.get(key)}, is {after.get(key)}"
            for key in _SETS_BITS
            if before.get(key) != after.get(key)
        )

    def call(self) -> RunCall:
        """The call of a training whose recipe.json does not record it: of its machine, and of the
        words of its command, where there was one."""
        content = self.content
        try:
            words = [part for word in content.get("command", ()) for part in word.split("=", 1)]
            after = dict(pairwise(words))
            settings = content.get("settings") or {"chosen": content}
            return RunCall(
                processes=int(content.get("processes", 1)),
                hosts=1,
                towers=int(after.get("--towers", 1)),
                doctor="off" if "--no-doctor" in words else str(after.get("--doctor", "stop")),
                threads=0 if content.get("gpu") else int(settings["chosen"].get("threads", 0)),
            )
        except (TypeError, ValueError, AttributeError, KeyError):  # the file was edited
            return ONE_PROCESS
