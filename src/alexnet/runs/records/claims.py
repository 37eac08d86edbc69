"""What `alexnet claim` returns and keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet.runs.records.base import Entry, Record, optional
from alexnet.runs.records.environment import Environment


@dataclass(frozen=True, kw_only=True)
class ClaimRow(Record):
    """A claim, by `name`, and what was measured of it.

    `paper` is what is printed and `source` where; `printed` the number in it, in `unit`. `needs` is
    the data and time that it takes, `command` what measures it, `picture` the paper's figure, where
    it has one. `published` are top-1 and top-5 error (%) of this and other systems. `measured` and
    its interval `ci95` are in the claim's unit, None where they are not there; `verdict` is what
    they say.
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
class ClaimLeft(Entry):
    """A claim, by `name`, that was not measured, and `why`."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class ClaimList(Record):
    """The `claims` that there are; with --all also those that were `left`."""

    claims: Sequence[ClaimRow]
    left: Sequence[ClaimLeft] | None = optional()


@dataclass(frozen=True, kw_only=True)
class ClaimRecord(Record):
    """What is kept of the `claim` of this name, claim.json.

    `paper`, `source`, `unit`, `printed`, `measured`, `ci95` and `verdict` are as in ClaimRow.
    `finding` says it in a sentence, `figures` are all numbers behind it, from `seeds` repetitions
    (None where chance has no part in it) that took `wall_s` seconds in this `environment`.
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
    """A claim that was measured, and the file that holds it (`record`)."""

    record: str
