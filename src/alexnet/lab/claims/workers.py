"""Measurements of which several are made at once, each by a process of its own on one thread.

A figure then depends on no number of processors, and two processors do 1.6 times what two threads
of one training do.
"""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from alexnet.errors import Elsewhere
from alexnet.runtime import pick_device, threads

Row = dict[str, Any]
MakeMeasurement = Callable[[Row], Row]

_KILL_WITH_PARENT = 1  # of Linux's prctl


def measurements_at_once(device: torch.device) -> int:
    """How many to make at once: as many as there are threads for. One where the device is no
    processor, or where a process cannot become two that both go on."""
    return torch.get_num_threads() if _forks(device) else 1


def _forks(device: torch.device) -> bool:
    return device.type == "cpu" and sys.platform == "linux"


def measured(
    how: MakeMeasurement, cells: Sequence[Row], most: int, go_on: Callable[[], bool]
) -> Iterator[tuple[int, Row]]:
    """Each cell's number and what `how` says of it, in the order in which they are done, with
    `wall_s`. None is begun once `go_on` says no.

    What `how` raises is raised here. `how` may hold anything, since a process is made by forking,
    but what it keeps for later cells is not there in those.
    """
    if most == 1:
        for i, cell in enumerate(cells):
            if not go_on():
                return
            with threads(1 if _forks(pick_device()) else torch.get_num_threads()):
                found = _timed(how, cell)
            yield i, found
        return
    waiting, running = deque(enumerate(cells)), dict[Connection, tuple[int, Any]]()
    try:
        while waiting or running:
            while waiting and len(running) < most and go_on():
                i, cell = waiting.popleft()
                ours, process = _begin(how, cell)
                running[ours] = i, process
            if not running:
                return
            for ours in [one for one in wait(list(running)) if isinstance(one, Connection)]:
                i, process = running.pop(ours)
                yield i, _hear(ours, process)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def _begin(how: MakeMeasurement, cell: Row) -> tuple[Connection, Any]:
    # By forking, as torch's own loader does: what is measured on need not be copied.
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(target=_work, args=(how, cell, theirs), daemon=True)
    with warnings.catch_warnings():  # Python 3.12 warns of OpenMP's threads, which are not used
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return ours, process


def _work(how: MakeMeasurement, cell: Row, answer: Connection) -> None:
    """In the new process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked hears of it, and ends this
    # A live bar stands in for these, with a lock that another thread may have held.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    torch.set_num_threads(1)  # a team of more is not there any more after forking
    try:
        answer.send(_timed(how, cell))
    except Exception as error:
        answer.send(error)


def _hear(heard: Connection, process: Any) -> Row:
    try:
        found = heard.recv()
    except EOFError:
        process.join()
        raise Elsewhere(
            f"a measurement was ended from outside (status {process.exitcode}; -9 is often memory: "
            "OMP_NUM_THREADS=1 makes one at a time); the same command goes on"
        ) from None
    finally:
        heard.close()
    process.join()
    if isinstance(found, Exception):
        raise found
    return dict(found)


def _timed(how: MakeMeasurement, cell: Row) -> Row:
    began = time.monotonic()
    return how(cell) | {"wall_s": round(time.monotonic() - began, 1)}
