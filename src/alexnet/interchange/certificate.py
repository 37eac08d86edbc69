"""What a file is said to be, in one small JSON: what it was made from, and how to see that it is.

A run has `certificate.json`; an export has one beside it, FILE.certificate.json, or inside its
folder. It names the network, classes, preprocessing, recipe and data, the figures that are
claimed, the sha256 of the weights, and the logits of four images that a rule draws, so that
anybody has them.
"""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet.data import draws, fetch
from alexnet.data.augment import Preprocess
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError
from alexnet.files import read_json, sha256_of, write_json
from alexnet.interchange.chain import Chain
from alexnet.predictor import Predictor
from alexnet.recipe import Recipe
from alexnet.recipebook.again import recorded_call
from alexnet.runs.records import (
    Certificate,
    CertificateCheck,
    CertifiedData,
    CertifiedPreprocessing,
    CertifiedTraining,
    ClaimedFigures,
    ClaimedTest,
    ClaimedVal,
    Misfit,
    NetworkDescription,
    ProbeOutputs,
    ResumeEvent,
    RunCall,
    RunStart,
    TestEvent,
    ValEvent,
)
from alexnet.training.network import preprocessing

Takes = Literal["images", "tensors"]

FORMAT = 1
NAME = "certificate.json"
PROBES = 4
TOLERANCE = 1e-3  # of the largest logit, or of 1: what processors and precisions differ by
QUANTISED = 0.1  # the same for int8, which processors round differently


def describe(predictor: Predictor) -> NetworkDescription:
    """Where a network comes from and what it takes: for metadata, cards and certificates."""
    data, preprocess = predictor.data, predictor.preprocess
    return NetworkDescription(
        model=predictor.recipe.model,
        classes=predictor.classes,
        preprocessing=CertifiedPreprocessing(
            size=preprocess.size,
            crop=preprocess.crop,
            channels=preprocess.channels,
            orient=predictor.recipe.orient,
            normalize=preprocess.rule,
            mean=data.mean,
            std=data.std,
            mean_image=data.mean_image,
        ),
        recipe=predictor.recipe.to_dict(),
        recipe_digest=predictor.recipe.digest,
        data=CertifiedData(
            kind=data.kind, digest=data.digest, counts=data.counts, splits=data.splits
        ),
        metrics=_metrics(predictor),
        step=int(predictor.checkpoint.name.removesuffix(".old").removeprefix("step-")),
        training=_training(predictor),
    )


def _training(predictor: Predictor) -> CertifiedTraining:
    """What beside recipe and data made the weights: the call, the machine, and the weights that it
    began with. No path of this machine: of files the name alone. Of imported weights their origin.
    """
    run, data = predictor.run, predictor.data
    saved, place = run.recipe, run.path / "environment.json"
    environment = read_json(place) if place.is_file() else {}
    init = RunStart.from_json(saved, str(run.path / "recipe.json")).init
    if init is not None and not init.path.startswith("hf:"):
        init = replace(init, path=Path(init.path).name)
    made = CertifiedTraining(
        weights=sha256_of(predictor.checkpoint / "model.safetensors"), init=init
    )
    if data.kind == "imported":
        return made
    events = run.events()
    cached = {str((fetch.cache_dir() / name).absolute()): name for name in fetch.PUBLISHED_SETS}
    return replace(
        made,
        call=RunCall(**asdict(recorded_call(saved, environment, events))),
        machine={key: environment.get(key) for key in ("cpu", "gpu", "packages")},
        changed=[e for e in events if isinstance(e, ResumeEvent) and e.changed],
        data=cached.get(data.path, "") if data.path else data.kind,
    )


def _metrics(predictor: Predictor) -> dict[str, ClaimedFigures]:
    """The last figures that were measured of this checkpoint on validation and on test."""
    found: dict[str, ClaimedFigures] = {}
    step, trained = predictor.checkpoint.name, predictor.recipe.precision
    for event in predictor.run.events():
        if isinstance(event, ValEvent) and f"step-{event.step}" == step:
            found["val"] = ClaimedVal(
                top1=event.top1,
                top1_ci95=event.top1_ci95,
                top5=event.top5,
                top5_ci95=event.top5_ci95,
                loss=event.loss,
                n=event.n,
                precision=trained,
            )
        if not isinstance(event, TestEvent) or Path(event.checkpoint).name != step:
            continue
        # Of other data than the run's own, or of another runtime, a figure claims something else.
        own = event.data == predictor.trained_on
        if own and event.engine == "torch" and not event.with_seen:
            found[event.split] = ClaimedTest(
                top1=event.top1,
                top1_ci95=event.top1_ci95,
                top5=event.top5,
                top5_ci95=event.top5_ci95,
                loss=event.loss,
                n=event.n,
                split=event.split,
                views=event.views,
                seen=event.seen,
                near_seen=event.near_seen,
                repeated=event.repeated,
                precision=event.precision_of(trained),
            )
    return found


def certify(
    described: NetworkDescription, sha256: str, takes: Takes, logits: Tensor, tolerance: float
) -> Certificate:
    """The certificate of a file. `takes` is "images" (stored, uint8) or "tensors" (preprocessed);
    logits (PROBES, K) are what it makes of the probes, up to a constant an image."""
    probes = ProbeOutputs(
        takes=takes,
        count=PROBES,
        logits=[[round(x, 6) for x in row] for row in logits.tolist()],
        tolerance=tolerance,
    )
    return Certificate(format=FORMAT, **described.by_field(), sha256=sha256, probes=probes)


