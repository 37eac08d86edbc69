"""Company: busy processes beside what is measured, one a core, as other people's programs are.

Each does nothing but count. A priority ("nice", from 0, equal to most programs, to 19, the lowest)
is relative within a group of the scheduler alone: a session of Linux's autogroups, a cgroup, a
container. Two groups share the processors as their own weights say, whatever the priorities of the
processes in them. These processes are of the caller's session and cgroup, so that their priorities
mean what they say; beside a program of another terminal or container a fair share is half, even if
that program has the lowest priority.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from alexnet.errors import DataError
from alexnet.records import Company
from alexnet.support.processors import find_processors

LOWEST = 19  # of Linux's priorities
QUIET = "quiet"  # nobody beside
COMPANIES = ("lowest", "equal")  # priorities beside the caller's own

# It ends with who started it, also where that was killed: its parent is then another process. A
# pipe would not tell, for workers that the parent forked hold its other end too.
_BUSY = """
import os, sys
parent, niceness = map(int, sys.argv[1:])
os.setpriority(os.PRIO_PROCESS, 0, niceness)
print("busy", flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


def no_company() -> list[str]:
    """What cannot be measured where the system has no priorities, and why; else nothing."""
    if hasattr(os, "setpriority"):
        return []
    return ["in company: this system gives processes no priorities"]


def niceness_of(company: str) -> int:
    """The priority of a company's processes: the lowest there is, or that of this process."""
    return LOWEST if company == "lowest" else os.getpriority(os.PRIO_PROCESS, 0)


def described() -> Company:
    """For a record: how many processes are beside, and their priorities."""
    niceness = {company: niceness_of(company) for company in COMPANIES}
    return Company(processes=find_processors().usable, niceness=niceness)


@contextmanager
def in_company(company: str, count: int | None = None) -> Iterator[list[int]]:
    """Inside, so many processes (one a usable core) are busy at "lowest" or "equal" priority, or
    none where it is "quiet"; yields their ids."""
    if company == QUIET:
        yield []
        return
    count = find_processors().usable if count is None else count
    with busy_processes(niceness_of(company), count) as pids:
        yield pids


@contextmanager
def busy_processes(niceness: int, count: int, *, apart: bool = False) -> Iterator[list[int]]:
    """Inside, `count` processes of this priority (0 to 19) do nothing but work; yields their ids.

    `apart` each is in a session of its own, as programs of other terminals are: with autogroups it
    has as much time as all of the caller's session together, whatever its priority.

    All of them are at work when it begins and gone when it ends, however it ends; they outlive a
    killed caller by some milliseconds of their own time. A signal to the caller's group of
    processes, such as ctrl-C, is the caller's alone. DataError where one cannot be started.
    """
    command = [sys.executable, "-I", "-S", "-c", _BUSY, str(os.getpid()), str(niceness)]
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=None if apart else 0,  # a session of its own has a group too
                start_new_session=apart,
            )
            stack.callback(_end, process)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline().strip() != b"busy":
                raise DataError(
                    f"no process of priority {niceness} could be started beside the measurement: "
                    "name a higher number, or measure alone"
                )
        yield [process.pid for process in started]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
