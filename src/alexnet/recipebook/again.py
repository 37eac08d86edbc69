"""How a run is trained again: what beside its recipe and its data decides its weights, as a record
and as the words of a command."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from alexnet.runs.records import Event, RecordedEnvironment, ResumeEvent, RunCall, RunStart

HOST = "HOST:29500"  # where several hosts meet: the name of the first is not in a record


def recorded_call(
    start: RunStart, environment: RecordedEnvironment, events: Iterable[Event]
) -> RunCall:
    """The call of a run: from recipe.json, or where that has none, from environment.json."""
    call = start.call or environment.call()
    # A guard that was overruled once, to go on, would stop there again.
    overruled = any(isinstance(e, ResumeEvent) and e.doctor not in (None, "stop") for e in events)
    return replace(call, doctor="say") if overruled and call.doctor == "stop" else call


def train_command(
    recipe: Sequence[str], call: RunCall, *, data: str = "", init: str = "", run: str = ""
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
    call: RunCall,
    environment: RecordedEnvironment,
    data: str,
    events: Iterable[Event] = (),
) -> list[str]:
    """What comes out of that line, and under which conditions: sentences. `weights` says whose
    sha256 is what, `data` is the digest of the images, `events` are the run's."""
    gpu, cpu = environment.gpu, environment.cpu or "the same processor"
    torch = environment.packages.get("torch")
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
