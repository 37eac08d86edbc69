"""Results of `alexnet claim`, and the files that it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.records.base import Entry, Record, optional
from alexnet.records.environment import Environment


@dataclass(frozen=True, kw_only=True)
class ClaimRow(Record):
    """A claim of the paper, called `name`, and its measurement.

    `paper` is the sentence that the paper prints, `source` its place, and `printed` the number in
    it, in `unit`. `needs` is the data and time for measuring it, `command` the command that
    measures it, `picture` a description of the figure that the paper has for it.
    `published` has the top-1 and top-5 errors (%) of this and other systems. `measured` and its
    interval `ci95` are in the same unit, None where nothing was measured; `verdict` compares them.
    """

    name: str
    paper: str
    source: str
    unit: str
    printed: float | None
    needs: str
    command: str
    picture: str
    published: Mapping[str, Sequence[float]]
    measured: float | None
    ci95: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class UnmeasuredClaim(Entry):
    """The `name` of a claim that was not measured, and `why`."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class ClaimList(Record):
    """All `claims`; with --all also those that were `left` unmeasured."""

    claims: Sequence[ClaimRow]
    left: Sequence[UnmeasuredClaim] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ClaimRecord(Record):
    """The content of a claim.json: how the `claim` of this name was measured.

    `paper`, `source`, `unit`, `printed`, `measured`, `ci95` and `verdict` are as in ClaimRow.
    `finding` states the result in a sentence, and `figures` are all numbers behind it. They come
    from `seeds` repetitions (None where nothing is random), which took `wall_s` seconds in this
    `environment`.
    """

    claim: str
    paper: str
    source: str
    unit: str
    printed: float | None
    measured: float | None
    ci95: tuple[float, float] | None
    verdict: str
    finding: str
    seeds: int | None
    figures: Mapping[str, Any]
    wall_s: float
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class ClaimResult(ClaimRecord, ClaimList):
    """A claim that was measured, and the path of its claim.json (`record`)."""

    record: str
