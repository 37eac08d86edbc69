"""Several ways of doing the same, timed in turns so that a noisy machine is fair to all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from alexnet.terminal import progress


@dataclass(frozen=True)
class Timed:
    """Median, smallest and largest images/s over the rounds, and the most memory held, in bytes."""

    images_per_s: float
    low: float
    high: float
    peak_bytes: int


def take_turns(ways: Mapping[str, Callable[[], int]], rounds: int, what: str) -> dict[str, Timed]:
    """Runs each way once a round, the order turned round every time; each returns its images.

    The first round warms up and is not counted.
    """
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    with progress(what, (rounds + 1) * len(ways), "runs") as bar:
        for turn in range(rounds + 1):
            for name in list(ways) if turn % 2 else reversed(list(ways)):
                before = resident_bytes()
                began = time.perf_counter()
                images = ways[name]()
                seconds = time.perf_counter() - began
                peaks[name] = max(peaks[name], resident_bytes() - before)
                if turn:
                    speeds[name].append(images / seconds)
                bar.advance()
    return {
        name: Timed(statistics.median(found), min(found), max(found), peaks[name])
        for name, found in speeds.items()
    }


def resident_bytes() -> int:
    """Memory of this process that is in use now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096
