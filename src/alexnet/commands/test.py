"""alexnet test: every image of a split through a run's network."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from alexnet import figures
from alexnet.analysis.answers import Mistakes, count_answers
from alexnet.data.splits import Split, Unread
from alexnet.errors import CheckpointError, Unreadable, UsageError
from alexnet.evaluation_set import EvaluationSet, open_evaluation_set
from alexnet.interchange.certificate import certify_run
from alexnet.interchange.proof import prove
from alexnet.interchange.runtimes import EngineName, with_engine
from alexnet.metrics import Tally
from alexnet.predictor import Predictor, load
from alexnet.recipe import Precision
from alexnet.records import ClassCount, ProofResult, TestEvent, TestResult, UnreadFile
from alexnet.runs.checkpoint import find_checkpoint
from alexnet.runs.rundir import RunDir
from alexnet.runtime import chance_kept
from alexnet.support.argument_checks import checked
from alexnet.support.files import sha256_of
from alexnet.support.options import option
from alexnet.support.terminal import say
from alexnet.training.parallel import Team, check_same_data, join

SHOWN = 24  # mistakes in the picture


@overload
def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    views: int = 1,
    checkpoint: str = "best",
    certificate: Literal[False] = False,
    engine: EngineName = "torch",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: Precision = "auto",
) -> TestResult: ...


@overload
def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    views: int = 1,
    checkpoint: str = "best",
    certificate: Literal[True],
    engine: EngineName = "torch",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: Precision = "auto",
) -> ProofResult: ...


@overload
def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    views: int = 1,
    checkpoint: str = "best",
    certificate: bool,
    engine: EngineName = "torch",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: Precision = "auto",
) -> TestResult | ProofResult: ...


@checked()
@chance_kept()
def test(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    views: int = 1,
    checkpoint: str = "best",
    certificate: bool = False,
    engine: EngineName = "torch",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: Precision = "auto",
) -> TestResult | ProofResult:
    """Every image of a split through a run's network, never a sample.

    `split` of the run's own data is train, val or test (default test). `data` that is not the run's
    own is never cut: its class folders are read whole, and where it has parts `split` is one of
    them or all (default test, else val, else all). Classes are joined by name; one that the network
    does not know is refused, or with `ignore_unknown` left out. Images that the run was trained or
    validated on are counted (`seen`) and left out of the figures, unless `with_seen`.
    Returns a TestResult: loss, top-1 and top-5 with 95 % intervals and under three tie rules, right
    and total per class, and the pictures made: the confusion matrix and the surest mistakes. With
    `certificate` a run or an exported file is held against its certificate instead, see `prove`.
    `engine` is what computes: torch, int8, onnx or openvino; `precision` is auto, fp32 or bf16, and
    in the result what it was. Processes that torchrun starts share the images, and each returns
    what one process would find; the first one writes.
    """
    with join(remedy="run it again") as team:
        if certificate:
            other = {
                "split": split is not None,
                "views": views != 1,
                "engine": engine != "torch",
                "precision": precision != "auto",
                "checkpoint": checkpoint != "best",
                "ignore_unknown": ignore_unknown,
                "with_seen": with_seen,
            }
            if given := [name for name, differs in other.items() if differs]:
                raise UsageError(
                    f"{option('certificate', True)} proves what was claimed as it was: leave "
                    f"{option(given[0])} out"
                )
            with team.all_or_none():
                if team.size > 1:
                    raise UsageError(
                        f"{option('certificate', True)} is proved by one process: leave torchrun "
                        "out"
                    )
                proved = prove(run, data=data)
            return proved
        asked = {"split": split, "ignore_unknown": ignore_unknown, "with_seen": with_seen}
        return _test(Path(run), data, asked, views, checkpoint, engine, precision, team)


def _test(
    run: Path,
    data: str | Path | None,
    asked: dict[str, Any],
    views: int,
    checkpoint: str,
    engine: EngineName,
    precision: str,
    team: Team,
) -> TestResult:
    def opened(name: str) -> Predictor:
        predictor = load(run, name)
        predictor.preprocess.check_views(views)  # before int8 is measured
        return with_engine(predictor, engine, data, precision)

    first = {"name": checkpoint}
    if team.size > 1:  # a training beside it may save a better one meanwhile
        with team.all_or_none():
            if team.leads:
                chosen = find_checkpoint(RunDir.open(run).checkpoints, checkpoint)
                first = {"name": chosen.name, "sha256": sha256_of(chosen / "manifest.json")}
        first = team.broadcast(first)
    if engine == "int8" and team.size > 1:  # one measures, all read what it kept
        with team.all_or_none():
            if team.leads:
                opened(first["name"])
    with team.all_or_none():
        predictor = opened(first["name"])
        if team.size > 1 and sha256_of(predictor.checkpoint / "manifest.json") != first["sha256"]:
            raise CheckpointError(
                f"{predictor.checkpoint} is not what the first process reads: give all of them one "
                "folder, or test again if a training writes there"
            )
    tested = open_evaluation_set(
        predictor.recipe, predictor.data, data, run=predictor.run, team=team, **asked
    )
    dataset, part = tested.dataset, tested.images
    if team.leads:
        for note in tested.notes():
            say(note)
    if team.size > 1:
        with team.all_or_none():
            digest = dataset.digest_of(part)
        first_digest = team.broadcast(digest)
        with team.all_or_none():
            check_same_data(dataset.image_set.path, digest, first_digest)
    mistakes, unread = Mistakes(SHOWN), Unread()

    def keep(at: int, p: NDArray[np.float32]) -> None:
        mistakes.add(at, p, part.labels[at : at + len(p)])

    began = time.monotonic()
    tally = count_answers(
        predictor.inference, part, predictor.preprocess, predictor.recipe, len(dataset.classes),
        views, keep, team, unread,
    )  # fmt: skip
    mistakes.merge(team)
    shares = team.share({"unread": [[i, *image] for i, image in unread.items()]})
    unread = {i: (path, why) for one in shares for i, path, why in one["unread"]}
    unread = dict(sorted(unread.items()))
    if unread and not tally.n:
        raise Unreadable(part.name, unread, "none of the split can be read: see why")

    with team.all_or_none():
        if team.leads:
            tested.report_unreadable(unread)
    unreadable = team.broadcast([image.to_json() for image in tested.unreadable])
    wall = time.monotonic() - began
    classes = zip(dataset.classes, tally.per_class(), strict=True)
    result = TestResult(
        **tally.figures().by_field(),
        **tested.figures().by_field(),
        views=views,
        engine=engine,
        precision=predictor.precision,
        processes=team.ranks,
        images_per_s=round(tally.n / wall, 1),
        wall_s=round(wall, 2),
        run=str(run),
        checkpoint=str(predictor.checkpoint),
        data=tested.path,
        unreadable=[UnreadFile(**image) for image in unreadable],
        per_class=[ClassCount(class_name=c, right=right, n=n) for c, (right, n) in classes],
    )
    with team.all_or_none():
        if team.leads:
            result = _keep(predictor, tested, tally, mistakes, result, checkpoint)
    return team.agree(TestResult, result if team.leads else None)


def _keep(
    predictor: Predictor,
    tested: EvaluationSet,
    tally: Tally,
    mistakes: Mistakes,
    result: TestResult,
    checkpoint: str,
) -> TestResult:
    """The result with its pictures, written into the run."""
    if warning := tally.tie_warning():
        say(f"warning: {warning}")
    part, own = tested.images, result.data == predictor.trained_on
    views, engine = result.views, result.engine
    chosen = engine in ("torch", "openvino") and predictor.precision != predictor.default_precision
    of = {
        f"{views}-views": views > 1,
        engine: engine != "torch",
        **({predictor.precision: True} if chosen else {}),
        predictor.checkpoint.name: checkpoint != "best",
        "other-data": not own,
        "with-seen": result.with_seen,
    }
    suffix = "-".join([part.name, *(name for name, differs in of.items() if differs)])
    drawn: list[Path] = []
    try:
        drawn = _draw_test(predictor, part, tally, mistakes, suffix)
    except CheckpointError as error:  # the figures are worth more than their pictures
        say(f"warning: no pictures: {error}")
    result = replace(result, figures=[str(path) for path in drawn])
    try:
        predictor.run.log(TestEvent(**result.by_field()))
        if checkpoint == "best" and engine == "torch" and own and not result.with_seen:
            certify_run(predictor)
    except CheckpointError as error:
        say(f"warning: not logged: {error}")
    predictor.run.close()
    return result


def _draw_test(
    predictor: Predictor, part: Split, tally: Tally, mistakes: Mistakes, suffix: str
) -> list[Path]:
    run, classes, wrong = predictor.run, predictor.classes, mistakes.ids
    paths = [run.figures / f"confusion-{suffix}.png", run.figures / f"mistakes-{suffix}.png"]
    confusion = np.asarray(tally.confusion)
    name = f"{run.path.name}, {suffix}"
    figures.draw_confusion(confusion, classes, paths[0], name)
    title = f"{name}: the surest of {mistakes.count:,} mistakes"
    if not mistakes.count:
        figures.draw_message(f"no mistakes in {tally.n:,} images", paths[1], title)
        return paths
    figures.draw_mistakes(
        part.read(wrong),
        part.labels[wrong],
        mistakes.predicted,
        mistakes.confidence,
        classes,
        paths[1],
        title,
    )
    return paths
