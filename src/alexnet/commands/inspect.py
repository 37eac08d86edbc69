"""alexnet inspect: pictures and figures of what a run has learnt, and its features.

A function for each thing that is shown: of the network, of its answers, of its training, of its
features.
"""

import csv
import inspect as python
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet import figures
from alexnet.analysis import features as feats
from alexnet.analysis import saliency as evidence
from alexnet.analysis.answers import Answers
from alexnet.analysis.confidence import (
    confused_pairs,
    doubtful_labels,
    measure_calibration,
    surest_mistakes,
    too_weak_for_labels,
)
from alexnet.analysis.kernels import colour_scores, tower_scores, towers_of
from alexnet.analysis.maps import most_excited, receptive_field, strongest
from alexnet.analysis.neighbours import METRICS, Matrix, Metric, class_agreement, nearest_neighbours
from alexnet.analysis.probe import fit_linear_probe, linear_cka
from alexnet.analysis.saliency import Method
from alexnet.commands.inspected_run import InspectedRun
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.errors import DataError, UsageError
from alexnet.models.zoo import model_spec
from alexnet.recipe import Precision
from alexnet.records import (
    ActivationsResult,
    Agreement,
    AgreementResult,
    CalibrationBin,
    CalibrationResult,
    ClassCount,
    ConfusedPair,
    ConfusionResult,
    CurvesResult,
    DataResult,
    FeaturesResult,
    FiltersResult,
    FilterTower,
    ImageEvidence,
    ImageMaps,
    ImageNeighbours,
    InspectResult,
    MapsResult,
    Mistake,
    MistakesResult,
    NamedProbability,
    NeighborsResult,
    Neighbour,
    PartProbe,
    Peak,
    PredictionsResult,
    ProbeResult,
    SaliencyResult,
    ShownPrediction,
    SimilarityResult,
)
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runtime import autocast, chance_kept
from alexnet.support.argument_checks import Range, checked
from alexnet.support.files import open_atomic
from alexnet.support.options import RUN, Placeholder, call, option
from alexnet.support.terminal import escaped, percent, progress, shorten, shows_top5, why_no_top5

What = Literal[
    "filters", "activations", "neighbors", "predictions", "mistakes", "saliency", "confusion",
    "calibration", "curves", "data", "features", "probe", "similarity",
]  # fmt: skip
WITHOUT_ANSWERS = ("filters", "curves", "data")  # show no answer of the network
EXACT = ("saliency", "features")  # are computed in fp32 whatever the run was trained in


@checked(channels=Range(0), count=Range(1, 10_000), top=Range(1, 10_000))
@chance_kept()
def inspect(
    run: str | Path,
    what: What,
    items: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    split: str | None = None,
    part: str | None = None,
    count: int | None = None,
    top: int | None = None,
    channels: int | Sequence[int] | None = None,
    metric: Metric | None = None,
    method: Method | None = None,
    label: str | None = None,
    checkpoint: str = "best",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: Precision = "auto",
) -> InspectResult:
    """Draws what a run has learnt, or writes its features.

    `what` is one of filters, activations, neighbors, predictions, mistakes, saliency, confusion,
    calibration, curves, data, features, probe and similarity; `items` are images, or for curves
    and similarity other runs. `data` is where the run's data is now, or other labelled images:
    those are never cut, `ignore_unknown` and `with_seen` are as for `test`. `split` is of the run's
    data train, val or test (default val, so that test is read only where it is asked for), of
    others a part, or all. `part`, `count`, `top`, `channels`, `metric`, `method` and `label` are
    for some of the things alone, and refused by the others. `precision` is of the network's
    answers: auto, fp32 or bf16. Returns a record of its own for each thing, as MistakesResult, with
    the pictures made and the figures they show.
    """
    show = SHOWN[what]
    takes = [name for name in python.signature(show).parameters if name != "run"]
    options: dict[str, Any] = {
        "split": split, "part": part, "count": count, "top": top, "channels": channels,
        "metric": metric, "method": method, "label": label,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    if items:
        assert not isinstance(items, str | Path)  # `checked` makes a list of one
        kind = next((name for name in ("images", "others") if name in takes), None)
        if kind is None:
            raise UsageError(f"inspect {what} takes no {str(items[0])!r}: leave it out")
        options[kind] = [str(item) for item in items]
    for name in options:
        if name not in takes:
            known = ", ".join(option(n) for n in takes if n not in ("images", "others"))
            raise UsageError(
                f"inspect {what} takes no {option(name)}" + (f": it takes {known}" if known else "")
            )
    path = None if out is None else Path(out).expanduser()
    if path is not None and what != "features" and path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{option('out', out)}: a picture ends in .png or .svg")
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"{option('out', out)}: {path.parent} is no folder: make it first")
    if precision == "bf16" and what in WITHOUT_ANSWERS + EXACT:
        why = "is computed in fp32" if what in EXACT else "asks the network nothing"
        raise UsageError(f"{option('precision', 'bf16')}: {what} {why}; leave it out")
    opened = InspectedRun(
        run, data, checkpoint, path, ignore_unknown=ignore_unknown, with_seen=with_seen,
        precision="fp32" if what in EXACT else precision,
    )  # fmt: skip
    return opened.retry_without_unreadable(lambda: show(opened, **options))


