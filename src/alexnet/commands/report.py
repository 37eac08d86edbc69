"""alexnet report: one page on one or more runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet import figures
from alexnet.commands.doctor import doctor
from alexnet.commands.inspect import (
    describe_calibration,
    report_calibration,
    report_confusion,
    report_mistakes,
    show_curves,
    show_filters,
    show_neighbors,
)
from alexnet.commands.inspected_run import InspectedRun
from alexnet.commands.reproduction import reproduce
from alexnet.data.bad_images import left_out_of
from alexnet.data.dataset import find_data
from alexnet.data.forms import open_image_set
from alexnet.diagnosis.ranking import as_severity
from alexnet.diagnosis.rules import find_run_faults
from alexnet.errors import DataError, UsageError
from alexnet.pages import RunPart, report_page
from alexnet.recipe import Recipe
from alexnet.records import (
    AgreementResult,
    DivergedEvent,
    DoctorEvent,
    Event,
    ReportResult,
    TestEvent,
    TrainEvent,
    ValEvent,
    Verdict,
)
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.support.argument_checks import checked
from alexnet.support.files import write_atomic
from alexnet.support.options import call, option
from alexnet.support.terminal import percent, say, shows_top5

Pictures = list[tuple[str, Path, str]]


@checked()
def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    brief: bool = False,
) -> ReportResult:
    """Writes one HTML page on one or more runs, which loads nothing and is under 5 MB.

    Confusion, calibration, mistakes and neighbours are of the test split where the run was tested,
    else of validation: test is read by `test` first. `brief` reads no image, and takes the
    doctor's verdicts from the log. Without `out` the page is report.html in the run, or
    report-of-N.html in the first of N runs.
    Returns a ReportResult: the page, its size, the pictures, and those that did not fit.
    """
    assert not isinstance(runs, str | Path)  # `checked` makes a list of one
    paths = list(runs)
    if not paths:
        raise UsageError("a report on nothing: name one run or more")
    opened = [InspectedRun(path, data, _checkpoint(path)) for path in paths]
    if data is not None:  # pictures are drawn without images that cannot be opened
        open_image_set(find_data(read_recipe(opened[0].folder)[0], data), aloud=False)
    where = (
        Path(out).expanduser()
        if out
        else opened[0].folder.path
        / ("report.html" if len(opened) == 1 else f"report-of-{len(opened)}.html")
    )
    if where.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{option('out', out)}: the report is a page; give it a name that ends in .html"
        )
    if not where.absolute().parent.is_dir():
        raise UsageError(f"{option('out', out)}: {where.parent} is no folder: make it first")
    show_curves(opened[0], [str(path) for path in paths[1:]])
    curves = opened[0].drawn[-1]
    parts = [_part(run, brief) for run in opened]
    recipes = [read_recipe(run.folder)[0] for run in opened]
    top5 = any(shows_top5(len(part.data.classes)) for part in parts)
    drawn_of = "Loss, top-1, top-5," if top5 else "Loss, top-1,"
    says = f"{drawn_of} learning rate and images per second over epochs. " + "; ".join(
        f"{part.name}: best validation top-1 {percent(part.best.top1)}"
        for part in parts
        if part.best and part.best.top1 is not None
    )
    written = f"Written by alexnet {parts[0].environment.packages.get('alexnet', '')}"
    page, left_out = report_page(
        parts, recipe_differences(recipes), (curves, says), written.strip()
    )
    write_atomic(where, page)
    drawn = [str(path) for run in opened for path in run.drawn]
    return ReportResult(
        out=str(where),
        bytes=where.stat().st_size,
        figures=drawn,
        left_out=left_out,
        runs=[str(path) for path in paths],
    )


def _checkpoint(run: str | Path) -> str:
    """The best, or the last of a run that was stopped before its first validation."""
    folder = RunDir.open(Path(run))
    validated = any(isinstance(event, ValEvent) for event in folder.events())
    return "best" if validated or not folder.checkpoints.is_dir() else "last"


def _part(run: InspectedRun, brief: bool) -> RunPart:
    folder = run.folder
    recipe, described = read_recipe(folder)
    events = folder.events()
    validations = [e for e in events if isinstance(e, ValEvent) and e.top1 is not None]
    best = max(validations, key=lambda e: (e.top1 or 0.0, -e.loss), default=None)
    asked = ("split", "views", "engine", "precision", "checkpoint", "data", "with_seen")
    tested = (e for e in events if isinstance(e, TestEvent))
    noted = [replace(e, precision=e.precision_of(recipe.precision)) for e in tested]
    tests = {tuple(getattr(e, name) for name in asked): e for e in noted}
    pictures: Pictures = []
    looks = folder.figures / "looks.png"
    if figures.draw_looks(events, looks, f"{run.name}: what the guard saw"):
        pictures.append(("What the guard saw", looks, "dead units and size of updates by epoch"))
    note = ""
    verdicts = _verdicts(events)
    _filters(run, pictures)
    if not brief:
        split = "test" if any(key[0] == "test" for key in tests) else "val"
        try:
            before = list(pictures)
            run.retry_without_unreadable(lambda: _of_images(run, split, pictures, before))
        except (DataError, UsageError, OSError) as error:
            why = " ".join(str(error).split())
            note = f"Without confusion, calibration, mistakes and neighbours: {why}"
            say(f"{run.name}: {note}")
        verdicts = list(doctor(folder.path).verdicts)
    else:
        note = (f"Written when training ended; `{call('report', run.path)}` adds "
                "confusion, calibration, mistakes and neighbours.")  # fmt: skip
    walls = [e.wall_s for e in events if isinstance(e, TrainEvent) and e.wall_s is not None]
    again, conditions = reproduce(folder)
    return RunPart(
        name=run.name,
        recipe=recipe.to_dict(),
        digest=recipe.digest,
        network=recipe.model,
        environment=folder.environment(),
        data=replace(described, left_out=left_out_of(folder.path, described)),
        best=best,
        tests=list(tests.values()),
        verdicts=verdicts,
        pictures=pictures,
        again=again,
        conditions=conditions,
        seconds=walls[-1] if walls else None,
        note=note,
    )


def _verdicts(events: Sequence[Event]) -> list[Verdict]:
    """The verdicts of the log: those of the guard, and those on a loss or weights that are not
    finite."""
    verdicts = [
        Verdict(
            e.name, as_severity(e.severity) or "note", e.evidence, e.cause or "", e.advice,
            source=e.source or "", where=e.where,
        )
        for e in events
        if isinstance(e, DoctorEvent)
    ]  # fmt: skip
    names = {v.name for v in verdicts}
    ended = find_run_faults([e for e in events if isinstance(e, DivergedEvent)], (1.0,))
    return [v for v in ended if v.name not in names] + verdicts


def _filters(run: InspectedRun, pictures: Pictures) -> None:
    filters = show_filters(run)
    says = f"{filters.kernels} kernels of {filters.size} x {filters.size} pixels"
    if filters.towers:
        shares = ", ".join(percent(t.colour, 0) for t in filters.towers)
        says += f"; share of their energy that is colour, by tower: {shares}"
    pictures.append(("First filters", run.drawn[-1], says))


def _of_images(run: InspectedRun, split: str, pictures: Pictures, before: Pictures) -> None:
    pictures[:] = before
    if run.data is not None and not run.open().own:
        raise DataError(
            f"{run.data} holds other images than {run.path} was trained on, and a report is of "
            f"its own: `{call('test')}` and `inspect` take others"
        )
    answers = run.predict(split)
    top1 = report_confusion(run, answers).top1
    says = (
        f"confusion matrix of {split}, answers in {run.predictor.precision}: {percent(top1)} of "
        f"{answers.tally.n:,} images are right"
    )
    pictures.append((f"Confusion, {split}", run.drawn[-1], says))
    calibration = report_calibration(run, answers)
    says = f"reliability diagram of {split}: {'; '.join(describe_calibration(calibration))}"
    pictures.append((f"Calibration, {split}", run.drawn[-1], says))
    first = len(run.drawn)
    mistakes = report_mistakes(run, answers, run.open(split).names)
    titles = ("The surest mistakes", "The most confused pairs", "Labels that deserve a look")
    pairs = ", ".join(f"{p.class_name} taken for {p.said} {p.n} times" for p in mistakes.pairs)
    words = (
        f"the surest of {mistakes.wrong} mistakes"
        + (f"; labels: not looked for: {why}" if (why := mistakes.labels_not_looked_for) else ""),
        f"the most confused pairs: {pairs}",
        f"the first of {mistakes.doubtful} labels that the network contradicts; it may be wrong",
    )
    by_end = {"pairs": 1, "labels": 2}
    for path in run.drawn[first:]:
        i = by_end.get(path.stem.rpartition("-")[2], 0)
        pictures.append((titles[i], path, words[i]))
    near = show_neighbors(run, split=split, count=5)
    assert isinstance(near, AgreementResult)  # of a split, not of single images
    shares = ", ".join(
        f"in {way} {percent(a.share, 0)} of the six nearest have its class"
        for way, a in near.agreement.items()
    )
    pictures.append(("Nearest training images", run.drawn[-1], f"of {near.n} images {shares}"))


def recipe_differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The fields in which recipes differ, with each one's value."""
    told = [recipe.to_dict() for recipe in recipes]
    return {
        key: [one[key] for one in told]
        for key in told[0]
        if any(one[key] != told[0][key] for one in told) and key != "about"
    }
