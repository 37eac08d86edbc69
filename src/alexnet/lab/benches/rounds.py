"""Several ways of doing the same, timed in turns so that a noisy machine is fair to all."""

import re
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet.lab.benches.company import QUIET, in_company
from alexnet.records import BenchRow, CompanyRow
from alexnet.support.memory import give_back
from alexnet.support.terminal import progress

SAMPLE_S = 0.002  # between two looks at the memory
IN_COMPANY = 3  # rounds: each takes as long as two or three quiet ones


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

    def row(self, name: str, reference: "Timed") -> BenchRow:
        """As a bench reports it, with its ratio to the reference."""
        return BenchRow(
            name=name,
            images_per_s=round(self.images_per_s, 1),
            range=(round(self.low, 1), round(self.high, 1)),
            ratio=round(self.images_per_s / reference.images_per_s, 2),
            extra_bytes=self.peak_bytes,
        )


def take_turns(
    ways: Mapping[str, Callable[[], int]], rounds: int, what: str, untimed: int = 0
) -> dict[str, Timed]:
    """Runs each way once a round, the order turned round every time; each returns its images.

    The first round warms up and looks at the memory; it is not timed, nor are `untimed` runs at the
    start of each turn, after which a way has the memory back that the one before left in disorder.
    """
    return take_turns_in_company(ways, rounds, what, (), untimed)[QUIET]


def take_turns_in_company(
    ways: Mapping[str, Callable[[], int]],
    rounds: int,
    what: str,
    companies: Sequence[str],
    untimed: int = 0,
) -> dict[str, dict[str, Timed]]:
    """The same by company, "quiet" first: some of the rounds, IN_COMPANY at most and spread over
    all, have each way beside the busy processes of each company too, in turns with the quiet."""
    beside = companies_by_round(rounds, companies)
    speeds: dict[str, dict[str, list[float]]] = {
        company: {name: [] for name in ways} for company in (QUIET, *companies)
    }
    peaks: dict[str, int | None] = {}
    runs = len(ways) * (1 + sum(map(len, beside)))
    with progress(what, runs, "runs") as bar:
        for name in reversed(list(ways)):
            peaks[name] = peak_bytes(ways[name])
            bar.advance()
        for turn, of_round in enumerate(beside, start=1):
            for company in of_round:
                with in_company(company):
                    for name in list(ways) if turn % 2 else reversed(list(ways)):
                        for _ in range(untimed):
                            ways[name]()
                        began = time.perf_counter()
                        images = ways[name]()
                        speeds[company][name].append(images / (time.perf_counter() - began))
                        bar.advance()
    return {
        company: {
            name: Timed(
                statistics.median(measured),
                min(measured),
                max(measured),
                peaks[name] if company == QUIET else None,
            )
            for name, measured in by_name.items()
        }
        for company, by_name in speeds.items()
    }


def companies_by_round(rounds: int, companies: Sequence[str]) -> list[list[str]]:
    """In which company each round is run, one after the other: "quiet" in all of them, and in
    IN_COMPANY at most, spread over all, the others too, in an order turned round every time."""
    some, done, schedule = min(rounds, IN_COMPANY), 0, []
    for i in range(rounds):
        beside = [QUIET]
        if companies and (i + 1) * some // rounds > done:
            beside = [QUIET, *companies] if done % 2 else [*reversed(companies), QUIET]
            done += 1
        schedule.append(beside)
    return schedule


def company_rows(turns: Mapping[str, Mapping[str, Timed]], reference: str) -> list[CompanyRow]:
    """A row for each way in each company, with its ratio to the reference in the same company."""
    rows = []
    for company, by_name in turns.items():
        for name, timed in by_name.items() if company != QUIET else ():
            row = timed.row(name, by_name[reference])
            of_quiet = timed.images_per_s / turns[QUIET][name].images_per_s
            rows.append(
                CompanyRow(
                    name=name,
                    company=company,
                    images_per_s=row.images_per_s,
                    range=row.range,
                    ratio=row.ratio,
                    of_quiet=round(of_quiet, 3),
                )
            )
    return rows


def peak_bytes(run: Callable[[], object]) -> int | None:
    """The most memory that `run` took beyond what there was before: a GPU's as torch counts it, or
    the process's, looked at from a thread."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - allocated
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
        match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