# The network: its filters, its maps, its neighbours, its evidence.

NEIGHBOURS = 6  # paper, figure 4
ASKED = 1000  # images of a split whose neighbours are counted, at most,
PRODUCTS = 2e11  # and fewer where their pixels would take more multiplications than these


def show_filters(run: InspectedRun, *, part: str | None = None) -> FiltersResult:
    """The kernels of a convolution, by tower where it is the first; with their colour scores."""
    model = run.predictor.model
    part = part or model.layers[0]
    layer = model.part(part)
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, torch.nn.Conv2d) or not isinstance(weight, torch.Tensor):
        kinds = [n for n in model.layers if isinstance(model.part(n), torch.nn.Conv2d)]
        raise UsageError(f"{part} has no kernels to show: there are those of {', '.join(kinds)}")
    weight = weight.detach().float().cpu()
    count, channels, side, _ = weight.shape
    first, coloured = part == model.layers[0], channels == 3
    towers = towers_of(model) if first else layer.groups
    result: dict[str, Any] = {}
    shown = weight.permute(0, 2, 3, 1) if coloured else weight[:, 0]
    note = f"{side} x {side} pixels, each from its largest weight; grey is 0"
    if channels not in (1, 3):
        strongest_slice = weight.square().sum((2, 3)).argmax(1)
        shown = weight[torch.arange(count), strongest_slice]
        note += f"; of {channels} input channels the one with most weight"
    size = count // towers
    names = [f"tower {i + 1}, " if towers > 1 else "" for i in range(towers)]
    names = [f"{name}{size} kernels" for name in names]
    if coloured:
        scores = tower_scores(weight, towers)
        result["towers"] = [
            FilterTower(first=t.kernels[0], kernels=len(t.kernels), colour=t.colour) for t in scores
        ]
        result["colour"] = colour_scores(weight).tolist()
        names = [
            f"{name}: {percent(t.colour, 0)} of their energy is colour"
            for name, t in zip(names, scores, strict=True)
        ]
    parts = [shown[i * size : (i + 1) * size].numpy() for i in range(towers)]
    out = run.figure(f"filters-{part}")
    figures.draw_filters(
        list(zip(names, parts, strict=True)), out, f"{run.name}: kernels of {part}", note
    )
    return FiltersResult(part=part, kernels=count, size=side, **result, **run.source(answers=False))


