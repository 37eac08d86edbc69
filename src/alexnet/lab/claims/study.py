"""Measures the cells of a study, each once, several at a time.

A cell is measured by a process of its own on one thread: a figure then depends on no number of
processors, and two processors do 1.6 times what two threads of one training do.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from alexnet.errors import Elsewhere
from alexnet.runtime import pick_device, threads
from alexnet.support.files import DirLock, read_json, write_json
from alexnet.support.terminal import progress

Row = dict[str, Any]
MeasureCell = Callable[[Row], Row]

ORPHAN_S = 0.5  # between two looks at whether the parent process is still there


class OutOfTime(Exception):
    """The budget is used up; what was measured is kept."""


@dataclass
class Study:
    """The measurements of one claim in `folder`: each is made once, whoever interrupts.

    `data` is the user's data set, `seeds` how often everything is repeated, `printed` the claim's
    number, `images` how many to train on (None: the claim's own number); `deadline` (of `clock`)
    stops between two measurements; `at_once` is how many are made at the same time (None: as many
    as there are threads); `seconds` is what those so far took, added up.
    """

    folder: Path
    data: str | Path | None = None
    seeds: int = 1
    printed: float | None = None
    images: int | None = None
    deadline: float = math.inf
    seconds: float | None = None
    at_once: int | None = None
    clock: Callable[[], float] = time.monotonic

    def measure(
        self, cells: Sequence[Row], measure_cell: MeasureCell, file: Path | None = None
    ) -> list[Row]:
        """A row for each cell, in order; rows that an earlier call measured are read from `file`.

        A cell holds all that its figures depend on. Several are measured at once, in processes made
        by forking: `measure_cell` may hold anything, but what it keeps for later cells is lost.
        """
        file = file or self.folder / "cells.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        vary = {key for cell in cells for key in cell if cell[key] != cells[0][key]}
        with DirLock(file.parent), progress("measuring", len(cells), "cells") as bar:
            known = read_json(file).get("cells", []) if file.exists() else []
            rows = [_find_row(cell, known) for cell in cells]
            missing = [i for i, row in enumerate(rows) if row is None]
            bar.advance(len(cells) - len(missing))
            at_once = self.at_once or measurements_at_once(pick_device())
            new = _measure_all(measure_cell, [cells[i] for i in missing], at_once, self._in_time)
            for i, row in new:
                cell = cells[missing[i]]
                rows[missing[i]] = cell | row
                known.append(cell | row)
                write_json(file, {"cells": known})
                bar.note(", ".join(f"{key} {cell[key]}" for key in cell if key in vary))
                bar.advance()
        measured = [row for row in rows if row is not None]
        self.seconds = (self.seconds or 0.0) + sum(row.get("wall_s", 0.0) for row in measured)
        if len(measured) < len(cells):
            raise OutOfTime
        return measured

    def _in_time(self) -> bool:
        return self.clock() <= self.deadline


def _find_row(cell: Row, known: Sequence[Row]) -> Row | None:
    return next((row for row in known if cell.items() <= row.items()), None)


def measurements_at_once(device: torch.device) -> int:
    """How many to make at once: as many as there are threads. One where the device is no processor,
    or where a process cannot become two that both go on."""
    return torch.get_num_threads() if _forks(device) else 1


def _forks(device: torch.device) -> bool:
    return device.type == "cpu" and sys.platform == "linux"


def _measure_all(
    measure_cell: MeasureCell, cells: Sequence[Row], at_once: int, in_time: Callable[[], bool]
) -> Iterator[tuple[int, Row]]:
    """Each cell's number and row, with `wall_s`, in the order in which they are done. None is begun
    once `in_time` says no. What `measure_cell` raises is raised here."""
    if at_once == 1:
        for i, cell in enumerate(cells):
            if not in_time():
                return
            with threads(1 if _forks(pick_device()) else torch.get_num_threads()):
                row = _timed(measure_cell, cell)
            yield i, row
        return
    waiting, running = deque(enumerate(cells)), dict[Connection, tuple[int, Any]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once and in_time():
                i, cell = waiting.popleft()
                answer, process = _start(measure_cell, cell)
                running[answer] = i, process
            if not running:
                return
            for answer in [one for one in wait(list(running)) if isinstance(one, Connection)]:
                i, process = running.pop(answer)
                yield i, _receive(answer, process)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def _start(measure_cell: MeasureCell, cell: Row) -> tuple[Connection, Any]:
    # By forking, as torch's own loader does: the images need not be copied.
    forking = multiprocessing.get_context("fork")
    ours, theirs = forking.Pipe(duplex=False)
    process = forking.Process(
        target=_work, args=(measure_cell, cell, theirs, os.getpid()), daemon=True
    )
    with warnings.catch_warnings():  # Python 3.12 warns of OpenMP's threads, which are not used
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return ours, process


def _work(measure_cell: MeasureCell, cell: Row, answer: Connection, parent: int) -> None:
    """In the new process."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it, and ends this process
    # A live bar stands in for these, with a lock that another thread may have held.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    torch.set_num_threads(1)  # a team of more is not there any more after forking
    try:
        answer.send(_timed(measure_cell, cell))
    except Exception as error:
        answer.send(error)


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent was killed. A pipe to the parent would not tell:
    processes that were forked later hold its other end too."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(1)


def _receive(answer: Connection, process: Any) -> Row:
    try:
        row = answer.recv()
    except EOFError:
        process.join()
        raise Elsewhere(
            f"a measurement was ended from outside (status {process.exitcode}; -9 is often memory: "
            "OMP_NUM_THREADS=1 makes one at a time); the same command goes on"
        ) from None
    finally:
        answer.close()
    process.join()
    if isinstance(row, Exception):
        raise row
    return dict(row)


def _timed(measure_cell: MeasureCell, cell: Row) -> Row:
    began = time.monotonic()
    return measure_cell(cell) | {"wall_s": round(time.monotonic() - began, 1)}
