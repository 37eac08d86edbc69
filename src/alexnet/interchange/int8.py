"""A run's network in int8: its ranges, measured on held-out images, held against the network and
kept in the run, of each checkpoint that was asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.slices import Slice
from alexnet.engine.int8 import Int8, Ranges, measure_ranges
from alexnet.errors import CheckpointError, DataError, Differs
from alexnet.files import read_json, sha256_of, write_json
from alexnet.interchange.heldout import BATCH, open_split, some_of
from alexnet.interchange.quantise import calibration_of
from alexnet.metrics import wilson
from alexnet.predict import Predictor
from alexnet.terminal import progress, say

NAME = "int8.json"
FORMAT = 2  # of the file; what another says is measured anew
HELD = 1000  # images at most that it is held against the network on
LARGEST = 1e30  # of a range's ends
LOST = 0.01  # of them that may be wrong in int8 and right before, net, or one image
ALIKE = 0.9  # of them that both must answer alike, right or wrong


def int8_of(predictor: Predictor, data: str | Path | None = None) -> Int8:
    """The network in int8, by the ranges that the run has of this checkpoint, measured where it has
    none: on images held out of train, of the run's data or of `data`.

    Raises Differs where more than LOST of other held-out images are lost by it, or fewer than ALIKE
    are answered as before.
    """
    path = predictor.run.path / NAME
    weights = sha256_of(predictor.checkpoint / "model.safetensors")
    known = _known(path)
    if weights in known:
        return Int8(predictor.model, _ranges(known[weights], predictor, path))
    try:
        part = _held_out(predictor, data)
        chosen = calibration_of(part)
    except DataError as error:
        raise DataError(
            f"int8 needs held-out images to be measured on once: {error} "
            f"(`alexnet test {predictor.run.path} --engine int8 --data DIR` names others)"
        ) from None
    ranges = measure_ranges(predictor.model, _batches(predictor, part, chosen))
    net = Int8(predictor.model, ranges)
    found = _held_against(net, predictor, part, chosen)
    say(
        f"int8: {100 * found['top1']:.2f} % right of {found['n']:,} held-out images, "
        f"{100 * found['network_top1']:.2f} % as it was; {100 * found['same']:.2f} % alike"
    )
    try:
        known = _known(path) | {weights: {**found, "ranges": ranges}}
        write_json(path, {"format": FORMAT, "checkpoints": known})
    except CheckpointError as error:
        say(f"warning: measured, but not kept: {error}")
    return net


def _held_out(predictor: Predictor, data: str | Path | None) -> Slice:
    """Of the run's own data; where that is not here, of `data`."""
    own = (predictor.recipe, predictor.data, predictor.classes)
    try:
        return open_split(*own, None, "val")
    except DataError:
        if data is None:
            raise
        return open_split(*own, data, "val")


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
        raise _damaged(path, str(error).split(";")[0]) from None
    known = read.get("checkpoints") if read.get("format") == FORMAT else {}
    if not isinstance(known, dict):
        raise _damaged(path, "its checkpoints are no table")
    return known


def _ranges(known: Any, predictor: Predictor, path: Path) -> Ranges:
    """What the file says of a checkpoint, where every part has its two numbers."""
    found = known.get("ranges") if isinstance(known, dict) else None
    if isinstance(found, dict) and list(found) == list(predictor.model.parts):
        pairs = {name: ends for name, ends in found.items() if _is_range(ends)}
        if len(pairs) == len(found):
            return {name: (float(low), float(high)) for name, (low, high) in pairs.items()}
    raise _damaged(path, f"its ranges are not those of {predictor.recipe.model}")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}; delete it, and it is made anew")


def _is_range(ends: Any) -> bool:
    numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
    if not numbers or len(ends) != 2 or not all(abs(end) < LARGEST for end in ends):
        return False
    return bool(ends[0] == ends[1] or ends[1] - ends[0] > 1 / LARGEST)
