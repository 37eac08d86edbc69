"""alexnet inspect: pictures of a run, and its features."""

import inspect as python
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alexnet.commands import featuring, inside, outcome
from alexnet.commands.view import View
from alexnet.errors import UsageError, did_you_mean
from alexnet.runs.records import InspectResult
from alexnet.runtime import chance_kept

WHATS: dict[str, Callable[..., InspectResult]] = {
    "filters": inside.filters,
    "activations": inside.activations,
    "neighbors": inside.neighbors,
    "predictions": outcome.predictions,
    "mistakes": outcome.mistakes,
    "saliency": inside.saliency,
    "confusion": outcome.confusion,
    "calibration": outcome.calibration,
    "curves": outcome.curves,
    "data": outcome.data,
    "features": featuring.features,
    "probe": featuring.probe,
    "similarity": featuring.similarity,
}
"""Each is a function of a view, of images or other runs, and of the options it takes."""


SILENT = ("filters", "curves", "data")  # that show no answer of the network
EXACT = ("saliency", "features")  # that are computed in fp32 whatever the run was trained in


@chance_kept()
def inspect(
    run: str | Path,
    what: str,
    items: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    checkpoint: str = "best",
    ignore_unknown: bool = False,
    with_seen: bool = False,
    precision: str = "auto",
    **options: Any,
) -> InspectResult:
    """Draws what a run has learnt, or writes its features.

    `what` is one of filters, activations, neighbors, predictions, mistakes, saliency, confusion,
    calibration, curves, data, features, probe and similarity; `items` are images, or for curves
    and similarity other runs. `data` is where the run's data is now, or other labelled images:
    those are never cut, `ignore_unknown` and `with_seen` are as for `test`. `options` are those of
    the what: split (of the run's data train, val or test, default val, so that test is read only
    where it is asked for; of others a part, or all), part, count, metric, method, label, top,
    channels. `precision` is of the network's answers: auto, fp32 or bf16. Returns a record of
    its own for each what, as MistakesResult, with the pictures made and the figures they show.
    """
    if what not in WHATS:
        raise UsageError(f"cannot inspect {what!r}{did_you_mean(what, WHATS)}")
    show = WHATS[what]
    takes = [name for name in python.signature(show).parameters if name != "view"]
    given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    if items:
        kind = next((name for name in ("images", "others") if name in takes), None)
        if kind is None:
            raise UsageError(f"inspect {what} takes no {str(items[0])!r}: leave it out")
        given[kind] = [str(item) for item in items]
    for name in given:
        if name not in takes:
            flags = ", ".join(f"--{n}" for n in takes if n not in ("images", "others"))
            raise UsageError(
                f"inspect {what} takes no --{name}" + (f": it takes {flags}" if flags else "")
            )
    for name in ("count", "top"):
        if name in given and not 1 <= given[name] <= 10_000:
            raise UsageError(f"--{name} {given[name]}: 1 to 10,000")
    path = None if out is None else Path(out).expanduser()
    if path is not None and what != "features" and path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--out {out}: a picture ends in .png or .svg")
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: {path.parent} is no folder: make it first")
    if precision == "bf16" and what in SILENT + EXACT:
        why = "is computed in fp32" if what in EXACT else "asks the network nothing"
        raise UsageError(f"--precision bf16: {what} {why}; leave it out")
    view = View(
        run, data, checkpoint, path, ignore_unknown=ignore_unknown, with_seen=with_seen,
        precision="fp32" if what in EXACT else precision,
    )  # fmt: skip
    return view.around(lambda: show(view, **given))
