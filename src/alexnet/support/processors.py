"""How many processors this process may use, how many threads compute on them, and how these wait.

Threads and waiting are variables of the OpenMP runtime, which it reads once, as torch is loaded.
Commands set them before that. The library sets nothing: its caller's environment is not its own.
"""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexnet.support.launch import is_launched

# Where a thread that has nothing to do looks for more: so many turns of a loop, about 20 us, in
# GNU's runtime, whose own number, 300,000, keeps a processor from others for milliseconds; one
# millisecond, the least but none, in LLVM's and Intel's, whose own is 200.
SPINS, BLOCKTIME_MS = "1000", "1"
# What sets the wait of each, with the variables by which a user has spoken of it already.
_WAITS = (
    ("GOMP_SPINCOUNT", SPINS, ("OMP_WAIT_POLICY",)),
    ("KMP_BLOCKTIME", BLOCKTIME_MS, ("OMP_WAIT_POLICY", "KMP_LIBRARY")),
)
# By which a user fixes threads, in the order in which torch believes them where it has MKL.
_THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
# What each variable may hold; anything else its runtime leaves aside, and so do we.
_COUNT = r"[1-9][0-9]*(,.*)?"
_VALID = {
    "OMP_NUM_THREADS": _COUNT,
    "MKL_NUM_THREADS": _COUNT,
    "OMP_WAIT_POLICY": r"(?i:active|passive)",
    "GOMP_SPINCOUNT": r"[0-9]+ *(?i:[kmgt])?|(?i:infinite|infinity)",
    "KMP_BLOCKTIME": r"[0-9]+ *(?i:us|ms|s)?|(?i:infinite)",
}
_OURS = "ALEXNET_OMP_NUM_THREADS"  # the OMP_NUM_THREADS that a command set: no user's word
_ROOT = Path("/")


@dataclass(frozen=True)
class Processors:
    """`there` are in the machine, `usable` by this process, for a reason in words (empty where it
    may use all); `threads` is how many threads have one each, hyper-threads of a core not counted
    apart."""

    there: int
    usable: int
    why: str
    threads: int


