"""What a network has inside: kernels, maps, neighbours, evidence."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet import figures
from alexnet.analysis import features as feats
from alexnet.analysis import saliency as evidence
from alexnet.analysis.kernels import colour_scores, tower_scores, towers_of
from alexnet.analysis.maps import most_excited, receptive_field, strongest
from alexnet.analysis.neighbours import METRICS, Matrix, Metric, class_agreement, nearest_neighbours
from alexnet.commands.view import View
from alexnet.errors import UsageError
from alexnet.models.zoo import model_spec
from alexnet.runs.records import (
    ActivationsResult,
    Agreement,
    AgreementResult,
    FiltersResult,
    FilterTower,
    ImageEvidence,
    ImageMaps,
    ImageNeighbours,
    MapsResult,
    NeighborsResult,
    Neighbour,
    Peak,
    SaliencyResult,
)
from alexnet.runtime import autocast
from alexnet.terminal import percent

NEIGHBOURS = 6  # paper, figure 4
ASKED = 1000  # images of a split whose neighbours are counted, at most,
PRODUCTS = 2e11  # and fewer where their pixels would take more multiplications than these


def filters(view: View, *, part: str | None = None) -> FiltersResult:
    """The kernels of a convolution, by tower where it is the first; with their colour scores."""
    model = view.predictor.model
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
    out = view.figure(f"filters-{part}")
    figures.draw_filters(
        list(zip(names, parts, strict=True)), out, f"{view.name}: kernels of {part}", note
    )
    return FiltersResult(
        part=part, kernels=count, size=side, **result, **view.source(answers=False)
    )


def activations(
    view: View,
    images: Sequence[str] = (),
    *,
    part: str | None = None,
    split: str | None = None,
    channels: Sequence[int] = (),
    count: int = 8,
) -> ActivationsResult | MapsResult:
    """A part's maps of images; without images, those of a split that excite its channels most."""
    p = view.predictor
    part = part or next(n for n in p.model.parts if n.startswith("relu"))
    p.model.part(part)
    if images:
        return _maps(view, images, part)
    opened = view.open(split)
    of, split = opened.images, opened.split
    found = most_excited(
        p.model,
        of,
        p.preprocess,
        part,
        9,
        precision=p.precision,
        workers=p.recipe.workers,
    )
    total = len(found.values)
    for channel in channels:
        if not 0 <= channel < total:
            raise UsageError(f"{part} has no channel {channel}: there are 0 to {total - 1}")
    if not channels:
        channels = np.argsort(-found.values[:, 0], kind="stable")[:count].tolist()
    spec = model_spec(p.recipe.model, len(p.classes))
    width = found.shape[-1]
    rows = []
    for channel in channels:
        sights = []
        triples = (found.images[channel], found.places[channel], found.values[channel])
        for image, place, value in zip(*triples, strict=True):
            box = receptive_field(spec, p.model.input_shape, part, *divmod(int(place), width))
            pixels = view.crop(of.read(np.array([image])))[0]
            name = p.classes[of.labels[image]]
            sights.append(figures.BoxedImage(pixels, box, float(value), name))
        rows.append((f"channel {channel}", sights))
    out = view.figure(f"activations-{part}-{split}")
    title = f"{view.name}, {split}: images that excite {part} most"
    figures.draw_boxed_images(rows, out, title)
    return ActivationsResult(part=part, n=len(of), channels=channels, **view.source())


def _maps(view: View, images: Sequence[str], part: str, most: int = 36) -> MapsResult:
    p = view.predictor
    device = next(p.model.parameters()).device
    shown = []
    for path, stored in zip(images, view.decode(images), strict=True):
        with torch.inference_mode(), autocast(device, p.precision):
            _, kept = p.model.activations(view.inputs(stored[None]), [part])
        x = kept[part][0].float().cpu()
        order = strongest(x)
        channels = order[:most]
        out = view.figure("activations", more=f"{part}-{Path(path).stem}")
        title = f"{view.name}: {part} of {Path(path).name}"
        pixels = view.crop(stored)
        figures.draw_maps(pixels, x[channels].numpy(), channels, len(x), out, title)
        shown.append(ImageMaps(path=str(path), channels=order, peak=float(x.max())))
    return MapsResult(part=part, images=shown, **view.source())