def show_activations(
    run: InspectedRun,
    images: Sequence[str] = (),
    *,
    part: str | None = None,
    split: str | None = None,
    channels: Sequence[int] = (),
    count: int = 8,
) -> ActivationsResult | MapsResult:
    """A part's maps of images; without images, those of a split that excite its channels most."""
    p = run.predictor
    part = part or next(n for n in p.model.parts if n.startswith("relu"))
    p.model.part(part)
    if images:
        return _maps(run, images, part)
    opened = run.open(split)
    of, split = opened.images, opened.split
    excited = most_excited(
        p.model,
        of,
        p.preprocess,
        part,
        9,
        precision=p.precision,
        workers=p.recipe.workers,
    )
    total = len(excited.values)
    for channel in channels:
        if not 0 <= channel < total:
            raise UsageError(f"{part} has no channel {channel}: there are 0 to {total - 1}")
    if not channels:
        channels = np.argsort(-excited.values[:, 0], kind="stable")[:count].tolist()
    spec = model_spec(p.recipe.model, len(p.classes))
    width = excited.shape[-1]
    rows = []
    for channel in channels:
        boxed = []
        triples = (excited.images[channel], excited.places[channel], excited.values[channel])
        for image, place, value in zip(*triples, strict=True):
            box = receptive_field(spec, p.model.input_shape, part, *divmod(int(place), width))
            pixels = run.crop(of.read(np.array([image])))[0]
            name = p.classes[of.labels[image]]
            boxed.append(figures.BoxedImage(pixels, box, float(value), name))
        rows.append((f"channel {channel}", boxed))
    out = run.figure(f"activations-{part}-{split}")
    title = f"{run.name}, {split}: images that excite {part} most"
    figures.draw_boxed_images(rows, out, title)
    return ActivationsResult(part=part, n=len(of), channels=channels, **run.source())


def _maps(run: InspectedRun, images: Sequence[str], part: str, most: int = 36) -> MapsResult:
    p = run.predictor
    device = next(p.model.parameters()).device
    shown = []
    for path, stored in zip(images, run.decode(images), strict=True):
        with torch.inference_mode(), autocast(device, p.precision):
            _, kept = p.model.activations(run.inputs(stored[None]), [part])
        x = kept[part][0].float().cpu()
        order = strongest(x)
        channels = order[:most]
        out = run.figure("activations", more=f"{part}-{Path(path).stem}")
        title = f"{run.name}: {part} of {Path(path).name}"
        pixels = run.crop(stored)
        figures.draw_maps(pixels, x[channels].numpy(), channels, len(x), out, title)
        shown.append(ImageMaps(path=str(path), channels=order, peak=float(x.max())))
    return MapsResult(part=part, images=shown, **run.source())


def show_neighbors(
    run: InspectedRun,
    images: Sequence[str] = (),
    *,
    split: str | None = None,
    part: str | None = None,
    metric: Metric = "euclidean",
    count: int = 8,
) -> NeighborsResult | AgreementResult:
    """The six training images nearest to images, or to those of a split, by a part's numbers and by
    pixels. Of a split also how far neighbours share the class, over up to 1,000 of its images, of
    large ones over some hundreds."""
    if metric not in METRICS:
        raise UsageError(f"metric {metric!r}: {' or '.join(METRICS)}")
    p = run.predictor
    part = part or feats.last_hidden(p.model)
    p.model.part(part)
    learnt = run.training_images()
    train = learnt.images
    k = min(NEIGHBOURS, len(train))
    asked: NDArray[np.uint8]
    labels = None
    if images:
        asked, names = run.decode(images), [Path(i).name for i in images]
    else:
        if split == "train":
            raise UsageError(
                f"a training image is its own nearest one: use {option('split', 'val')} or test"
            )
        opened = run.open(split)
        of, split = opened.images, opened.split
        width = p.preprocess.crop**2 * p.preprocess.channels
        picked = run.pick(of, min(ASKED, max(int(PRODUCTS / (len(train) * width)), 100)))
        asked = of.take(picked).resident(p.recipe.workers).read(np.arange(len(picked)))
        labels = of.labels[picked]
        names = [p.classes[i] for i in labels[:count]]
    with tempfile.TemporaryDirectory(prefix="alexnet-") as place:
        file = Path(place) / "train.npy"
        how = {"workers": p.recipe.workers, "precision": p.precision}
        feats.write_features(file, p.model, train, p.preprocess, part, **how)
        keys = np.load(file, mmap_mode="r", allow_pickle=False)
        queries = _outputs(run, asked, part)
        pixels = feats.Crops(train, p.preprocess.crop)
        nearest = {}
        by_part: tuple[str, Matrix, Matrix] = (part, queries, keys)
        for way, some, of_all in (by_part, ("pixels", run.crop(asked), pixels)):
            nearest[way] = nearest_neighbours(some, of_all, k, metric)
    shown = min(count, len(asked)) if labels is not None else len(asked)
    ways = {
        f"nearest in {way}": [
            [
                figures.NeighbourImage(
                    pixels[np.array([i])][0],
                    p.classes[train.labels[i]],
                    None if labels is None else bool(train.labels[i] == labels[row]),
                )
                for i in ids[row]
            ]
            for row in range(shown)
        ]
        for way, (_, ids) in nearest.items()
    }
    cropped = run.crop(asked[:shown])
    out = run.figure("neighbors" if labels is None else f"neighbors-{split}")
    title = f"{run.name}: nearest training images ({metric})"
    figures.draw_neighbours(list(zip(cropped, names, strict=True)), ways, out, title)
    if labels is not None:
        return AgreementResult(
            part=part,
            metric=metric,
            n=len(asked),
            agreement={
                way: Agreement(**asdict(class_agreement(ids, train.labels, labels)))
                for way, (_, ids) in nearest.items()
            },
            **run.source(),
        )
    called = learnt.names
    near = [
        ImageNeighbours(
            path=str(path),
            near={
                way: [
                    Neighbour(
                        image=called[i], class_name=p.classes[train.labels[i]], distance=float(d)
                    )
                    for d, i in zip(distances[row], ids[row], strict=True)
                ]
                for way, (distances, ids) in nearest.items()
            },
        )
        for row, path in enumerate(images)
    ]
    return NeighborsResult(part=part, metric=metric, n=len(asked), neighbors=near, **run.source())


