"""A run's network in int8: ranges measured on held-out images, checked, and saved in the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.splits import Split
from alexnet.errors import CheckpointError, DataError, Differs
from alexnet.evaluation_set import EvaluationSet, open_evaluation_set
from alexnet.interchange.held_out import BATCH_SIZE, spread_indices
from alexnet.interchange.quantise import calibration_indices
from alexnet.metrics import wilson
from alexnet.predictor import Predictor
from alexnet.records import (
    Int8Entry,
    Int8Figures,
    Int8File,
    Int8Ranges,
    Misfit,
    OtherFormat,
)
from alexnet.support.files import read_json, sha256_of, write_json
from alexnet.support.options import DIR, call, option
from alexnet.support.terminal import percent, progress, say
from alexnet.training.inference import Int8, Ranges, measure_ranges, require_int8

RANGES_FILE = "int8.json"
REMEDY = "delete it, and it is made anew"
MAX_TEST_IMAGES = 1000  # for the comparison with the network
MAX_LOSS = 0.01  # of top-1 accuracy by int8, or one image where that is more
MIN_AGREEMENT = 0.9  # fraction of the images that both must classify alike, right or wrong
FEW_IMAGES = 100  # below this number a warning says that the figures are uncertain


def load_int8(predictor: Predictor, data: str | Path | None = None) -> Int8:
    """A run's network in int8.

    Its ranges are read from the run. Where the run has none for this checkpoint, they are measured
    on held-out images of the run's data, or of `data`, and saved. Raises Differs where the accuracy
    drops by more than MAX_LOSS, or fewer than MIN_AGREEMENT of the images are classified alike.
    """
    require_int8()
    path = predictor.run.path / RANGES_FILE
    weights = sha256_of(predictor.checkpoint / "model.safetensors")
    checkpoints = _read_checkpoints(path)
    if weights in checkpoints:
        return Int8(predictor.model, _read_ranges(checkpoints[weights], path))
    try:
        held_out = _open_held_out(predictor, data)
        calibration_indices(held_out.images)
    except DataError as error:
        if data is not None:
            raise
        measure = call(
            "test",
            predictor.run.path,
            engine="int8",
            checkpoint=predictor.checkpoint.name,
            data=DIR,
        )
        raise DataError(
            f"int8 needs held-out images, to be measured on them once: {error} "
            f"(`{measure}` names others)"
        ) from None
    ranges, figures = held_out.around(lambda images: _measure(predictor, images))
    net = Int8(predictor.model, ranges)
    low, high = figures.top1_ci95
    say(
        f"int8: {percent(figures.top1)} right of {figures.n:,} held-out images "
        f"({percent(low)} to {percent(high)}), {percent(figures.network_top1)} before; "
        f"{percent(figures.same)} classified alike"
    )
    if figures.n < FEW_IMAGES:
        say(
            f"warning: {figures.n:,} images are too few to tell what int8 loses; "
            f"{option('data')} names more"
        )
    try:
        entry = Int8Entry(**figures.by_field(), ranges=ranges, sha256=Int8Entry.digest(ranges))
        checkpoints = {**_read_checkpoints(path), weights: entry}
        write_json(path, Int8File(format=Int8File.FORMAT, checkpoints=checkpoints))
    except CheckpointError as error:
        say(f"warning: int8 was measured, but not saved: {error}")
    return net


def _open_held_out(predictor: Predictor, data: str | Path | None) -> EvaluationSet:
    """Held-out images of the run's own data or, where that is missing, of `data`."""
    recipe, described, run = predictor.recipe, predictor.data, predictor.run
    try:
        return open_evaluation_set(recipe, described, None, "val", run=run)
    except DataError:
        if data is None:
            raise
        return open_evaluation_set(recipe, described, data, run=run, default="val")


def _measure(predictor: Predictor, part: Split) -> tuple[Ranges, Int8Figures]:
    """Measure ranges on one part of the held-out images, and their accuracy on the others."""
    calibration = calibration_indices(part)
    ranges = measure_ranges(predictor.model, _batches(predictor, part, calibration))
    return ranges, _compare(Int8(predictor.model, ranges), predictor, part, calibration)


def _batches(predictor: Predictor, part: Split, ids: NDArray[np.int64]) -> Any:
    """Preprocessed images of a slice: tensors (BATCH_SIZE, C, crop, crop)."""
    with progress(f"measuring int8 on {part.name}", len(ids), "images") as bar:
        for start in range(0, len(ids), BATCH_SIZE):
            images = torch.from_numpy(part.read(ids[start : start + BATCH_SIZE]))
            yield predictor.preprocess.views(images, 1)[0]
            bar.advance(len(images))


@torch.inference_mode()
def _compare(
    net: Int8, predictor: Predictor, part: Split, calibration: NDArray[np.int64]
) -> Int8Figures:
    """Top-1 of both networks on held-out images beside those for calibration, and the fraction of
    images that both classify alike."""
    ids = np.setdiff1d(np.arange(len(part)), calibration)
    ids = ids[spread_indices(part.take(ids), MAX_TEST_IMAGES)]
    answers: list[list[torch.Tensor]] = [[], []]
    for images in _batches(predictor, part, ids):
        for network, classes in zip((predictor.model, net), answers, strict=True):
            classes.append(network(images).argmax(1))
    labels = torch.from_numpy(part.labels[ids])
    of_network, of_int8 = (torch.cat(classes) for classes in answers)
    network_right, right = (int((c == labels).sum()) for c in (of_network, of_int8))
    n = len(ids)
    if network_right - right > max(MAX_LOSS * n, 1):
        raise Differs(
            f"int8 has {right:,} of {n:,} held-out images right, and the network "
            f"{network_right:,}: it loses more than {100 * MAX_LOSS:g} %; use "
            f"{option('engine', 'torch')}"
        )
    alike = int((of_network == of_int8).sum())
    if alike < MIN_AGREEMENT * n:
        raise Differs(
            f"int8 classifies {alike:,} of {n:,} held-out images as the network does, fewer than "
            f"{100 * MIN_AGREEMENT:g} %: use {option('engine', 'torch')}"
        )
    return Int8Figures(
        calibration_images=len(calibration),
        split=part.name,
        n=n,
        top1=right / n,
        top1_ci95=wilson(right, n),
        network_top1=network_right / n,
        same=alike / n,
    )


def _read_checkpoints(path: Path) -> Mapping[str, Any]:
    """The entries of the file by the digest of a checkpoint's weights. Ranges in another format are
    measured again."""
    if not path.exists():
        return {}
    try:
        values = read_json(path)
    except CheckpointError as error:
        raise CheckpointError(f"{str(error).split(';')[0]}; {REMEDY}") from None
    try:
        return Int8File.read(values).checkpoints
    except OtherFormat:
        return {}
    except Misfit:
        raise CheckpointError(
            f"{path} is damaged: its checkpoints are no table; {REMEDY}"
        ) from None


def _read_ranges(entry: Any, path: Path) -> Ranges:
    """The ranges of an entry of the file. Raises CheckpointError where their digest differs."""
    try:
        return dict(Int8Ranges.read(entry).ranges)
    except Misfit:
        raise CheckpointError(
            f"{path} is damaged: its ranges are not those that were measured; {REMEDY}"
        ) from None
