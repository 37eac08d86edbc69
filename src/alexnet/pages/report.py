"""One page on one or more runs: what was trained, how well it does, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet.pages.render import (
    Picture,
    Table,
    build_table,
    embed_picture,
    render,
    show_verdict,
)
from alexnet.support.terminal import duration, percent, shows_top5

if TYPE_CHECKING:
    from alexnet.records import DataCard, RecordedEnvironment, TestEvent, ValEvent, Verdict

LIMIT = 4_900_000
"""Bytes of a page; pictures that would make it larger are left out, by name."""


@dataclass(frozen=True)
class RunPart:
    """One run on the page. `best` is its best validation, `tests` its test events, `pictures`
    (title, PNG, what it says in words), `again` the commands that make it anew and `conditions`
    sentences on what they give; `note` says what is not there and why."""

    name: str
    recipe: Mapping[str, Any]
    digest: str
    network: str
    environment: RecordedEnvironment
    data: DataCard
    best: ValEvent | None
    tests: Sequence[TestEvent]
    verdicts: Sequence[Verdict]
    pictures: Sequence[tuple[str, Path, str]]
    again: Sequence[str]
    conditions: Sequence[str]
    seconds: float | None
    note: str = ""


def report_page(
    runs: Sequence[RunPart],
    differences: Mapping[str, Sequence[Any]],
    curves: tuple[Path, str],
    written: str,
    limit: int = LIMIT,
) -> tuple[str, list[str]]:
    """The page, and the titles of the pictures that did not fit into so many bytes."""
    left_out: list[str] = []
    size = 60_000  # the text, generously

    def embed(path: Path, says: str, title: str) -> Picture:
        nonlocal size
        picture = embed_picture(path, says)
        taken = len(picture.source) + 2 * len(says) + 100  # of the page, with its element
        if size + taken > limit:
            left_out.append(title)
            return Picture(path.name, says)
        size += taken
        return picture

    differing = None
    if differences:
        heads = ("field", *(run.name for run in runs))
        rows = [(key, *map(_value, values)) for key, values in differences.items()]
        differing = build_table(heads, rows, "recipe fields that differ")
    validations, tests = _results(runs)
    page = render(
        "report.html",
        title=", ".join(run.name for run in runs),
        validations=validations,
        tests=tests,
        differences=differing,
        curves=embed(*curves, "learning curves"),
        runs=[
            {
                "name": run.name,
                "note": run.note,
                "pictures": [
                    (name, embed(path, says, f"{run.name}: {name}"))
                    for name, path, says in run.pictures
                ],
                "verdicts": [show_verdict(v) for v in run.verdicts],
                "recipe": _recipe(run),
                "environment": _environment(run),
                "again": "\n".join(run.again),
                "conditions": run.conditions,
            }
            for run in runs
        ],
        written=written,
    )
    return page, left_out


def _results(runs: Sequence[RunPart]) -> tuple[Table, Table | None]:
    """The table of validations, and that of tests where there were any."""
    rows, test_rows = [], []
    top5 = any(shows_top5(len(run.data.classes)) for run in runs)
    for run in runs:
        best = run.best
        rows.append(
            (
                run.name,
                str(run.recipe["name"]),
                run.network,
                _interval(best.top1, best.top1_ci95) if best else "",
                *([_top5(best, run) if best else ""] if top5 else ()),
                str(run.recipe["precision"]) if best else "",
                f"{best.loss:.4f}" if best else "",
                f"{best.n:,}" if best else "",
                f"{best.epoch:.4g}" if best else "",
                "" if run.seconds is None else duration(run.seconds),
            )
        )
        own = run.data.where
        test_rows += [_test_row(run, test, own, top5) for test in run.tests]
    heads = (
        "run", "recipe", "network", "top-1", *(("top-5",) if top5 else ()), "computed in", "loss",
        "images", "epoch", "trained",
    )  # fmt: skip
    validations = build_table(heads, rows, "the best validation")
    if not test_rows:
        return validations, None
    asked = (
        "run", "checkpoint", "data", "split", "views", "engine", "computed in", "images", "loss",
        "top-1 (95 % interval)", "of ties",
        *(("top-5 (95 % interval)", "of ties") if top5 else ()),
    )  # fmt: skip
    return validations, build_table(
        asked, test_rows, "every image of a split; of ties: all as misses, all as hits"
    )


def _top5(event: ValEvent | TestEvent, run: RunPart) -> str:
    shown = shows_top5(len(run.data.classes))
    return _interval(event.top5, event.top5_ci95) if shown else ""


def _test_row(run: RunPart, test: TestEvent, own: str | None, top5: bool) -> tuple[str, ...]:
    def ties(low: float | None, high: float | None) -> str:
        return "" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"

    fifth = _top5(test, run)
    return (
        run.name, Path(test.checkpoint).name,
        "its own" if test.data == own else Path(test.data or "").name,
        test.split, str(test.views), test.engine, test.precision or "not noted",
        f"{test.n:,}{_left_out(test)}", f"{test.loss:.4f}", _interval(test.top1, test.top1_ci95),
        ties(test.top1_pessimistic, test.top1_optimistic),
        *((fifth, ties(test.top5_pessimistic, test.top5_optimistic) if fifth else "")
          if top5 else ()),
    )  # fmt: skip


def _left_out(test: TestEvent) -> str:
    """The images that a figure leaves out, or counts and should not."""
    words = []
    if test.seen:
        words.append(f"{test.seen:,} it learnt from {'counted' if test.with_seen else 'left out'}")
    if test.near_seen:
        words.append(
            f"at least {test.near_seen:,} look like copies of what it learnt from, counted"
        )
    if test.repeated:
        words.append(f"{test.repeated:,} repeat another, counted")
    if unknown := sum((test.ignored or {}).values()):
        words.append(f"{unknown:,} of unknown classes left out")
    if unreadable := len(test.unreadable or ()):
        words.append(f"{unreadable:,} cannot be read")
    return f" ({'; '.join(words)})" if words else ""


def _interval(share: float | None, ci95: tuple[float, float] | None) -> str:
    if share is None or ci95 is None:
        return ""
    low, high = ci95
    return f"{percent(share)} ({100 * low:.2f} to {100 * high:.2f})"


def _recipe(run: RunPart) -> Table:
    rows = [(key, _value(value)) for key, value in run.recipe.items() if key != "about"]
    return build_table(("field", "value"), [*rows, ("digest", run.digest)], f"recipe of {run.name}")


def _environment(run: RunPart) -> Table:
    facts = run.environment.without("command", "packages")
    rows = [(key, _value(value)) for key, value in facts.items()]
    rows += [(name, str(version)) for name, version in run.environment.packages.items()]
    counts = run.data.counts or {}
    rows += [("data", str(run.data.where)),
             ("data digest", run.data.digest),
             *((f"left out of {one.split}", f"{one.path}: {one.reason}")
               for one in run.data.left_out or ()),
             ("splits", str(run.data.splits)),
             *((f"{split} images", f"{n:,}") for split, n in counts.items()),
             ("classes", f"{len(run.data.classes):,}")]  # fmt: skip
    return build_table(("what", "value"), rows, f"environment and data of {run.name}")


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    return str(value)
