"""Several processes that train together, in tests: a function run by each, or the real command."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LONG = 280  # seconds before a hang is taken for one; pytest's own limit is 300


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


def run_team(folder: Path, size: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What `work(*args)` returns in each of `size` processes that may `join`."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet.commands"])
    port = free_port()
    processes = [
        context.Process(target=_child, args=(rank, size, port, work, args, str(folder)))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(LONG)
        assert [process.exitcode for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def torchrun(
    size: int, words: list[Any], log: Path, *options: str, **more: str
) -> "subprocess.Popen[str]":
    """`torchrun OPTIONS -m -- alexnet WORDS` in a session of its own; both streams into `log`."""
    signals = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    command += [signals, "--master-port", str(free_port()), *options, "-m", "--", "alexnet"]
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} | more
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )


def members(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return sorted(found)


def end(process: "subprocess.Popen[str]") -> None:
    """Leaves nothing behind."""
    for pid in members(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
