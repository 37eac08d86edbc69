"""Several ways of doing the same, timed in turns so that a noisy machine is fair to all."""

import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet.memory import give_back
from alexnet.terminal import progress

SAMPLE_S = 0.002  # between two looks at the memory


@dataclass(frozen=True)
class Timed:
    """Median, smallest and largest images/s over the rounds.

    `peak_bytes` is the most memory of its own that this process held beyond what it held before,
    files mapped into memory not counted, or of a GPU its tensors; None where the system does not
    say.
    """

    images_per_s: float
    low: float
    high: float
    peak_bytes: int | None

    def row(self, name: str, reference: "Timed") -> dict[str, Any]:
        """As a bench reports it, with its ratio to the reference."""
        return {
            "name": name,
            "images_per_s": round(self.images_per_s, 1),
            "range": [round(self.low, 1), round(self.high, 1)],
            "ratio": round(self.images_per_s / reference.images_per_s, 2),
            "extra_bytes": self.peak_bytes,
        }


def take_turns(
    ways: Mapping[str, Callable[[], int]], rounds: int, what: str, untimed: int = 0
) -> dict[str, Timed]:
    """Runs each way once a round, the order turned round every time; each returns its images.

    The first round warms up and looks at the memory; it is not timed, nor are `untimed` runs at the
    start of each turn, after which a way has the memory back that the one before left in disorder.
    """
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int | None] = {}
    with progress(what, (rounds + 1) * len(ways), "runs") as bar:
        for turn in range(rounds + 1):
            for name in list(ways) if turn % 2 else reversed(list(ways)):
                if turn == 0:
                    peaks[name] = peak_bytes(ways[name])
                else:
                    for _ in range(untimed):
                        ways[name]()
                    began = time.perf_counter()
                    images = ways[name]()
                    speeds[name].append(images / (time.perf_counter() - began))
                bar.advance()
    return {
        name: Timed(statistics.median(found), min(found), max(found), peaks[name])
        for name, found in speeds.items()
    }


def peak_bytes(run: Callable[[], object]) -> int | None:
    """The most memory that `run` held beyond what there was before: a GPU's as torch counts it, or
    the process's, looked at from a thread."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - held
    give_back()
    before = _own_bytes()
    if before is None:
        run()
        return None
    highest, done = before, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(SAMPLE_S):
            highest = max(highest, _own_bytes() or 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return highest - before


def _own_bytes() -> int | None:
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