def _outputs(run: InspectedRun, images: NDArray[np.uint8], part: str) -> NDArray[np.float32]:
    outputs = []
    device = next(run.predictor.model.parameters()).device
    with torch.inference_mode(), autocast(device, run.predictor.precision):
        for start in range(0, len(images), feats.BATCH):
            x = run.inputs(images[start : start + feats.BATCH])
            outputs.append(run.predictor.model.activations(x, [part])[1][part].float().cpu())
    return torch.cat(outputs).numpy()


def show_saliency(
    run: InspectedRun,
    images: Sequence[str] = (),
    *,
    method: str | None = None,
    part: str | None = None,
    label: str | None = None,
) -> SaliencyResult:
    """Where the evidence for the predicted class lies, or for the class `label`: by occlusion,
    Grad-CAM at a part with maps, and integrated gradients, or one of them."""
    if not images:
        raise UsageError(
            "saliency of what? name images: "
            f"`{call('inspect', RUN, 'saliency', Placeholder('IMAGE'))}`"
        )
    methods = evidence.METHODS if method is None else (method,)
    if method is not None and method not in evidence.METHODS:
        raise UsageError(f"method {method!r}: {', '.join(evidence.METHODS)}")
    p = run.predictor
    if label is not None and label not in p.classes:
        raise UsageError(f"no class {label!r} in {run.path}: `{call('classify')}` names them")
    part = part or evidence.last_maps(p.model)
    rows, result = [], []
    for path, stored in zip(images, run.decode(images), strict=True):
        x = run.inputs(stored[None])
        with torch.inference_mode():
            probabilities = p.model(x).softmax(1)[0]
        chosen = int(probabilities.argmax()) if label is None else p.classes.index(label)
        maps = {}
        for name in methods:
            if name == "occlusion":
                evidence_map = evidence.occlusion(p.model, x, chosen)
            elif name == "grad-cam":
                evidence_map = evidence.grad_cam(p.model, x, chosen, part)
            else:
                evidence_map = evidence.integrated_gradients(p.model, x, chosen)
            maps[name] = evidence_map.numpy()
        probability = float(probabilities[chosen])
        rows.append((run.crop(stored), f"{p.classes[chosen]}, {percent(probability, 1)}", maps))
        peaks = {
            name: Peak(
                row=int(m.argmax()) // m.shape[1],
                column=int(m.argmax()) % m.shape[1],
                largest=float(m.max()),
                sum=float(m.sum()),
            )
            for name, m in maps.items()
        }
        result.append(
            ImageEvidence(
                path=str(path), class_name=p.classes[chosen], probability=probability, maps=peaks
            )
        )
    figures.draw_evidence(rows, run.figure("saliency"), f"{run.name}: where the evidence is")
    return SaliencyResult(part=part, images=result, **run.source())


