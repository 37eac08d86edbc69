"""alexnet doctor: whether a recipe will learn on its data, and what a run's figures say."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack, overload

import numpy as np
import torch
from torch import Tensor

from alexnet import figures, pages
from alexnet.commands.recipe_choice import choose_for_data, say_reasons
from alexnet.data.augment import augment
from alexnet.data.dataset import open_dataset, reopen_dataset
from alexnet.data.loader import read_batch, steps_per_epoch
from alexnet.data.splits import Split
from alexnet.data.statistics import Statistics
from alexnet.diagnosis.diagnose import diagnose
from alexnet.diagnosis.ranking import is_healthy, ranked
from alexnet.diagnosis.rules import CAUSES, DeadUnits, find_run_faults
from alexnet.diagnosis.run_figures import RunFigures
from alexnet.diagnosis.signal import cross_entropy, measure_signals
from alexnet.diagnosis.trial import taken_back
from alexnet.errors import DataError, Unreadable, UsageError
from alexnet.models.zoo import model_spec
from alexnet.predictor import load, read_statistics
from alexnet.recipe import Recipe, RecipeOverrides, check_overrides, find_recipe
from alexnet.records import (
    Diagnosis,
    DoctorEvent,
    Event,
    LayerSignals,
    RecipeDiagnosis,
    RunDiagnosis,
    TrainEvent,
    ValEvent,
    Verdict,
)
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runtime import chance_kept, pick_device
from alexnet.support.argument_checks import Range, checked
from alexnet.support.files import write_atomic
from alexnet.support.options import option
from alexnet.support.terminal import say, shows_top5, why_no_top5
from alexnet.training.network import build_net, preprocessing, take_weights
from alexnet.training.optim import build_optimizer, set_rate

MEMORY = 256 << 20  # bytes of images that are examined
SAMPLE = 500  # images that mean and deviation are taken from, where no packed set brings them


@overload
def doctor(
    target: Recipe | None = None,
    *,
    data: str | Path | None = None,
    seconds: float = 60.0,
    out: str | Path | None = None,
    **overrides: Unpack[RecipeOverrides],
) -> RecipeDiagnosis: ...


@overload
def doctor(
    target: str | Path,
    *,
    data: str | Path | None = None,
    seconds: float = 60.0,
    out: str | Path | None = None,
    **overrides: Unpack[RecipeOverrides],
) -> RecipeDiagnosis | RunDiagnosis: ...


@checked(seconds=Range(0, 10**9))
@chance_kept()
def doctor(
    target: str | Path | Recipe | None = None,
    *,
    data: str | Path | None = None,
    seconds: float = 60.0,
    out: str | Path | None = None,
    **overrides: Unpack[RecipeOverrides],
) -> RecipeDiagnosis | RunDiagnosis:
    """Says whether a recipe will learn on its data, or what went wrong in a run.

    `target` is a recipe or a run directory; `overrides` replace fields of the recipe; `out` is an
    HTML page to write. Returns a RecipeDiagnosis or a RunDiagnosis: whether it is healthy (true,
    false, or None where it could not be told, and `unmeasured` says why), the verdicts, worst
    first, and what each layer does; of a recipe also all that was measured.
    """
    overrides = check_overrides(overrides, "doctor", ("target", "data", "seconds", "out"))
    page = Path(out) if out is not None else None
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{option('out', out)}: the report is a page; give it a name that ends in .html"
        )
    if isinstance(target, str | Path) and (Path(target) / "recipe.json").is_file():
        if overrides or data is not None:
            raise UsageError("a run has its recipe and data already: give no others")
        return _of_run(RunDir.open(Path(target)), page)
    choice = None
    if target is None and data is not None:
        choice = choose_for_data(data, fields=overrides)
        target = choice.recipe
    chosen = target if isinstance(target, Recipe) else find_recipe(str(target or "digits"))
    recipe = chosen.adapted(overrides)
    dataset = open_dataset(recipe, data)
    if choice is not None:
        say_reasons(choice, dataset)
    train, val = dataset.split("train"), dataset.split("val")  # not decoded whole, as to train
    statistics = dataset.measure(train, SAMPLE)
    examined = diagnose_recipe(recipe, len(dataset.classes), train, val, statistics, seconds)
    diagnosis = RecipeDiagnosis(recipe=recipe.name, **examined.by_field())
    if page is not None:
        _write_page(diagnosis, [], page, len(dataset.classes))
    return diagnosis


def diagnose_recipe(
    recipe: Recipe,
    classes: int,
    train: Split,
    val: Split,
    statistics: Statistics,
    seconds: float,
    steps: int = 24,
    weights: Mapping[str, Tensor] | None = None,
) -> Diagnosis:
    """A recipe's own batches, network and optimiser through `diagnose`, in float32.

    Without `steps` nothing is trained, and fewer images are examined.
    """
    model_spec(recipe.model, classes, (recipe.channels, recipe.crop, recipe.crop))
    device = pick_device()
    net = build_net(recipe, classes).to(device)
    if weights is not None:
        take_weights(net, weights, option("init"))
    optimizer = build_optimizer(net, recipe)
    set_rate(optimizer, recipe.peak_lr, 0)
    count = max(min(2000 if steps else 400, MEMORY // (4 * recipe.channels * recipe.crop**2)), 64)
    return diagnose(
        net,
        _training(recipe, train, statistics),
        optimizer,
        val_loader=_validation(recipe, val, statistics),
        classes=classes,
        steps=steps,
        seconds=seconds,
        images=count,
        warmup=recipe.schedule == "onecycle" or recipe.warmup_epochs > 0,
    )


def _training(
    recipe: Recipe, train: Split, statistics: Statistics
) -> Iterator[tuple[Tensor, Tensor]]:
    preprocess = preprocessing(recipe, statistics)
    for step in range(steps_per_epoch(len(train), recipe.batch_size)):
        batch = read_batch(train, recipe, step)
        yield augment(batch.images, batch.ids, 0, recipe, preprocess), batch.labels


def _validation(
    recipe: Recipe, val: Split, statistics: Statistics
) -> Iterator[tuple[Tensor, Tensor]]:
    preprocess = preprocessing(recipe, statistics)
    order = torch.randperm(len(val), generator=torch.Generator().manual_seed(0)).numpy()
    for start in range(0, len(order), 64):
        ids = order[start : start + 64]
        pixels, unread = val.try_read(ids)
        if unread and recipe.bad_images == "stop":
            raise Unreadable(val.name, unread)
        good = ~np.isin(ids, list(unread))
        ids, images = ids[good], torch.from_numpy(pixels[good])
        yield preprocess.views(images, 1)[0], torch.from_numpy(val.labels[ids])


def _of_run(run: RunDir, out: Path | None) -> RunDiagnosis:
    """Diagnoses a run by its figures, and by its last weights if its data is still there."""
    recipe, data = read_recipe(run)
    events = run.events()
    shares = [1 / len(data.classes)] * len(data.classes)
    layers: list[LayerSignals] = []
    verdicts: list[Verdict] = []
    checkpoint = None
    try:
        dataset = reopen_dataset(recipe, data)
        counts = np.bincount(dataset.split("train").labels, minlength=len(shares))
        shares = (counts / counts.sum()).tolist()
        x, y = next(_validation(recipe, dataset.split("val"), read_statistics(run, data)))
    except (DataError, UsageError, OSError) as error:
        say(f"without a look at the weights: {' '.join(str(error).split())}")
    else:
        predictor = load(run.path, "last")
        device = next(predictor.model.parameters()).device
        with taken_back(predictor.model, None):
            signals = measure_signals(predictor.model, x.to(device), y.to(device), cross_entropy)
        layers = signals.described()
        verdicts += DeadUnits().check_signals(signals, "at the last checkpoint")
        checkpoint = str(predictor.checkpoint)
    verdicts += find_run_faults(events, shares)
    verdicts = ranked([*verdicts, *_stopped_on(events, shares, {v.name for v in verdicts})])
    unmeasured = ""
    if not any(isinstance(e, TrainEvent | ValEvent) for e in events):
        unmeasured = "it ended before its first line of figures, so there is nothing to judge"
    diagnosis = RunDiagnosis(
        run=str(run.path),
        recipe=recipe.name,
        checkpoint=checkpoint,
        layers=layers,
        healthy=is_healthy(verdicts, unmeasured),
        unmeasured=unmeasured,
        verdicts=verdicts,
        figures=None if out is None else [str(out)],
    )
    if out is not None:
        _write_page(diagnosis, events, out, len(shares))
    return diagnosis


def _stopped_on(
    events: Sequence[Event], shares: Sequence[float], named: Collection[str]
) -> Iterator[Verdict]:
    """Verdicts that stopped the run and that its figures do not show; none if it went on and
    learnt."""
    if RunFigures(events, shares).learning() == "learnt":
        return
    for e in events:
        if not isinstance(e, DoctorEvent) or e.severity != "will not learn":
            continue
        if e.name in CAUSES and e.name not in named:
            yield Verdict(
                e.name, "will not learn", e.evidence, e.cause or "", e.advice, where=e.where
            )


def _write_page(
    diagnosis: RecipeDiagnosis | RunDiagnosis, events: Sequence[Event], out: Path, classes: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="alexnet-doctor-") as folder:
        pictures = []
        if events:
            pictures.append(("What happened", Path(folder) / "curves.png"))
            figures.draw_curves(
                {diagnosis.recipe: events},
                pictures[-1][1],
                "Learning curves",
                "" if shows_top5(classes) else why_no_top5(classes),
            )
        looks = Path(folder) / "looks.png"
        if figures.draw_looks(events, looks, diagnosis.recipe):
            pictures.append(("What the guard saw", looks))
        if diagnosis.layers:
            pictures.append(("What each layer does", Path(folder) / "layers.png"))
            title = f"{diagnosis.recipe}, layer by layer"
            figures.draw_layers(diagnosis.layers, pictures[-1][1], title)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, pages.doctor_page(diagnosis, pictures))
