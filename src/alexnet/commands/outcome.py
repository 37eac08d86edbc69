"""What came out of a run: predictions, mistakes, confidence, curves, and what it was shown."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet import figures
from alexnet.analysis.answers import Answers
from alexnet.analysis.confidence import (
    confused_pairs,
    doubtful_labels,
    measure_calibration,
    surest_mistakes,
    too_weak_for_labels,
)
from alexnet.commands.view import View
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.recipe import Recipe
from alexnet.runs.records import (
    CalibrationBin,
    CalibrationResult,
    ClassCount,
    ConfusedPair,
    ConfusionResult,
    CurvesResult,
    DataResult,
    Mistake,
    MistakesResult,
    NamedProbability,
    PredictionsResult,
    ShownPrediction,
)
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.terminal import percent, shorten, shows_top5, why_no_top5

PAIRS = 12
UNCHANGED: dict[str, Any] = {
    "shift": 0, "flip": False, "rotate": 0.0, "scale": 0.0, "cutout": 0, "area": 1.0,
    "colour": 0.0, "mixup": 0.0, "cutmix": 0.0, "crop_chunk": 1,
}  # fmt: skip
"""Recipe fields with which training shows images as they are, but for where they are cut."""


def predictions(
    view: View,
    images: Sequence[str] = (),
    *,
    split: str | None = None,
    count: int = 8,
    top: int = 5,
) -> PredictionsResult:
    """Images, or some of a split, above the likeliest classes as bars."""
    p = view.predictor
    top = min(top, len(p.classes))
    true: list[str | None]
    if images:
        stored = view.decode(images)
        true, names = [None] * len(stored), [str(path) for path in images]
    else:
        opened = view.open(split)
        of, split = opened.images, opened.split
        picked = view.some(of, count)
        stored = of.read(picked)
        true = [p.classes[i] for i in of.labels[picked]]
        names = [opened.names[i] for i in picked]
    probabilities = p.predict(list(stored))
    shown, result = [], []
    for image, label, name, row in zip(stored, true, names, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        ranked = [(p.classes[i], float(row[i])) for i in best]
        shown.append(figures.Prediction(view.crop(image), label, ranked))
        said = [NamedProbability(class_name=c, probability=x) for c, x in ranked]
        result.append(ShownPrediction(image=name, class_name=label, top=said))
    out = view.figure("predictions" if images else f"predictions-{split}")
    figures.draw_predictions(shown, out, f"{view.name}: {'images' if images else split}")
    return PredictionsResult(n=len(stored), predictions=result, **view.source())


def mistakes(view: View, *, split: str | None = None, count: int = 24) -> MistakesResult:
    """The surest mistakes, the most confused pairs, and the labels that deserve a look, where the
    network is good enough to say which."""
    return report_mistakes(view, view.ask(split), view.open(split).names, count)


def report_mistakes(
    view: View, answers: Answers, names: Sequence[str], count: int = 24
) -> MistakesResult:
    """The same of answers that are there already."""
    of, classes, p = answers.split, view.predictor.classes, answers.probabilities
    wrong = surest_mistakes(p, of.labels)
    unasked = too_weak_for_labels(len(of) - len(wrong), len(of))
    if view.learnt_from(of):
        unasked = "the network was trained on these images, and has learned their labels"
    doubtful = np.zeros(0, np.intp) if unasked else doubtful_labels(p, of.labels)
    pairs = confused_pairs(answers.confusion, PAIRS)
    said = answers.said
    about = f"{view.name}, {of.name}"

    def draw(ids: NDArray[np.intp], out: Path, title: str, note: str, empty: str) -> None:
        if not len(ids):
            figures.draw_nothing(empty, out, title)
            return
        captions = [
            figures.pair_caption(classes[of.labels[i]], classes[said[i]], float(p[i].max()))
            for i in ids
        ]
        figures.draw_captioned(view.crop(of.read(ids)), captions, out, title, note)

    empty = f"no mistakes in {len(of):,} images"
    draw(
        wrong[:count], view.figure(f"mistakes-{of.name}"),
        f"{about}: the surest of {len(wrong):,} mistakes",
        "true class → predicted class (its probability)", empty,
    )  # fmt: skip
    if pairs:
        short = [shorten(name, 21) for name in classes]  # two of them beside a bar
        bars = [(f"{short[a]} → {short[b]}", float(n), None) for a, b, n in pairs]
        out = view.figure(f"mistakes-{of.name}", more="pairs")
        figures.draw_bars(bars, out, f"{about}: the most confused pairs", "images, true → said")
    if len(doubtful):
        draw(
            doubtful[:count], view.figure(f"mistakes-{of.name}", more="labels"),
            f"{about}: the first of {len(doubtful):,} labels that deserve a look",
            "label → what the network says (its probability); either may be wrong", empty,
        )  # fmt: skip

    def told(ids: NDArray[np.intp]) -> list[Mistake]:
        return [
            Mistake(
                image=names[i],
                class_name=classes[of.labels[i]],
                said=classes[said[i]],
                probability=float(p[i].max()),
            )
            for i in ids[:count]
        ]

    return MistakesResult(
        n=len(of),
        wrong=len(wrong),
        mistakes=told(wrong),
        pairs=[ConfusedPair(class_name=classes[a], said=classes[b], n=n) for a, b, n in pairs],
        doubtful=None if unasked else len(doubtful),
        labels_not_looked_for=unasked,
        labels=told(doubtful),
        **view.source(),
    )


def confusion(view: View, *, split: str | None = None) -> ConfusionResult:
    """How often each class is taken for each other."""
    return report_confusion(view, view.ask(split))


def report_confusion(view: View, answers: Answers) -> ConfusionResult:
    """The same of answers that are there already."""
    classes, name = view.predictor.classes, answers.split.name
    out = view.figure(f"confusion-{name}")
    figures.draw_confusion(answers.confusion, classes, out, f"{view.name}, {name}")
    counts = zip(classes, answers.tally.per_class(), strict=True)
    return ConfusionResult(
        per_class=[ClassCount(class_name=c, right=r, n=n) for c, (r, n) in counts],
        **answers.tally.figures().by_field(),
        **view.source(),
    )


def calibration(view: View, *, split: str | None = None) -> CalibrationResult:
    """How far probabilities can be believed: the reliability diagram and its error (ECE)."""
    return report_calibration(view, view.ask(split))


def report_calibration(view: View, answers: Answers) -> CalibrationResult:
    """The same of answers that are there already."""
    of = answers.split
    found = measure_calibration(answers.probabilities, of.labels)
    out = view.figure(f"calibration-{of.name}")
    low, high = found.ece_ci95
    title = (
        f"{view.name}, {of.name}: ECE {percent(found.ece, 1)} ({percent(low, 1)} to "
        f"{percent(high, 1)}, n {found.n:,}); by chance up to "
        f"{percent(found.ece_by_chance_ci95[1], 1)}"
    )
    said = answers.probabilities.max(1)
    figures.draw_calibration([astuple(b) for b in found.bins], said, out, title)
    bins = [CalibrationBin(**vars(b)) for b in found.bins]
    return CalibrationResult(**{**vars(found), "bins": bins}, **view.source())


def curves(view: View, others: Sequence[str] = ()) -> CurvesResult:
    """Loss, top-1, top-5, learning rate and speed over epochs, of several runs on one plot."""
    runs, most = {}, 0
    for path in (view.run, *others):
        folder = RunDir.open(Path(path))
        most = max(most, len(read_recipe(folder)[1].classes))
        name = folder.path.resolve().name
        runs[str(path) if name in runs else name] = folder.events()
    out = view.figure("curves", more="" if len(runs) == 1 else f"of-{len(runs)}")
    figures.draw_curves(runs, out, "Learning curves", "" if shows_top5(most) else why_no_top5(most))
    return CurvesResult(runs=list(runs), **view.source(answers=False))


def data(view: View, *, count: int = 10) -> DataResult:
    """Training images as the network sees them, with and without each augmentation, and how many
    images each class has in each split; the same of other images."""
    p, recipe = view.predictor, view.predictor.recipe
    if view.data is not None and not (opened := view.open()).own:
        shown_of, splits = opened.path, {opened.split: opened.images}
        train = opened.images
    else:
        train = view.train().images
        shown_of, splits = "training", {n: view.dataset.split(n) for n in ("val", "test")}
        splits = {"train": train, **splits}
    ids = view.some(train, count)
    stored = torch.from_numpy(train.read(ids))
    labels = torch.from_numpy(train.labels[ids])
    rows = [("as tested (centre)", p.preprocess.views(stored, 1)[0])]
    plain = recipe.replace(**UNCHANGED)
    used = [name for name in UNCHANGED if getattr(recipe, name) != UNCHANGED[name]]
    if recipe.crop < recipe.size:
        rows.append(("random crop alone", augment(stored, ids, 0, plain, p.preprocess)))
    for name in used:
        if name == "crop_chunk":
            continue
        one = plain.replace(**{name: getattr(recipe, name)})
        if name in ("mixup", "cutmix"):
            one = one.replace(**{name: 1.0})
        x, _, _ = mix(augment(stored, ids, 0, one, p.preprocess), labels, 0, one)
        value = getattr(recipe, name)
        rows.append((f"{name} alone" if value is True else f"{name} {value:g} alone", x))
    for epoch in (0, 1):
        x, _, _ = mix(augment(stored, ids, epoch, recipe, p.preprocess), labels, epoch, recipe)
        rows.append((f"as trained, epoch {epoch + 1}", x))
    shown = [(name, as_pixels(x, p.preprocess)) for name, x in rows]
    title = f"{view.name}: {shown_of} images as the network sees them (normalisation undone)"
    figures.draw_views(shown, view.figure("data"), title)
    counts = {
        name: np.bincount(split.labels, minlength=len(p.classes)) for name, split in splits.items()
    }
    out = view.figure("data", more="counts")
    figures.draw_counts(counts, p.classes, out, f"{view.name}: images by class")
    return DataResult(
        counts={name: n.tolist() for name, n in counts.items()},
        augmentations=used,
        **view.source(answers=False),
    )


def as_pixels(x: torch.Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    """What the network sees (N, C, crop, crop) as pixels uint8 (N, crop, crop, C).

    Normalisation is undone by what it makes of black and of white; with the rule "image", whose
    mean is cut where the crop was, by the centre's. What colour noise pushes out is cut off.
    """
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    size = preprocess.size
    black, white = preprocess.views(ends.expand(2, size, size, preprocess.channels), 1)[0]
    pixels = 255 * (x.float() - black) / (white - black)
    found: NDArray[np.uint8] = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return found


def recipe_differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The fields in which recipes differ, with each one's value."""
    told = [recipe.to_dict() for recipe in recipes]
    return {
        key: [one[key] for one in told]
        for key in told[0]
        if any(one[key] != told[0][key] for one in told) and key != "about"
    }
