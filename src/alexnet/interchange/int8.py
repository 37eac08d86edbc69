"""A run's network in int8: its ranges, measured on held-out images, held against the network and
kept in the run, of each checkpoint that was asked for."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.slices import Slice
from alexnet.errors import CheckpointError, DataError, Differs
from alexnet.evaluation_set import EvaluationSet, open_evaluation_set
from alexnet.files import read_json, sha256_of, write_json
from alexnet.interchange.heldout import BATCH, some_of
from alexnet.interchange.quantise import calibration_of
from alexnet.metrics import wilson
from alexnet.predictor import Predictor
from alexnet.terminal import percent, progress, say
from alexnet.training.int8 import Int8, Ranges, measure_ranges, require_int8

NAME = "int8.json"
REMEDY = "delete it, and it is made anew"
FORMAT = 2  # of the file; what another says is measured anew
HELD = 1000  # images at most that it is held against the network on
LOST = 0.01  # of them that may be wrong in int8 and right before, net, or one image
FEW = 100  # below which a figure is worth a warning
ALIKE = 0.9  # of them that both must answer alike, right or wrong


def int8_of(predictor: Predictor, data: str | Path | None = None) -> Int8:
    """The network in int8, by the ranges that the run has of this checkpoint, measured where it has
    none: on images held out of train, of the run's data or of `data`.

    Raises Differs where more than LOST of other held-out images are lost by it, or fewer than ALIKE
    are answered as before.
    """
    require_int8()
    path = predictor.run.path / NAME
    weights = sha256_of(predictor.checkpoint / "model.safetensors")
    known = _known(path)
    if weights in known:
        return Int8(predictor.model, _ranges(known[weights], path))
    try:
        held_out = _held_out(predictor, data)
        calibration_of(held_out.images)
    except DataError as error:
        if data is not None:
            raise
        words = ["alexnet", "test", str(predictor.run.path), "--engine", "int8"]
        words += ["--checkpoint", predictor.checkpoint.name]
        raise DataError(
            f"int8 needs held-out images to be measured on once: {error} "
            f"(`{shlex.join(words)} --data DIR` names others)"
        ) from None
    ranges, found = held_out.around(lambda images: _measured(predictor, images))
    net = Int8(predictor.model, ranges)
    low, high = found["top1_ci95"]
    say(
        f"int8: {percent(found['top1'])} right of {found['n']:,} held-out images "
        f"({percent(low)} to {percent(high)}), {percent(found['network_top1'])} as it was; "
        f"{percent(found['same'])} alike"
    )
    if found["n"] < FEW:
        say(f"warning: {found['n']:,} images tell little of what int8 loses; --data names more")
    try:
        row = {**found, "ranges": ranges, "sha256": _digest(ranges)}
        known = _known(path) | {weights: row}
        write_json(path, {"format": FORMAT, "checkpoints": known})
    except CheckpointError as error:
        say(f"warning: measured, but not kept: {error}")
    return net


def _held_out(predictor: Predictor, data: str | Path | None) -> EvaluationSet:
    """Of the run's own data; where that is not here, of `data`."""
    p = predictor
    try:
        return open_evaluation_set(p.recipe, p.data, None, "val", run=p.run)
    except DataError:
        if data is None:
            raise
        return open_evaluation_set(p.recipe, p.data, data, run=p.run, default="val")


def _measured(predictor: Predictor, part: Slice) -> tuple[Ranges, dict[str, Any]]:
    """Ranges of held-out images, and what a network of them loses on others."""
    chosen = calibration_of(part)
    ranges = measure_ranges(predictor.model, _batches(predictor, part, chosen))
    return ranges, _held_against(Int8(predictor.model, ranges), predictor, part, chosen)


def _batches(predictor: Predictor, part: Slice, ids: NDArray[np.int64]) -> Any:
    """Preprocessed images (BATCH, C, crop, crop) of a slice, with their labels left out."""
    with progress(f"measuring int8 on {part.name}", len(ids), "images") as bar:
        for start in range(0, len(ids), BATCH):
            images = torch.from_numpy(part.read(ids[start : start + BATCH]))
            yield predictor.preprocess.views(images, 1)[0]
            bar.advance(len(images))


@torch.inference_mode()
def _held_against(
    net: Int8, predictor: Predictor, part: Slice, chosen: NDArray[np.int64]
) -> dict[str, Any]:
    """Both networks' top-1 of held-out images that no range is from, and how many are alike."""
    others = np.setdiff1d(np.arange(len(part)), chosen)
    others = others[some_of(part.take(others), HELD)]
    said: list[list[torch.Tensor]] = [[], []]
    for images in _batches(predictor, part, others):
        for one, answers in zip((predictor.model, net), said, strict=True):
            answers.append(one(images).argmax(1))
    labels = torch.from_numpy(part.labels[others])
    before, after = (torch.cat(answers) for answers in said)
    right, n = [int((answers == labels).sum()) for answers in (before, after)], len(others)
    if right[0] - right[1] > max(LOST * n, 1):
        raise Differs(
            f"int8 has {right[1]:,} of {n:,} held-out images right, and the network "
            f"{right[0]:,}: it loses more than {100 * LOST:g} %; use --engine torch"
        )
    alike = int((before == after).sum())
    if alike < ALIKE * n:
        raise Differs(
            f"int8 answers {alike:,} of {n:,} held-out images as the network does, fewer than "
            f"{100 * ALIKE:g} %: use --engine torch"
        )
    return {
        "calibration_images": len(chosen),
        "split": part.name,
        "n": n,
        "top1": right[1] / n,
        "top1_ci95": list(wilson(right[1], n)),
        "network_top1": right[0] / n,
        "same": alike / n,
    }


def _known(path: Path) -> dict[str, Any]:
    """What the file says of checkpoints, by their weights' digests."""
    if not path.exists():
        return {}
    try:
        read = read_json(path)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).split(';')[0]}; {REMEDY}") from None
    known = read.get("checkpoints") if read.get("format") == FORMAT else {}
    if not isinstance(known, dict):
        raise CheckpointError(f"{path} is damaged: its checkpoints are no table; {REMEDY}")
    return known


def _ranges(known: Any, path: Path) -> Ranges:
    """What the file says of a checkpoint, where it is as it was written."""
    found = known.get("ranges") if isinstance(known, dict) else None
    if found is None or known.get("sha256") != _digest(found):
        raise CheckpointError(
            f"{path} is damaged: its ranges are not those that were measured; {REMEDY}"
        )
    return {name: (low, high) for name, (low, high) in found.items()}


def _digest(ranges: Any) -> str:
    return hashlib.sha256(json.dumps(ranges).encode()).hexdigest()
