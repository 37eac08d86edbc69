"""A network's features: written out, tried by a linear classifier, compared with another's."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet import figures
from alexnet.analysis import features as feats
from alexnet.analysis.probe import fit_linear_probe, linear_cka
from alexnet.commands.view import View
from alexnet.errors import DataError, UsageError
from alexnet.files import open_atomic
from alexnet.runs.records import FeaturesResult, PartProbe, ProbeResult, SimilarityResult
from alexnet.terminal import escaped, progress

COMPARED = 500  # images that likeness is measured on
MOST = 4096  # numbers of a part that a probe or a comparison keeps of an image


def features(view: View, *, part: str | None = None, split: str | None = None) -> FeaturesResult:
    """A part's output for every image of a split, float32 in the split's order, into --out FILE.npy
    and, beside it, FILE.csv with each row's image and label; or all into --out FILE.parquet."""
    if view.out is None or view.out.suffix not in (".npy", ".parquet"):
        raise UsageError("features go into a file: give --out FILE.npy or FILE.parquet")
    p = view.predictor
    part = part or feats.last_hidden(p.model)
    p.model.part(part)
    opened = view.open(split)
    of, names, split = opened.images, opened.names, opened.split
    how: dict[str, Any] = {"workers": p.recipe.workers}
    if view.out.suffix == ".parquet":
        columns: dict[str, Any] = {
            "image": [escaped(name) for name in names],
            "label": of.labels,
            "class": [p.classes[label] for label in of.labels.tolist()],
        }
        shape = feats.write_parquet(view.out, p.model, of, p.preprocess, part, columns, **how)
        listed = view.out
    else:
        shape = feats.write_features(view.out, p.model, of, p.preprocess, part, **how)
        listed = view.out.with_suffix(".csv")
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
        out=str(view.out),
        images=str(listed),
        **view.source(),
    )


def probe(
    view: View, *, part: str | None = None, split: str | None = None, count: int = 2000
) -> ProbeResult:
    """A linear classifier on each activation, or on one part: fitted to up to `count` training
    images, tried on a split. Maps are averaged over squares to at most 4,096 numbers."""
    p = view.predictor
    parts = [part] if part else feats.activation_parts(p.model)
    for name in parts:
        p.model.part(name)
    if split == "train":
        raise UsageError("a probe is fitted to train: try it on --split val or test")
    opened = view.open(split)
    train, of, split = view.train().images, opened.images, opened.split
    picked = np.sort(view.some(train, count))
    train = train.take(picked)
    how: dict[str, Any] = {
        "most": MOST, "workers": p.recipe.workers, "precision": p.precision,
    }  # fmt: skip
    fitted = feats.gather_features(p.model, train, p.preprocess, parts, **how)
    tried = feats.gather_features(p.model, of, p.preprocess, parts, **how)
    rows = {}
    with progress("fitting", len(parts), "parts") as bar:
        for name in parts:
            given = fitted.pop(name), train.labels, tried.pop(name), of.labels
            rows[name] = fit_linear_probe(*given, len(p.classes))
            bar.advance()
    bars = [(name, 100 * r.top1, (100 * r.top1_ci95[0], 100 * r.top1_ci95[1]))
            for name, r in rows.items()]  # fmt: skip
    title = f"{view.name}, {split}: a linear classifier on each part"
    figures.draw_bars(bars, view.figure(f"probe-{split}"), title, "images right (%)")
    probes = [PartProbe(part=name, **vars(row)) for name, row in rows.items()]
    return ProbeResult(n=len(of), probes=probes, **view.source())


def similarity(
    view: View, others: Sequence[str] = (), *, split: str | None = None, count: int = COMPARED
) -> SimilarityResult:
    """How alike the parts of two runs are on the same images: linear CKA, without bias."""
    if len(others) != 1:
        raise UsageError(
            f"similarity is of two runs and {1 + len(others)} were named: "
            "`alexnet inspect RUN similarity OTHER`"
        )
    second = View(
        others[0],
        view.data,
        view.checkpoint,
        ignore_unknown=view.ignore_unknown,
        with_seen=view.with_seen,
        precision=view.predictor.precision,
    )
    if second.predictor.classes != view.predictor.classes:
        raise DataError(f"{view.run} and {second.run} have other classes: nothing to compare")
    first_set, second_set = view.open(split), second.open(split)
    split = first_set.split
    if not first_set.share(second_set):
        raise DataError(
            f"{split} is other images in {view.run} than in {second.run}: use --split test"
        )
    first_of, second_of = first_set.images, second_set.images
    picked = np.sort(view.some(first_of, count))
    kept = []
    for one, of in ((view, first_of), (second, second_of)):
        p = one.predictor
        parts = feats.activation_parts(p.model)
        kept.append(
            feats.gather_features(
                p.model, of.take(picked), p.preprocess, parts, most=MOST,
                workers=p.recipe.workers, precision=p.precision,
            )
        )  # fmt: skip
    first, other = kept
    values = np.array([[linear_cka(a, b) for b in other.values()] for a in first.values()])
    out = view.figure("similarity", more=second.name)
    figures.draw_alike(
        values, list(first), list(other), out,
        f"How alike two networks see {len(picked):,} images of {split}", (view.name, second.name),
    )  # fmt: skip
    return SimilarityResult(
        other=str(second.run),
        n=len(picked),
        rows=list(first),
        columns=list(other),
        cka=values.tolist(),
        **view.source(),
    )
