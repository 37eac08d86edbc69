"""alexnet inspect: its arguments and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import (
    Verbs,
    add_checkpoint,
    add_image_exclusions,
    add_precision,
    add_verb,
)
from alexnet.support.terminal import bars, escaped, format_table, percent

if TYPE_CHECKING:
    from alexnet.records import (
        AgreementResult,
        CalibrationResult,
        ConfusionResult,
        FeaturesResult,
        FiltersResult,
        InspectResult,
        Mistake,
        MistakesResult,
        NeighborsResult,
        PredictionsResult,
        ProbeResult,
        SaliencyResult,
        SimilarityResult,
    )


WHATS = (
    "filters",
    "activations",
    "neighbors",
    "predictions",
    "mistakes",
    "saliency",
    "confusion",
    "calibration",
    "curves",
    "data",
    "features",
    "probe",
    "similarity",
)


def add(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "inspect", "Draw what a run has learnt, or write its features.", call, show
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("what", choices=WHATS, metavar="WHAT", help=", ".join(WHATS))
    parser.add_argument(
        "items",
        nargs="*",
        metavar="IMAGE_OR_RUN",
        help="images; for curves and similarity other runs",
    )
    parser.add_argument(
        "--split",
        help="train, val or test (default: val); of other data a part that it has, or all",
    )
    parser.add_argument("--part", help="part of the network, as conv1, relu5 or fc7")
    parser.add_argument("--count", type=int, metavar="INT", help="how many are shown")
    parser.add_argument("--top", type=int, metavar="INT", help="classes to show (predictions)")
    parser.add_argument("--channels", type=int, nargs="+", metavar="INT", help="of activations")
    parser.add_argument("--metric", help="of neighbors: euclidean (default) or cosine")
    parser.add_argument(
        "--method", help="of saliency: occlusion, grad-cam or integrated-gradients (default: all)"
    )
    parser.add_argument("--label", metavar="CLASS", help="of saliency: the class to look for")
    parser.add_argument("--data", metavar="DIR", help="where the data is now, or other images")
    add_image_exclusions(parser)
    add_precision(parser)
    add_checkpoint(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="FILE.png or .svg (default: in RUN/figures); of features FILE.npy or .parquet",
    )


def call(**options: Any) -> InspectResult:
    from alexnet.commands.inspect import inspect

    return inspect(**options)


def show(r: InspectResult) -> None:
    if r.own is False:
        print(f"of {escaped(r.data or '')}, which is not what the run was trained on:")
    if r.what in FORMATS:
        print(FORMATS[r.what](r), end="")
    for path in r.figures:
        print(f"wrote  {escaped(path)}")


def _format_filters(r: FiltersResult) -> str:
    lines = [f"{r.part}: {r.kernels} kernels of {r.size} x {r.size}"]
    for i, tower in enumerate(r.towers or (), 1):
        lines.append(f"tower {i}: {percent(tower.colour)} of its energy is colour")
    return _joined(lines)


def _format_neighbors(r: NeighborsResult | AgreementResult) -> str:
    from alexnet.records import AgreementResult

    if isinstance(r, AgreementResult):
        rows = [
            (
                way,
                percent(a.first),
                " to ".join(map(percent, a.first_ci95)),
                percent(a.share),
            )
            for way, a in r.agreement.items()
        ]
        k = next(iter(r.agreement.values())).k
        heads = ("near in", "nearest has its class", "95 % interval", f"of {k} nearest")
        return _joined([format_table(heads, rows), f"over {r.n:,} images of {r.split}"])
    lines = []
    for one in r.neighbors:
        lines.append(escaped(one.path))
        for way, neighbours in one.near.items():
            near = [(escaped(n.image), n.class_name, f"{n.distance:.4g}") for n in neighbours]
            lines.append(format_table((f"near in {way}", "class", r.metric), near))
    return _joined(lines)


def _format_predictions(r: PredictionsResult) -> str:
    lines = []
    for one in r.predictions:
        true = "" if one.class_name is None else f" ({one.class_name})"
        lines.append(escaped(one.image + true))
        lines.append(bars([(t.class_name, t.probability) for t in one.top]))
    return _joined(lines)


def _format_mistakes(r: MistakesResult) -> str:
    def listed(rows: Sequence[Mistake]) -> str:
        cells = [(escaped(x.image), x.class_name, x.said, percent(x.probability)) for x in rows]
        return format_table(("image", "class", "said", "probability"), cells)

    lines = [f"{r.split}: {r.wrong:,} of {r.n:,} images are named wrongly, in {r.precision}"]
    if r.mistakes:
        lines += ["", listed(r.mistakes[:10]), ""]
        pairs = [(x.class_name, x.said, f"{x.n:,}") for x in r.pairs]
        lines.append(format_table(("class", "taken for", "images"), pairs))
    if r.doubtful is None:
        labels = f"not looked for: {r.labels_not_looked_for}"
    else:
        labels = f"{r.doubtful:,} of {r.n:,}; the network contradicts them, and may be wrong"
    lines += ["", f"labels that deserve a look: {labels}"]
    if r.labels:
        lines += [listed(r.labels[:10]), ""]
    return _joined(lines)


def _format_saliency(r: SaliencyResult) -> str:
    rows = [
        (
            escaped(one.path),
            one.class_name,
            percent(one.probability),
            method,
            f"{peak.row}, {peak.column}",
        )
        for one in r.images
        for method, peak in one.maps.items()
    ]
    return _joined(
        [format_table(("image", "class", "probability", "method", "most at row, column"), rows)]
    )


def _format_confusion(r: ConfusionResult) -> str:
    low, high = r.top1_ci95
    return (
        f"{r.split}: top-1 {percent(r.top1)} (95 % interval {percent(low)} to "
        f"{percent(high)}, n {r.n:,}), in {r.precision}\n"
    )


def _format_calibration(r: CalibrationResult) -> str:
    from alexnet.commands.inspect import describe_calibration

    rows = [
        (
            f"{percent(b.low, 1)} to {percent(b.high, 1)}",
            f"{b.n:,}",
            percent(b.said),
            percent(b.right),
            " to ".join(percent(end) for end in b.right_ci95),
        )
        for b in r.bins
    ]
    heads = ("said", "images", "said on average", "right", "95 % interval")
    return _joined([format_table(heads, rows), *describe_calibration(r)])


def _format_features(r: FeaturesResult) -> str:
    shape = " x ".join(f"{n:,}" for n in r.shape)
    files = dict.fromkeys((r.out, r.images))
    return _joined(
        [f"{r.part} of {r.split}: {shape} float32", *(f"wrote  {name}" for name in files)]
    )


def _format_probe(r: ProbeResult) -> str:
    rows = [
        (
            p.part,
            percent(p.top1),
            " to ".join(map(percent, p.top1_ci95)),
            f"{p.fitted:,}",
            f"{p.strength:g}",
        )
        for p in r.probes
    ]
    return _joined(
        [
            format_table(("part", "top-1", "95 % interval", "fitted to", "L2"), rows),
            f"on {r.n:,} images of {r.split}",
        ]
    )


def _format_similarity(r: SimilarityResult) -> str:
    rows = [
        (name, *(f"{value:.2f}" for value in row)) for name, row in zip(r.rows, r.cka, strict=True)
    ]
    return _joined([format_table(("", *r.columns), rows), f"linear CKA over {r.n:,} images"])


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Any], str]] = {
    "filters": _format_filters,
    "neighbors": _format_neighbors,
    "predictions": _format_predictions,
    "mistakes": _format_mistakes,
    "saliency": _format_saliency,
    "confusion": _format_confusion,
    "calibration": _format_calibration,
    "features": _format_features,
    "probe": _format_probe,
    "similarity": _format_similarity,
}
