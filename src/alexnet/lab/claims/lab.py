"""What a claim is, what a measurement of it says, and where its experiment keeps what it has."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alexnet.files import DirLock, read_json, write_json
from alexnet.lab.claims.workers import measured, measurements_at_once
from alexnet.runtime import pick_device
from alexnet.terminal import duration, progress

ClaimVerdict = Literal[
    "confirmed", "not confirmed at this scale", "contradicted", "not enough seeds"
]
Row = dict[str, Any]

ENOUGH = 3  # seeds below which an interval is not worth printing a verdict on

NEEDS = {
    "": "nothing",
    "cifar10": "CIFAR-10, or other images of 32 pixels",
    "photos": "photos in class folders",
    "ilsvrc-2010": "ILSVRC-2010, packed, and a GPU",
    "ilsvrc-2012": "ILSVRC-2012, packed, and a GPU",
}


@dataclass(frozen=True)
class Outcome:
    """What was measured: a number in the claim's unit with its 95 % interval where chance has a
    part in it, a sentence, and all figures behind it. `draw` puts pictures into a folder."""

    verdict: ClaimVerdict
    measured: float
    ci95: tuple[float, float] | None
    finding: str
    figures: dict[str, Any] = field(default_factory=dict)
    draw: Callable[[Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`paper` is what is printed and `source` where; `printed` the number in it, in `unit`.

    `data` is a key of NEEDS; `minutes` what it takes on two cores with `seeds` repetitions;
    `picture` describes the paper's figure, where it has one; `published` are top-1 and top-5 error
    (%) of this and other systems, by name and source.
    """

    name: str
    paper: str
    source: str
    unit: str
    measure: Callable[["Lab"], Outcome]
    printed: float | None = None
    data: str = ""
    minutes: float = 0.1
    seeds: int = 1
    picture: str = ""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        takes = "days" if self.data.startswith("ilsvrc") else duration(60 * self.minutes)
        return f"{NEEDS[self.data]}; {takes}"

    @property
    def command(self) -> str:
        return f"alexnet claim {self.name}" + (" --data DIR" if self.data else "")


class OutOfTime(Exception):
    """The budget is used up; what was measured is kept."""


@dataclass
class Lab:
    """The measurements of one claim in `folder`: each is made once, whoever interrupts.

    `data` is what the user named, `seeds` how often everything is repeated, `printed` the claim's
    number, `images` how many to train on where the claim's own number is not wanted; `deadline` (of
    `clock`) stops between two measurements; `at_once` is how many are made at the same time (None:
    as many as there are threads for); `seconds` is what those so far took, added up.
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
        self, cells: Sequence[Row], how: Callable[[Row], Row], file: Path | None = None
    ) -> list[Row]:
        """`how` of each cell, in order; what an earlier call measured is taken from `file`.

        A cell says all that its figures depend on. Several are measured at once: claims/workers.py.
        """
        file = file or self.folder / "cells.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        vary = {key for cell in cells for key in cell if cell[key] != cells[0][key]}
        with DirLock(file.parent), progress("measuring", len(cells), "cells") as bar:
            known = read_json(file).get("cells", []) if file.exists() else []
            found = [_known(cell, known) for cell in cells]
            missing = [i for i, row in enumerate(found) if row is None]
            bar.advance(len(cells) - len(missing))
            most = self.at_once or measurements_at_once(pick_device())
            work = measured(how, [cells[i] for i in missing], most, self._in_time)
            for i, row in work:
                cell = cells[missing[i]]
                found[missing[i]] = cell | row
                known.append(cell | row)
                write_json(file, {"cells": known})
                bar.note(", ".join(f"{key} {cell[key]}" for key in cell if key in vary))
                bar.advance()
        rows = [row for row in found if row is not None]
        self.seconds = (self.seconds or 0.0) + sum(row.get("wall_s", 0.0) for row in rows)
        if len(rows) < len(cells):
            raise OutOfTime
        return rows

    def _in_time(self) -> bool:
        return self.clock() <= self.deadline


def _known(cell: Row, known: Sequence[Row]) -> Row | None:
    return next((row for row in known if cell.items() <= row.items()), None)


@dataclass(frozen=True)
class Effect:
    """The mean of paired differences and its 95 % t-interval; n pairs."""

    mean: float
    low: float
    high: float
    n: int

    def judge(self, printed: float | None) -> ClaimVerdict:
        """What the interval says of a claim that the effect is above 0, and as large as printed.

        One that holds both 0 and the printed effect tells the two not apart.
        """
        if self.n < ENOUGH:
            return "not enough seeds"
        if self.low > 0:
            return "confirmed"
        if self.high < 0:
            return "contradicted"
        undecided = printed is not None and self.low <= printed <= self.high
        return "not enough seeds" if undecided else "not confirmed at this scale"


def paired_effect(differences: Sequence[float]) -> Effect:
    """The mean of differences that were measured in pairs; of one the interval has no end."""
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Effect(mean, -math.inf, math.inf, n)
    half = t_quantile(n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return Effect(mean, mean - half, mean + half, n)


def t_quantile(df: int, share: float = 0.95) -> float:
    """The t that Student's distribution stays within on both sides with this probability."""
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def inside(t: float, pieces: int = 2000) -> float:
        """By Simpson's rule, over the angle whose tangent is x / sqrt(df): the tails are finite."""
        end = math.atan(t / math.sqrt(df))
        heights = [math.cos(end * i / pieces) ** (df - 1) for i in range(pieces + 1)]
        total = heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2])
        return 2 * scale * math.sqrt(df) * total * end / pieces / 3

    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < share else (low, middle)
    return high


def as_printed(measured: float, printed: float | None, digits: int) -> ClaimVerdict:
    """Whether an exact number is, rounded to the digits that are printed, what is printed."""
    assert printed is not None
    same = float(f"{measured:.{digits}g}") == float(f"{printed:.{digits}g}")
    return "confirmed" if same else "contradicted"
