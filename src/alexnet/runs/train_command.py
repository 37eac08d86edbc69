"""How a run is trained again: what beside its recipe and its data decides its weights, as a record
and as the words of a command."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from alexnet.runs.records import Event, ResumeEvent

HOST = "HOST:29500"  # where several hosts meet: the name of the first is not in a record


@dataclass(frozen=True)
class Call:
    """What of a call and its machine the weights depend on. `threads` are those of a process, 0
    where no record has them or a GPU computes; `doctor` is stop, say or off."""

    processes: int = 1
    hosts: int = 1
    towers: int = 1
    doctor: str = "stop"
    threads: int = 0


def recorded_call(
    saved: Mapping[str, Any], environment: Mapping[str, Any], events: Iterable[Event]
) -> Call:
    """The call that a run's recipe.json records. Of runs from before it did, environment.json has
    the machine, and the words of the command where there was one."""
    known = {f.name for f in fields(Call)}
    begun = {key: value for key, value in saved.get("call", {}).items() if key in known}
    call = Call(**begun) if begun else _call_of_words(environment)
    # A guard that was overruled once, to go on, would stop there again.
    overruled = any(isinstance(e, ResumeEvent) and e.doctor not in (None, "stop") for e in events)
    return replace(call, doctor="say") if overruled and call.doctor == "stop" else call


def _call_of_words(environment: Mapping[str, Any]) -> Call:
    try:
        words = [part for word in environment.get("command", ()) for part in word.split("=", 1)]
        after = dict(pairwise(words))
        settings = environment.get("settings") or {"chosen": environment}
        return Call(
            processes=int(environment.get("processes", 1)),
            towers=int(after.get("--towers", 1)),
            doctor="off" if "--no-doctor" in words else str(after.get("--doctor", "stop")),
            threads=0 if environment.get("gpu") else int(settings["chosen"].get("threads", 0)),
        )
    except (TypeError, ValueError, AttributeError, KeyError):  # edited: what it says is not known
        return Call()


def train_command(
    recipe: Sequence[str], call: Call, *, data: str = "", init: str = "", run: str = ""
) -> str:
    """The line for a shell that trains `recipe`, a name or file and flags, as a call did."""
    words = ["alexnet", "train", *recipe]
    words += ["--data", data] if data else []
    words += ["--init", init] if init else []
    words += ["--towers", str(call.towers)] if call.towers > 1 else []
    words += ["--doctor", call.doctor] if call.doctor != "stop" else []
    words += ["--run", run] if run else []
    if call.processes > 1:
        meeting = ["--standalone"]
        if call.hosts > 1:
            meeting = ["--nnodes", str(call.hosts), "--rdzv-backend", "c10d"]
            meeting += ["--rdzv-endpoint", HOST]
        each = str(call.processes // call.hosts)
        words = ["torchrun", *meeting, "--nproc-per-node", each, "-m", "--", *words]
    return (f"OMP_NUM_THREADS={call.threads} " if call.threads else "") + shlex.join(words)


def conditions(
    digest: str,
    weights: str,
    call: Call,
    environment: Mapping[str, Any],
    data: str,
    events: Iterable[Event] = (),
) -> list[str]:
    """What comes out of that line, and under which conditions: sentences. `weights` says whose
    sha256 is what, `data` is the digest of the images, `events` are the run's."""
    gpu, cpu = environment.get("gpu"), environment.get("cpu") or "the same processor"
    packages = environment.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    version = f"torch {torch}" if torch else "the same version of torch"
    team = f"{call.processes} processes of " if call.processes > 1 else ""
    if call.towers > 1:
        team = f"{call.processes} processes ({call.towers} towers) of "
    threads = (
        f"{call.threads} thread(s)" if call.threads else "as many threads, which it does not record"
    )
    said = [f"The recipe's digest is then {digest}; the data's must be {data}."]
    if gpu:
        said.append(
            f"It was trained on a GPU ({gpu}), where two trainings were never compared bit by bit: "
            f"the recipe is the same then, the bits may not be. {weights}"
        )
    else:
        said.append(
            f"The weights are the same bits on such a processor ({cpu}), in {team}{threads}, with "
            f"{version}. {weights}"
        )
    said.append(
        "On another processor or GPU, in another number of threads or processes, or with another "
        "version, sums are taken in another order: the figures are then those of another seed."
    )
    said += [
        f"It was continued at step {event.step or 0:,} under other conditions ({event.changed}): "
        "no one machine gives the bits that came after."
        for event in events
        if isinstance(event, ResumeEvent) and event.changed
    ]
    if call.hosts > 1:
        said.append(f"Start the line on each of {call.hosts} hosts; HOST is the name of the first.")
    return said