def neighbors(
    view: View,
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
    p = view.predictor
    part = part or feats.last_hidden(p.model)
    p.model.part(part)
    learnt = view.train()
    train = learnt.images
    k = min(NEIGHBOURS, len(train))
    asked: NDArray[np.uint8]
    labels = None
    if images:
        asked, names = view.decode(images), [Path(i).name for i in images]
    else:
        if split == "train":
            raise UsageError("a training image is its own nearest one: use --split val or test")
        opened = view.open(split)
        of, split = opened.images, opened.split
        width = p.preprocess.crop**2 * p.preprocess.channels
        picked = view.some(of, min(ASKED, max(int(PRODUCTS / (len(train) * width)), 100)))
        asked = of.take(picked).resident(p.recipe.workers).read(np.arange(len(picked)))
        labels = of.labels[picked]
        names = [p.classes[i] for i in labels[:count]]
    with tempfile.TemporaryDirectory(prefix="alexnet-") as place:
        file = Path(place) / "train.npy"
        how = {"workers": p.recipe.workers, "precision": p.precision}
        feats.write_features(file, p.model, train, p.preprocess, part, **how)
        keys = np.load(file, mmap_mode="r", allow_pickle=False)
        queries = _outputs(view, asked, part)
        pixels = feats.Crops(train, p.preprocess.crop)
        found = {}
        by_part: tuple[str, Matrix, Matrix] = (part, queries, keys)
        for way, some, of_all in (by_part, ("pixels", view.crop(asked), pixels)):
            found[way] = nearest_neighbours(some, of_all, k, metric)
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
        for way, (_, ids) in found.items()
    }
    cropped = view.crop(asked[:shown])
    out = view.figure("neighbors" if labels is None else f"neighbors-{split}")
    title = f"{view.name}: nearest training images ({metric})"
    figures.draw_neighbours(list(zip(cropped, names, strict=True)), ways, out, title)
    if labels is not None:
        return AgreementResult(
            part=part,
            metric=metric,
            n=len(asked),
            agreement={
                way: Agreement(**asdict(class_agreement(ids, train.labels, labels)))
                for way, (_, ids) in found.items()
            },
            **view.source(),
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
                for way, (distances, ids) in found.items()
            },
        )
        for row, path in enumerate(images)
    ]
    return NeighborsResult(part=part, metric=metric, n=len(asked), neighbors=near, **view.source())


def _outputs(view: View, images: NDArray[np.uint8], part: str) -> NDArray[np.float32]:
    found = []
    device = next(view.predictor.model.parameters()).device
    with torch.inference_mode(), autocast(device, view.predictor.precision):
        for start in range(0, len(images), feats.BATCH):
            x = view.inputs(images[start : start + feats.BATCH])
            found.append(view.predictor.model.activations(x, [part])[1][part].float().cpu())
    return torch.cat(found).numpy()


def saliency(
    view: View,
    images: Sequence[str] = (),
    *,
    method: str | None = None,
    part: str | None = None,
    label: str | None = None,
) -> SaliencyResult:
    """Where the evidence for the class that is said lies, or for the class `label`: by occlusion,
    Grad-CAM at a part with maps, and integrated gradients, or one of them."""
    if not images:
        raise UsageError("saliency of what? name images: `alexnet inspect RUN saliency IMAGE`")
    methods = evidence.METHODS if method is None else (method,)
    if method is not None and method not in evidence.METHODS:
        raise UsageError(f"method {method!r}: {', '.join(evidence.METHODS)}")
    p = view.predictor
    if label is not None and label not in p.classes:
        raise UsageError(f"no class {label!r} in {view.run}: `alexnet classify` names them")
    part = part or evidence.last_maps(p.model)
    rows, result = [], []
    for path, stored in zip(images, view.decode(images), strict=True):
        x = view.inputs(stored[None])
        with torch.inference_mode():
            probabilities = p.model(x).softmax(1)[0]
        chosen = int(probabilities.argmax()) if label is None else p.classes.index(label)
        maps = {}
        for name in methods:
            if name == "occlusion":
                found = evidence.occlusion(p.model, x, chosen)
            elif name == "grad-cam":
                found = evidence.grad_cam(p.model, x, chosen, part)
            else:
                found = evidence.integrated_gradients(p.model, x, chosen)
            maps[name] = found.numpy()
        said = float(probabilities[chosen])
        rows.append((view.crop(stored), f"{p.classes[chosen]}, {percent(said, 1)}", maps))
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
                path=str(path), class_name=p.classes[chosen], probability=said, maps=peaks
            )
        )
    figures.draw_evidence(rows, view.figure("saliency"), f"{view.name}: where the evidence is")
    return SaliencyResult(part=part, images=result, **view.source())