def certify_run(predictor: Predictor) -> Certificate:
    """The certificate of a run's checkpoint, written into the run."""
    probes = draw_probe_images(predictor.preprocess, "images")
    weights = predictor.checkpoint / "model.safetensors"
    logits = run_logits(predictor, probes)
    made = certify(describe(predictor), sha256_of(weights), "images", logits, TOLERANCE)
    write_json(predictor.run.path / NAME, made)
    return made


@torch.inference_mode()
def run_logits(predictor: Predictor, images: Tensor) -> Tensor:
    """A run's logits of stored images, in fp32 whatever its recipe says. (N, K), on the CPU."""
    device = next(predictor.model.parameters()).device
    chain = Chain(predictor.model, predictor.preprocess).to(device)
    return chain.logits(images.to(device)).cpu()


def draw_probe_images(preprocess: Preprocess, takes: Takes) -> Tensor:
    """The images of a rule: squares of drawn greys or colours, an eighth of a side each.

    "images": uint8 (PROBES, size, size, C). "tensors": float32 (PROBES, C, crop, crop), the same
    at the crop's size, less the channels' mean and, where the rule says so, by their deviation.
    """
    side = preprocess.size if takes == "images" else preprocess.crop
    count = PROBES * 64 * preprocess.channels
    levels = draws.uniform(0, 0, np.arange(count), draws.PROBE).reshape(PROBES, 8, 8, -1)
    place = np.arange(side) * 8 // side
    pixels = torch.from_numpy((levels[:, place][:, :, place] * 256).astype(np.uint8))
    if takes == "images":
        return pixels
    rule = "mean" if preprocess.rule in ("image", "centre") else preprocess.rule
    plain = Preprocess(side, side, preprocess.channels, preprocess.statistics, rule)
    return plain.views(pixels, 1)[0].contiguous()


def place_of(path: Path) -> Path:
    """Where the certificate of a run, an export or an exported folder is."""
    return path / NAME if path.is_dir() else path.with_name(f"{path.name}.{NAME}")


def read_certificate(path: Path) -> Certificate:
    """The certificate of a file or folder. CheckpointError where there is none, or it is none."""
    place = place_of(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder: name a run or an export")
    if not place.is_file():
        how = f"`alexnet test {path}` makes one" if path.is_dir() else "export the run again"
        raise CheckpointError(f"{path} has no certificate ({place.name}): {how}")
    found = read_json(place)
    if found.get("format") != FORMAT:
        raise CheckpointError(f"{place} says format {found.get('format')!r}, expected {FORMAT}")
    try:
        made = Certificate.read(found)
        recipe_of(made)
        logits = torch.tensor(made.probes.logits, dtype=torch.float32)
        good = logits.shape == (PROBES, len(made.classes)) and bool(logits.isfinite().all())
        good = good and 0 < made.probes.tolerance <= QUANTISED and bool(made.sha256)
    except (Misfit, KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        good = False
    if not good:
        raise CheckpointError(f"{place} is no certificate, or was edited: restore it from a copy")
    return made


def recipe_of(made: NetworkDescription) -> Recipe:
    """The recipe in a certificate; CheckpointError where its digest is another."""
    recipe = Recipe.from_dict(dict(made.recipe))
    if recipe.digest != made.recipe_digest:
        raise CheckpointError(
            f"the certificate's recipe was edited: its fields give the digest {recipe.digest}, "
            f"and it says {made.recipe_digest}"
        )
    return recipe


def preprocess_of(made: NetworkDescription, image: Tensor | None = None) -> Preprocess:
    """The preprocessing that a certificate describes; the mean image, where one is needed, comes
    from elsewhere."""
    said = made.preprocessing
    statistics = Statistics(tuple(said.mean), tuple(said.std), (), image)
    return preprocessing(recipe_of(made), statistics)


def check_logits(made: Certificate, found: Tensor) -> CertificateCheck:
    """Holds what a file makes of the probes, logits or logarithms of probabilities, against what
    its certificate says."""
    expected = torch.tensor(made.probes.logits, dtype=torch.float32)
    if found.shape != expected.shape:
        said = f"{tuple(found.shape)} outputs, {tuple(expected.shape)} expected"
        return CertificateCheck(name="logits", ok=False, evidence=said)
    one, other = (x - x.amax(1, keepdim=True) for x in (found, expected))
    seen = other > -60  # below that a float32 probability is cut
    apart = float(((one - other).abs() * seen).max())
    bound = made.probes.tolerance * max(float(expected.abs().max()), 1.0)
    evidence = f"{PROBES} probe images: {apart:.1e} apart, {bound:.1e} allowed"
    return CertificateCheck(name="logits", ok=apart <= bound, evidence=evidence)


def check_sha256(made: Certificate, content: Path) -> CertificateCheck:
    found = sha256_of(content)
    same = found == made.sha256
    evidence = f"sha256 {found[:16]}…" + ("" if same else f", expected {made.sha256[:16]}…")
    return CertificateCheck(name="weights", ok=same, evidence=f"{content.name}: {evidence}")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