# Its answers: predictions, mistakes, confusion, calibration.

PAIRS = 12
UNCHANGED: dict[str, Any] = {
    "shift": 0, "flip": False, "rotate": 0.0, "scale": 0.0, "cutout": 0, "area": 1.0,
    "colour": 0.0, "mixup": 0.0, "cutmix": 0.0, "crop_chunk": 1,
}  # fmt: skip
"""Recipe fields with which training shows images as they are, but for where they are cut."""


def show_predictions(
    run: InspectedRun,
    images: Sequence[str] = (),
    *,
    split: str | None = None,
    count: int = 8,
    top: int = 5,
) -> PredictionsResult:
    """Images, or some of a split, above the likeliest classes as bars."""
    p = run.predictor
    top = min(top, len(p.classes))
    true: list[str | None]
    if images:
        stored = run.decode(images)
        true, names = [None] * len(stored), [str(path) for path in images]
    else:
        opened = run.open(split)
        of, split = opened.images, opened.split
        picked = run.pick(of, count)
        stored = of.read(picked)
        true = [p.classes[i] for i in of.labels[picked]]
        names = [opened.names[i] for i in picked]
    probabilities = p.predict(list(stored))
    shown, result = [], []
    for image, label, name, row in zip(stored, true, names, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        ranked = [(p.classes[i], float(row[i])) for i in best]
        shown.append(figures.Prediction(run.crop(image), label, ranked))
        top_classes = [NamedProbability(class_name=c, probability=x) for c, x in ranked]
        result.append(ShownPrediction(image=name, class_name=label, top=top_classes))
    out = run.figure("predictions" if images else f"predictions-{split}")
    figures.draw_predictions(shown, out, f"{run.name}: {'images' if images else split}")
    return PredictionsResult(n=len(stored), predictions=result, **run.source())


def show_mistakes(
    run: InspectedRun, *, split: str | None = None, count: int = 24
) -> MistakesResult:
    """The surest mistakes, the most confused pairs, and the labels that deserve a look, where the
    network is good enough to say which."""
    return report_mistakes(run, run.predict(split), run.open(split).names, count)


def report_mistakes(
    run: InspectedRun, answers: Answers, names: Sequence[str], count: int = 24
) -> MistakesResult:
    """The same of answers that are there already."""
    of, classes, p = answers.split, run.predictor.classes, answers.probabilities
    wrong = surest_mistakes(p, of.labels)
    unasked = too_weak_for_labels(len(of) - len(wrong), len(of))
    if run.learnt_from(of):
        unasked = "the network was trained on these images, and has learned their labels"
    doubtful = np.zeros(0, np.intp) if unasked else doubtful_labels(p, of.labels)
    pairs = confused_pairs(answers.confusion, PAIRS)
    predicted = answers.predicted
    about = f"{run.name}, {of.name}"

    def draw(ids: NDArray[np.intp], out: Path, title: str, note: str, empty: str) -> None:
        if not len(ids):
            figures.draw_message(empty, out, title)
            return
        captions = [
            figures.pair_caption(classes[of.labels[i]], classes[predicted[i]], float(p[i].max()))
            for i in ids
        ]
        figures.draw_captioned(run.crop(of.read(ids)), captions, out, title, note)

    empty = f"no mistakes in {len(of):,} images"
    draw(
        wrong[:count], run.figure(f"mistakes-{of.name}"),
        f"{about}: the surest of {len(wrong):,} mistakes",
        "true class → predicted class (its probability)", empty,
    )  # fmt: skip
    if pairs:
        short = [shorten(name, 21) for name in classes]  # two of them beside a bar
        bars = [(f"{short[a]} → {short[b]}", float(n), None) for a, b, n in pairs]
        out = run.figure(f"mistakes-{of.name}", more="pairs")
        figures.draw_bars(bars, out, f"{about}: the most confused pairs", "images, true → said")
    if len(doubtful):
        draw(
            doubtful[:count], run.figure(f"mistakes-{of.name}", more="labels"),
            f"{about}: the first of {len(doubtful):,} labels that deserve a look",
            "label → what the network says (its probability); either may be wrong", empty,
        )  # fmt: skip

    def told(ids: NDArray[np.intp]) -> list[Mistake]:
        return [
            Mistake(
                image=names[i],
                class_name=classes[of.labels[i]],
                said=classes[predicted[i]],
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
        **run.source(),
    )


def show_confusion(run: InspectedRun, *, split: str | None = None) -> ConfusionResult:
    """How often each class is taken for each other."""
    return report_confusion(run, run.predict(split))


def report_confusion(run: InspectedRun, answers: Answers) -> ConfusionResult:
    """The same of answers that are there already."""
    classes, name = run.predictor.classes, answers.split.name
    out = run.figure(f"confusion-{name}")
    figures.draw_confusion(answers.confusion, classes, out, f"{run.name}, {name}")
    counts = zip(classes, answers.tally.per_class(), strict=True)
    return ConfusionResult(
        per_class=[ClassCount(class_name=c, right=r, n=n) for c, (r, n) in counts],
        **answers.tally.figures().by_field(),
        **run.source(),
    )


def show_calibration(run: InspectedRun, *, split: str | None = None) -> CalibrationResult:
    """How far probabilities can be believed: the reliability diagram and its error (ECE)."""
    return report_calibration(run, run.predict(split))


def report_calibration(run: InspectedRun, answers: Answers) -> CalibrationResult:
    """The same of answers that are there already."""
    of = answers.split
    measured = measure_calibration(answers.probabilities, of.labels)
    out = run.figure(f"calibration-{of.name}")
    low, high = measured.ece_ci95
    title = (
        f"{run.name}, {of.name}: ECE {percent(measured.ece, 1)} ({percent(low, 1)} to "
        f"{percent(high, 1)}, n {measured.n:,}); by chance up to "
        f"{percent(measured.ece_by_chance_ci95[1], 1)}"
    )
    confidence = answers.probabilities.max(1)
    figures.draw_calibration([astuple(b) for b in measured.bins], confidence, out, title)
    bins = [CalibrationBin(**vars(b)) for b in measured.bins]
    return CalibrationResult(**{**vars(measured), "bins": bins}, **run.source())


# Its training: curves, and images as it was shown them.


def show_curves(run: InspectedRun, others: Sequence[str] = ()) -> CurvesResult:
    """Loss, top-1, top-5, learning rate and speed over epochs, of several runs on one plot."""
    runs, most = {}, 0
    for path in (run.path, *others):
        folder = RunDir.open(Path(path))
        most = max(most, len(read_recipe(folder)[1].classes))
        name = folder.path.resolve().name
        runs[str(path) if name in runs else name] = folder.events()
    out = run.figure("curves", more="" if len(runs) == 1 else f"of-{len(runs)}")
    figures.draw_curves(runs, out, "Learning curves", "" if shows_top5(most) else why_no_top5(most))
    return CurvesResult(runs=list(runs), **run.source(answers=False))


def show_data(run: InspectedRun, *, count: int = 10) -> DataResult:
    """Training images as the network sees them, with and without each augmentation, and how many
    images each class has in each split; the same of other images."""
    p, recipe = run.predictor, run.predictor.recipe
    if run.data is not None and not (opened := run.open()).own:
        shown_of, splits = opened.path, {opened.split: opened.images}
        train = opened.images
    else:
        train = run.training_images().images
        shown_of, splits = "training", {n: run.dataset.split(n) for n in ("val", "test")}
        splits = {"train": train, **splits}
    ids = run.pick(train, count)
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
    title = f"{run.name}: {shown_of} images as the network sees them (normalisation undone)"
    figures.draw_views(shown, run.figure("data"), title)
    counts = {
        name: np.bincount(split.labels, minlength=len(p.classes)) for name, split in splits.items()
    }
    out = run.figure("data", more="counts")
    figures.draw_counts(counts, p.classes, out, f"{run.name}: images by class")
    return DataResult(
        counts={name: n.tolist() for name, n in counts.items()},
        augmentations=used,
        **run.source(answers=False),
    )


def as_pixels(x: torch.Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Turns the network's input (N, C, crop, crop) back into pixels uint8 (N, crop, crop, C).

    Normalisation is undone by what it makes of black and of white; with the rule "image", whose
    mean is cut where the crop was, by the centre's. Colours out of range, by noise, are cut off.
    """
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    size = preprocess.size
    black, white = preprocess.views(ends.expand(2, size, size, preprocess.channels), 1)[0]
    pixels = 255 * (x.float() - black) / (white - black)
    shown: NDArray[np.uint8] = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return shown


# Its features: written out, probed, compared with another run's.

COMPARED = 500  # images on which two runs are compared
MOST_NUMBERS = 4096  # numbers of a part that a probe or a comparison keeps of an image


def show_features(
    run: InspectedRun, *, part: str | None = None, split: str | None = None
) -> FeaturesResult:
    """A part's output for every image of a split, float32 in the split's order, into --out FILE.npy
    and, beside it, FILE.csv with each row's image and label; or all into --out FILE.parquet."""
    if run.out is None or run.out.suffix not in (".npy", ".parquet"):
        raise UsageError(
            f"features go into a file: give {option('out', Placeholder('FILE.npy'))} or "
            "FILE.parquet"
        )
    p = run.predictor
    part = part or feats.last_hidden(p.model)
    p.model.part(part)
    opened = run.open(split)
    of, names, split = opened.images, opened.names, opened.split
    how: dict[str, Any] = {"workers": p.recipe.workers}
    if run.out.suffix == ".parquet":
        columns: dict[str, Any] = {
            "image": [escaped(name) for name in names],
            "label": of.labels,
            "class": [p.classes[label] for label in of.labels.tolist()],
        }
        shape = feats.write_parquet(run.out, p.model, of, p.preprocess, part, columns, **how)
        listed = run.out
    else:
        shape = feats.write_features(run.out, p.model, of, p.preprocess, part, **how)
        listed = run.out.with_suffix(".csv")
        with open_atomic(listed) as file:
            table = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
            lines = csv.writer(table, lineterminator="\n")
            lines.writerow(("row", "image", "label", "class"))
            for row, (name, label) in enumerate(zip(names, of.labels.tolist(), strict=True)):
                lines.writerow((row, name, label, p.classes[label]))
            table.detach()
    return FeaturesResult(
        part=part,
        n=shape[0],
        shape=shape,
        out=str(run.out),
        images=str(listed),
        **run.source(),
    )


def show_probe(
    run: InspectedRun, *, part: str | None = None, split: str | None = None, count: int = 2000
) -> ProbeResult:
    """A linear classifier on each activation, or on one part: fitted to up to `count` training
    images, tried on a split. Maps are averaged over squares to at most 4,096 numbers."""
    p = run.predictor
    parts = [part] if part else feats.activation_parts(p.model)
    for name in parts:
        p.model.part(name)
    if split == "train":
        raise UsageError(f"a probe is fitted to train: try it on {option('split', 'val')} or test")
    opened = run.open(split)
    train, of, split = run.training_images().images, opened.images, opened.split
    picked = np.sort(run.pick(train, count))
    train = train.take(picked)
    how: dict[str, Any] = {
        "most": MOST_NUMBERS, "workers": p.recipe.workers, "precision": p.precision,
    }  # fmt: skip
    fitted = feats.gather_features(p.model, train, p.preprocess, parts, **how)
    tried = feats.gather_features(p.model, of, p.preprocess, parts, **how)
    rows = {}
    with progress("fitting", len(parts), "parts") as bar:
        for name in parts:
            arrays = fitted.pop(name), train.labels, tried.pop(name), of.labels
            rows[name] = fit_linear_probe(*arrays, len(p.classes))
            bar.advance()
    bars = [(name, 100 * r.top1, (100 * r.top1_ci95[0], 100 * r.top1_ci95[1]))
            for name, r in rows.items()]  # fmt: skip
    title = f"{run.name}, {split}: a linear classifier on each part"
    figures.draw_bars(bars, run.figure(f"probe-{split}"), title, "images right (%)")
    probes = [PartProbe(part=name, **vars(row)) for name, row in rows.items()]
    return ProbeResult(n=len(of), probes=probes, **run.source())


def show_similarity(
    run: InspectedRun,
    others: Sequence[str] = (),
    *,
    split: str | None = None,
    count: int = COMPARED,
) -> SimilarityResult:
    """How alike the parts of two runs are on the same images: linear CKA, without bias."""
    if len(others) != 1:
        raise UsageError(
            f"similarity is of two runs and {1 + len(others)} were named: "
            f"`{call('inspect', RUN, 'similarity', Placeholder('OTHER'))}`"
        )
    second = InspectedRun(
        others[0],
        run.data,
        run.checkpoint,
        ignore_unknown=run.ignore_unknown,
        with_seen=run.with_seen,
        precision=run.predictor.precision,
    )
    if second.predictor.classes != run.predictor.classes:
        raise DataError(f"{run.path} and {second.path} have other classes: nothing to compare")
    first_set, second_set = run.open(split), second.open(split)
    split = first_set.split
    if not first_set.share(second_set):
        raise DataError(
            f"{split} is other images in {run.path} than in {second.path}: use "
            f"{option('split', 'test')}"
        )
    first_of, second_of = first_set.images, second_set.images
    picked = np.sort(run.pick(first_of, count))
    kept = []
    for one, of in ((run, first_of), (second, second_of)):
        p = one.predictor
        parts = feats.activation_parts(p.model)
        kept.append(
            feats.gather_features(
                p.model, of.take(picked), p.preprocess, parts, most=MOST_NUMBERS,
                workers=p.recipe.workers, precision=p.precision,
            )
        )  # fmt: skip
    first, other = kept
    values = np.array([[linear_cka(a, b) for b in other.values()] for a in first.values()])
    out = run.figure("similarity", more=second.name)
    figures.draw_similarity(
        values, list(first), list(other), out,
        f"How alike two networks see {len(picked):,} images of {split}", (run.name, second.name),
    )  # fmt: skip
    return SimilarityResult(
        other=str(second.path),
        n=len(picked),
        rows=list(first),
        columns=list(other),
        cka=values.tolist(),
        **run.source(),
    )


def describe_calibration(r: CalibrationResult) -> list[str]:
    """A reliability diagram in words: its error, the share of chance in it, and the direction."""
    low, high = r.ece_ci95
    chance = f"{percent(r.ece_by_chance)}, and up to {percent(r.ece_by_chance_ci95[1])}"
    lines = [
        f"expected calibration error {percent(r.ece)} (95 % interval {percent(low)} to "
        f"{percent(high)}) over {r.n:,} images of {r.split}, {len(r.bins)} bin(s), in "
        f"{r.precision}",
        f"a network that is right as often as it says would show {chance}: this is "
        f"{'more' if low > 0 else 'no more'} than chance",
    ]
    if len(r.bins) < 2:
        lines.append(
            f"{r.n:,} images are too few for two bins of 30: only averages are held against "
            "each other, and errors that cancel are not seen"
        )
    surplus, ends = 100 * r.surplus, [100 * end for end in r.surplus_ci95]
    if ends[0] <= 0 <= ends[1]:
        between = " to ".join(f"{end:+.1f}" for end in ends)
        lines.append(
            f"said less right is {surplus:+.1f} points on average ({between}): neither too sure "
            "nor not sure enough, as far as so many images say"
        )
    else:
        between = " to ".join(f"{end:.1f}" for end in sorted(map(abs, ends)))
        how = "too sure" if surplus > 0 else "not sure enough"
        lines.append(f"{how} by {abs(surplus):.1f} points ({between})")
    return lines


SHOWN: dict[What, Callable[..., InspectResult]] = {
    "filters": show_filters,
    "activations": show_activations,
    "neighbors": show_neighbors,
    "predictions": show_predictions,
    "mistakes": show_mistakes,
    "saliency": show_saliency,
    "confusion": show_confusion,
    "calibration": show_calibration,
    "curves": show_curves,
    "data": show_data,
    "features": show_features,
    "probe": show_probe,
    "similarity": show_similarity,
}
"""Each takes the run, images or other runs, and options of its own."""
