"""Several processes that train together, in tests: a function run by each, or the real command."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.distributed.run import get_args_parser

from conftest import forkserver

LONG = 280  # seconds before a hang is taken for one
# Before torchrun kills who does not end; not every version asks.
ASKS = "--shutdown-timeout" in get_args_parser()._option_string_actions
PATIENT = ["--shutdown-timeout", str(LONG)] if ASKS else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _child(rank: int, size: int, port: int, work: Callable[..., Any], args: Any, out: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    torch.save(work(*args), f"{out}/{rank}.pt")


def run_team(
    folder: Path, size: int, work: Callable[..., Any], *args: Any, within: float = LONG
) -> list[Any]:
    """What `work(*args)` returns in each of `size` processes that may `join`. All of them together
    have `within` seconds; who then still runs is killed, and the test fails."""
    folder.mkdir(parents=True, exist_ok=True)
    context = forkserver()
    port = free_port()
    processes = [
        context.Process(target=_child, args=(rank, size, port, work, args, str(folder)))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    ends = time.monotonic() + within
    try:
        for process in processes:
            process.join(max(ends - time.monotonic(), 0))
        assert [process.exitcode for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def torchrun(
    size: int, words: list[Any], log: Path, *options: str, module: str = "alexnet", **more: str
) -> "subprocess.Popen[str]":
    """`torchrun OPTIONS -m -- MODULE WORDS`; both streams go into `log`."""
    signals = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGUSR2"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    command += [signals, "--standalone", *PATIENT, *options, "-m", "--", module]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "LAUNCH": str(log),
        "PYTHONPATH": os.pathsep.join(paths),
        **more,
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    process.args = [*command, str(log)]  # by which `members` knows its own
    return process


def members(process: "subprocess.Popen[str]") -> dict[int, bytes]:
    """The processes of a `torchrun` that live, orphans too, and their environments."""
    found = {}
    mark = f"LAUNCH={process.args[-1]}".encode()  # type: ignore[index]
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes()
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark in environment.split(b"\0") and state not in "ZX":
            found[int(place.name)] = environment
    return found


def workers(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Process ids by rank, without those that only wait for theirs (`exits`)."""
    found = {}
    for pid, environment in members(process).items():
        rank = re.search(rb"\0RANK=(\d+)\0", environment)
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if rank and b"exits" not in words and not any(w.endswith(b"exits.py") for w in words):
                found[int(rank[1])] = pid
    return found


def end(process: "subprocess.Popen[str]") -> None:
    """Leaves nothing behind."""
    for pid in members(process):
        os.kill(pid, signal.SIGKILL)
    process.wait()