def find_processors(
    environ: Mapping[str, str] = os.environ,
    root: Path = _ROOT,
    affinity: Collection[int] | None = None,
    there: int | None = None,
) -> Processors:
    """The least that affinity, a container's quota, SLURM and torchrun leave to this process.

    A quota that is no whole number is rounded, half up, and at least one processor is usable. What
    cannot be read or understood limits nothing. `root` has proc and sys; `affinity` are the numbers
    of processors that the system lets this process run on, `there` is how many it has.
    """
    there = there or os.cpu_count() or 1
    bound = _affinity(there) if affinity is None else frozenset(affinity)
    limits = [(there, "")]
    if bound:
        limits.append((len(bound), "CPU affinity"))
    if quota := _quota(root):
        limits.append((max(int(quota + 0.5), 1), f"a quota of {round(quota, 2)} CPUs"))
    if task := _whole(environ.get("SLURM_CPUS_PER_TASK", "")):
        limits.append((task, f"SLURM_CPUS_PER_TASK={task}"))
    usable, why = min(limits, key=lambda limit: limit[0])  # of equals the first
    # Only of torchrun, which lets its processes use the same processors; others may divide them.
    together = _whole(environ.get("LOCAL_WORLD_SIZE", "")) if is_launched(environ) else 0
    if together > 1 and "TORCHELASTIC_RUN_ID" in environ:
        usable = max(usable // together, 1)
        why = f"{why}, shared by" if why else "shared by"
        why += f" {together} processes of torchrun"
    if usable == there:
        return Processors(there, there, "", there)
    return Processors(there, usable, why, min(usable, _cores(bound, root) or usable))


def set_up_threads() -> None:
    """Sets how many threads compute and how they wait, in the environment of this process and those
    it starts. For commands, before torch is loaded; does nothing where it is."""
    if "torch" not in sys.modules:
        os.environ.update(thread_variables(os.environ, find_processors()))


def thread_variables(environ: Mapping[str, str], processors: Processors) -> dict[str, str]:
    """The variables to add to `environ`; none where the user has set it, or another that says the
    same.

    The number of threads is left to torch, which knows the machine, except where something limits
    this process.
    """
    added = {
        name: value
        for name, value, others in _WAITS
        if not any(_said(said, environ) for said in (name, *others))
    }
    if processors.usable < processors.there and not given_threads(environ):
        added |= dict.fromkeys(("OMP_NUM_THREADS", _OURS), str(processors.threads))
    return added


def given_threads(environ: Mapping[str, str] = os.environ) -> str:
    """The variable by which the user, or torchrun, fixed the number of threads, as
    OMP_NUM_THREADS=1; empty where none did, also where a command of ours set it."""
    for name in _THREADS:
        value = _said(name, environ)
        ours = name == "OMP_NUM_THREADS" and value == environ.get(_OURS)
        if value and not ours:
            return f"{name}={value}"
    return ""


def waiting(environ: Mapping[str, str] = os.environ) -> str:
    """The variables that say how threads wait, as GOMP_SPINCOUNT=1000; empty where the runtime's
    own rule holds."""
    names = dict.fromkeys(name for one, _, others in _WAITS for name in (*others, one))
    return ", ".join(f"{name}={said}" for name in names if (said := _said(name, environ)))


def _said(name: str, environ: Mapping[str, str]) -> str:
    """What a variable says, empty where it says nothing that its runtime understands."""
    value = environ.get(name, "").strip()
    return value if re.fullmatch(_VALID.get(name, ".*"), value) else ""


def describe_threads(
    count: int, processors: Processors, environ: Mapping[str, str] = os.environ
) -> str:
    """A line about the `count` threads that torch took: where they are fewer than the machine's
    processors for a known reason, or more than may be used; else empty."""
    there, usable, why = processors.there, processors.usable, processors.why
    cause = given_threads(environ) or why
    if count > usable:
        limit = f"{usable} of {there} processors may be used" + (f" ({why})" if why else "")
        return f"{_threads(count)}: {limit}; OMP_NUM_THREADS={processors.threads} would be faster"
    if count == there or not cause:
        return ""
    return f"{_threads(count)}: {cause}; {there} processors are there"


def describe_kept_threads(
    count: int, own: int, processors: Processors, environ: Mapping[str, str] = os.environ
) -> str:
    """A line about a continued run that keeps the `count` threads it began with where a new run
    would begin with `own`, unless it chose the fewer by itself."""
    given = given_threads(environ)
    if count == own or (count < own and not given):
        return ""
    why = given or processors.why
    cause = f" ({why})" if why else ""
    return (
        f"{_threads(count)}, as this run began, so that its bits stay; a new run would have "
        f"{own}{cause}"
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _affinity(there: int) -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # only some systems have it
        return frozenset(range(there))


def _cores(processors: Collection[int], root: Path) -> int:
    """How many cores have these processors, 0 where the system does not say."""
    folder = root / "sys/devices/system/cpu"
    siblings = {
        _read(folder / f"cpu{number}/topology/thread_siblings_list").strip()
        for number in processors
    }
    return 0 if "" in siblings else len(siblings)


def _quota(root: Path) -> float | None:
    """CPUs' worth of time that the control groups of this process leave it: the least of its own
    and those it lies in, of both versions; None where there is no limit."""
    quotas = [quota for folder in _groups(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_of(group: Path) -> float | None:
    limit, _, period = _read(group / "cpu.max").strip().partition(" ")  # version 2
    if not limit:
        limit = _read(group / "cpu.cfs_quota_us").strip()
        period = _read(group / "cpu.cfs_period_us").strip()
    microseconds, each = _whole(limit), _whole(period)  # without a limit: max, -1
    return microseconds / each if microseconds and each else None


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that hold this process's time, innermost first."""
    mounts = list(_mounts(root))
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        unified = (number, controllers) == ("0", "")
        if not unified and "cpu" not in controllers.split(","):
            continue
        own = [(top, point) for kind, top, point in mounts if kind == (2 if unified else 1)]
        inside = [(point, below) for top, point in own if (below := _below(path, top)) is not None]
        # In a container the path may be the host's, which is not seen here: the mount's root is
        # the container's own group then.
        for point, below in inside or [(point, PurePosixPath()) for _, point in own[:1]]:
            for part in (below, *below.parents):
                yield root / point.lstrip("/") / part


def _below(path: str, top: str) -> PurePosixPath | None:
    """A group's path under the top that is mounted; None where it lies elsewhere."""
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(top):
        return None
    return group.relative_to(top)


def _mounts(root: Path) -> Iterator[tuple[int, str, str]]:
    """Version, top and mount point of each hierarchy that may hold processors' time."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3:
            continue
        top, point = (re.sub(r"\\([0-7]{3})", _unescape, word) for word in left[3:5])
        if right[0] == "cgroup2":
            yield 2, top, point
        elif right[0] == "cgroup" and "cpu" in right[2].split(","):
            yield 1, top, point


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""


def _whole(word: str) -> int:
    """The whole number above 0 that a word is, else 0."""
    return int(word) if re.fullmatch(r"[0-9]{1,18}", word) else 0
