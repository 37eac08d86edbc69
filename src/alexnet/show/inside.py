"""What inspect and report print: the figures in words, and where the pictures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alexnet.terminal import bars, escaped, format_table, percent

if TYPE_CHECKING:
    from alexnet.runs.records import (
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
        ReportResult,
        SaliencyResult,
        SimilarityResult,
    )


def inspect(r: InspectResult) -> None:
    if r.own is False:
        print(f"of {escaped(r.data or '')}, which is not what the run was trained on:")
    if r.what in _WORDS:
        print(_WORDS[r.what](r), end="")
    for path in r.figures:
        print(f"wrote  {escaped(path)}")


def report(r: ReportResult) -> None:
    for name in r.left_out:
        print(f"left out, for 5 MB are enough: {escaped(name)}")
    print(f"wrote  {escaped(r.out)} ({r.bytes / 1e6:.1f} MB)")


def _filters(r: FiltersResult) -> str:
    lines = [f"{r.part}: {r.kernels} kernels of {r.size} x {r.size}"]
    for i, tower in enumerate(r.towers or (), 1):
        lines.append(f"tower {i}: {percent(tower.colour)} of its energy is colour")
    return _joined(lines)


def _neighbors(r: NeighborsResult | AgreementResult) -> str:
    from alexnet.runs.records import AgreementResult

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
        for way, found in one.near.items():
            near = [(escaped(f.image), f.class_name, f"{f.distance:.4g}") for f in found]
            lines.append(format_table((f"near in {way}", "class", r.metric), near))
    return _joined(lines)


def _predictions(r: PredictionsResult) -> str:
    lines = []
    for one in r.predictions:
        true = "" if one.class_name is None else f" ({one.class_name})"
        lines.append(escaped(one.image + true))
        lines.append(bars([(t.class_name, t.probability) for t in one.top]))
    return _joined(lines)


def _mistakes(r: MistakesResult) -> str:
    def listed(rows: Sequence[Mistake]) -> str:
        cells = [(escaped(x.image), x.class_name, x.said, percent(x.probability)) for x in rows]
        return format_table(("image", "class", "said", "probability"), cells)

    lines = [f"{r.split}: {r.wrong:,} of {r.n:,} images are named wrongly, in {r.precision}"]
    if r.mistakes:
        lines += ["", listed(r.mistakes[:10]), ""]
        pairs = [(x.class_name, x.said, f"{x.n:,}") for x in r.pairs]
        lines.append(format_table(("class", "taken for", "images"), pairs))
    if r.doubtful is None:
        said = f"not looked for: {r.labels_not_looked_for}"
    else:
        said = f"{r.doubtful:,} of {r.n:,}; the network contradicts them, and may be wrong"
    lines += ["", f"labels that deserve a look: {said}"]
    if r.labels:
        lines += [listed(r.labels[:10]), ""]
    return _joined(lines)


def _saliency(r: SaliencyResult) -> str:
    rows = [
        (escaped(one.path), one.class_name, percent(one.probability), method,
         f"{peak.row}, {peak.column}")
        for one in r.images
        for method, peak in one.maps.items()
    ]  # fmt: skip
    return _joined(
        [format_table(("image", "class", "probability", "method", "most at row, column"), rows)]
    )


def _confusion(r: ConfusionResult) -> str:
    low, high = r.top1_ci95
    return (
        f"{r.split}: top-1 {percent(r.top1)} (95 % interval {percent(low)} to "
        f"{percent(high)}, n {r.n:,}), in {r.precision}\n"
    )


def _calibration(r: CalibrationResult) -> str:
    rows = [
        (f"{percent(b.low, 1)} to {percent(b.high, 1)}", f"{b.n:,}", percent(b.said),
         percent(b.right), " to ".join(percent(end) for end in b.right_ci95))
        for b in r.bins
    ]  # fmt: skip
    heads = ("said", "images", "said on average", "right", "95 % interval")
    return _joined([format_table(heads, rows), *say_calibration(r)])


def say_calibration(r: CalibrationResult) -> list[str]:
    """What a reliability diagram says in words: how far off, what of it is chance, which way."""
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


def _features(r: FeaturesResult) -> str:
    shape = " x ".join(f"{n:,}" for n in r.shape)
    files = dict.fromkeys((r.out, r.images))
    return _joined(
        [f"{r.part} of {r.split}: {shape} float32", *(f"wrote  {name}" for name in files)]
    )


def _probe(r: ProbeResult) -> str:
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
    return _joined([format_table(("part", "top-1", "95 % interval", "fitted to", "L2"), rows),
                    f"on {r.n:,} images of {r.split}"])  # fmt: skip


def _similarity(r: SimilarityResult) -> str:
    rows = [
        (name, *(f"{value:.2f}" for value in row)) for name, row in zip(r.rows, r.cka, strict=True)
    ]
    return _joined([format_table(("", *r.columns), rows), f"linear CKA over {r.n:,} images"])


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


_WORDS: dict[str, Callable[[Any], str]] = {
    "filters": _filters,
    "neighbors": _neighbors,
    "predictions": _predictions,
    "mistakes": _mistakes,
    "saliency": _saliency,
    "confusion": _confusion,
    "calibration": _calibration,
    "features": _features,
    "probe": _probe,
    "similarity": _similarity,
}
