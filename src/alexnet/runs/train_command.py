"""The command that trains a run again, the options and the machine that it depends on, and the
conditions under which the weights are the same."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from alexnet.records import Event, RecordedEnvironment, ResumeEvent, RunCall, RunStart

HOST = "HOST:29500"  # a placeholder: records do not name the first host


def recorded_call(
    start: RunStart, environment: RecordedEnvironment, events: Iterable[Event]
) -> RunCall:
    """The call that a run's recipe.json records. For older runs it is read from environment.json,
    which has the machine and the words of the command."""
    call = start.call or environment.call()
    # The guard stopped the run, and was overruled to continue it: it would stop there again.
    overruled = any(isinstance(e, ResumeEvent) and e.doctor not in (None, "stop") for e in events)
    return replace(call, doctor="say") if overruled and call.doctor == "stop" else call


def train_command(
    recipe: Sequence[str], call: RunCall, *, data: str = "", init: str = "", run: str = ""
) -> str:
    """The shell line that trains `recipe` (a name or file, and flags) as in `call`."""
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
    """Sentences on the result of the command, and on the conditions for equal bits. `weights` is a
    sentence with the sha256 of the weights, `data` the digest of the images."""
    gpu, cpu = environment.gpu, environment.cpu or "the same processor"
    torch = environment.packages.get("torch")
    version = f"torch {torch}" if torch else "the same version of torch"
    team = f"{call.processes} processes of " if call.processes > 1 else ""
    if call.towers > 1:
        team = f"{call.processes} processes ({call.towers} towers) of "
    threads = (
        f"{call.threads} thread(s)" if call.threads else "as many threads, which it does not record"
    )
    sentences = [f"The recipe's digest is then {digest}; the data's must be {data}."]
    if gpu:
        sentences.append(
            f"It was trained on a GPU ({gpu}), where two trainings were never compared bit by bit: "
            f"the recipe is the same then, the bits may not be. {weights}"
        )
    else:
        sentences.append(
            f"The weights are the same bits on such a processor ({cpu}), in {team}{threads}, with "
            f"{version}. {weights}"
        )
    sentences.append(
        "On another processor or GPU, in another number of threads or processes, or with another "
        "version, sums are taken in another order: the figures are then those of another seed."
    )
    sentences += [
        f"It was continued at step {event.step or 0:,} under other conditions ({event.changed}): "
        "no one machine gives the bits that came after."
        for event in events
        if isinstance(event, ResumeEvent) and event.changed
    ]
    if call.hosts > 1:
        sentences.append(
            f"Start the line on each of {call.hosts} hosts; HOST is the name of the first."
        )
    return sentences
