"""alexnet claim: what the paper claims, measured."""

import math
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

from alexnet.errors import DataError, Interrupted, UsageError
from alexnet.lab.claims.catalogue import CLAIMS, find_claim
from alexnet.lab.claims.claim import Claim
from alexnet.lab.claims.study import OutOfTime, Study
from alexnet.records import (
    ClaimList,
    ClaimRecord,
    ClaimResult,
    ClaimRow,
    Environment,
    UnmeasuredClaim,
)
from alexnet.runtime import chance_kept, environment
from alexnet.support.argument_checks import Range, checked
from alexnet.support.files import read_json, write_json
from alexnet.support.options import Placeholder, option
from alexnet.support.terminal import duration, say

RECORD = "claim.json"
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@overload
def claim(
    name: None = None,
    *,
    data: str | Path | None = None,
    seeds: int | None = None,
    images: int | None = None,
    out: str | Path = "results/claims",
    all: bool = False,
    budget: str | None = None,
) -> ClaimList: ...


@overload
def claim(
    name: str,
    *,
    data: str | Path | None = None,
    seeds: int | None = None,
    images: int | None = None,
    out: str | Path = "results/claims",
    all: Literal[False] = False,
    budget: str | None = None,
) -> ClaimResult: ...


@overload
def claim(
    name: str | None,
    *,
    data: str | Path | None = None,
    seeds: int | None = None,
    images: int | None = None,
    out: str | Path = "results/claims",
    all: bool = False,
    budget: str | None = None,
) -> ClaimList | ClaimResult: ...


@checked(seeds=Range(high=10**6), images=Range(high=10**9))
@chance_kept()
def claim(
    name: str | None = None,
    *,
    data: str | Path | None = None,
    seeds: int | None = None,
    images: int | None = None,
    out: str | Path = "results/claims",
    all: bool = False,
    budget: str | None = None,
) -> ClaimList | ClaimResult:
    """Runs the experiment of a claim, or lists the claims there are; with `all` runs what it can.

    What is measured is kept in `out`, so that a run that was cut goes on. `seeds` and `images` (to
    train on) replace the claim's own numbers. Returns a ClaimList, from the records there are; of
    one claim a ClaimResult, with its finding, figures and the file that holds them. With `all`,
    `data` is a folder that holds data sets by name (cifar10, photos), `budget` is like 30m, and
    `left` says what was not run and why.
    """
    folder = Path(out).expanduser()
    if seeds is not None and seeds < 1:
        raise UsageError(f"{seeds} seeds measure nothing: give 1 or more")
    if images is not None and images < 1:
        raise UsageError(f"{images} images teach nothing: give 1 or more")
    if all and name is not None:
        raise UsageError(
            f"{option('all', True)} runs every claim: leave {name!r} out, or {option('all', True)}"
        )
    if budget is not None and not all:
        raise UsageError(
            f"{option('budget')} is for {option('all', True)}: one claim takes what it takes"
        )
    if name is None and not all:
        return ClaimList(claims=listing(folder))
    try:
        if name is None:
            left = _run_all(folder, data, seeds, images, _seconds(budget))
            return ClaimList(claims=listing(folder), left=left)
        chosen = find_claim(name)
        record = _run(chosen, folder, data, seeds, images)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, "the same command: what was measured is kept") from None
    return ClaimResult(
        claims=[_row(chosen, folder)], **record.by_field(), record=str(folder / name / RECORD)
    )


def listing(folder: Path) -> list[ClaimRow]:
    """A row a claim, with what its record in `folder` says, where there is one."""
    return [_row(claim, folder) for claim in CLAIMS.values()]


def _row(claim: Claim, folder: Path) -> ClaimRow:
    file = folder / claim.name / RECORD
    record = ClaimRecord.from_json(read_json(file), str(file)) if file.exists() else None
    return ClaimRow(
        name=claim.name,
        paper=claim.paper,
        source=claim.source,
        unit=claim.unit,
        printed=claim.printed,
        needs=claim.needs,
        command=claim.command,
        picture=claim.picture,
        published=claim.published,
        measured=None if record is None else record.measured,
        ci95=None if record is None else record.ci95,
        verdict="not measured" if record is None else record.verdict,
    )


def _run(
    claim: Claim,
    out: Path,
    data: str | Path | None,
    seeds: int | None,
    images: int | None,
    deadline: float = math.inf,
) -> ClaimRecord:
    folder = out / claim.name
    began = time.monotonic()
    study = Study(folder, data, seeds or claim.seeds, claim.printed, images, deadline)
    outcome = claim.measure(study)
    folder.mkdir(parents=True, exist_ok=True)
    record = ClaimRecord(
        claim=claim.name,
        paper=claim.paper,
        source=claim.source,
        unit=claim.unit,
        printed=claim.printed,
        measured=outcome.measured,
        ci95=outcome.ci95,
        verdict=outcome.verdict,
        finding=outcome.finding,
        seeds=study.seeds if claim.seeds > 1 else None,
        figures=outcome.figures,
        wall_s=round(time.monotonic() - began if study.seconds is None else study.seconds, 1),
        environment=_environment(),
    )
    if outcome.draw is not None:
        outcome.draw(folder)
    write_json(folder / RECORD, record)
    return record


def _environment() -> Environment:
    """As of any run, without the places where data and records lie here."""
    described = environment()
    command = list(described.command or ())
    for flag in {"--data", "--out"} & set(command):
        command[command.index(flag) + 1] = flag[2:].upper()
    return replace(described, command=command)


def _run_all(
    out: Path, data: str | Path | None, seeds: int | None, images: int | None, budget: float
) -> list[UnmeasuredClaim]:
    """Every claim without a record whose data is there, cheapest first, while they fit."""
    deadline = time.monotonic() + budget
    left: list[UnmeasuredClaim] = []
    for claim in sorted(CLAIMS.values(), key=lambda c: c.minutes):
        if (out / claim.name / RECORD).exists():
            continue
        place = Path(data).expanduser() / claim.data if data is not None and claim.data else None
        why = ""
        if place is not None and not place.exists():
            why = f"{place} is not there"
        elif 60 * claim.minutes > deadline - time.monotonic():
            why = f"takes about {duration(60 * claim.minutes)}, more than is left"
        else:
            say(f"{claim.name}: {claim.paper}")
            try:
                record = _run(claim, out, place, seeds, images, deadline)
                say(f"{claim.name}: {record.verdict}: {record.finding}")
            except OutOfTime:
                why = "stopped where the budget ended; the same command goes on"
            except (DataError, UsageError) as error:
                why = " ".join(str(error).split())
        if why:
            left.append(UnmeasuredClaim(name=claim.name, why=why))
    return left


def _seconds(budget: str | None) -> float:
    if budget is None:
        return math.inf
    match = _BUDGET.fullmatch(budget)
    if not match:
        raise UsageError(
            f"{option('budget', Placeholder(repr(budget)))}: write a number and s, m or h, as 30m"
        )
    return float(match[1]) * _SECONDS[match[2]]
