"""Certificates: a small JSON file with the origin of weights, and outputs that prove its content.

A run has a `certificate.json`. An export has one beside it, FILE.certificate.json, or in its
folder. It names the network, classes, preprocessing, recipe, data and figures. It has the sha256 of
the weights, and the logits of four images that a rule draws, so that anybody can draw them too.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from alexnet.data import draws, fetch
from alexnet.data.augment import Preprocess
from alexnet.data.statistics import Statistics
from alexnet.errors import CheckpointError
from alexnet.interchange.end_to_end import EndToEnd
from alexnet.predictor import Predictor
from alexnet.recipe import Recipe
from alexnet.records import (
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
    OtherFormat,
    ProbeOutputs,
    ResumeEvent,
    TestEvent,
    ValEvent,
)
from alexnet.runs.train_command import recorded_call
from alexnet.support.files import read_json, sha256_of, write_json
from alexnet.support.options import call
from alexnet.training.network import preprocessing

Takes = Literal["images", "tensors"]

CERTIFICATE_FILE = "certificate.json"
PROBE_COUNT = 4
# Relative to the largest logit, or to 1 where that is larger:
TOLERANCE = 1e-3  # between processors and precisions
INT8_TOLERANCE = 0.1  # the same for int8, which processors round differently


def describe_network(predictor: Predictor) -> NetworkDescription:
    """The origin of a network and the input it expects: for metadata, cards and certificates."""
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
    """The conditions beside recipe and data that determined the weights: the call, the machine, and
    the initial weights. For imported weights, their origin alone. Files appear by name, without the
    paths of this machine."""
    run, data = predictor.run, predictor.data
    environment, start = run.environment(), run.start()
    init = start.init
    if init is not None and not init.path.startswith("hf:"):
        init = replace(init, path=Path(init.path).name)
    training = CertifiedTraining(
        weights=sha256_of(predictor.checkpoint / "model.safetensors"), init=init
    )
    if data.kind == "imported":
        return training
    events = run.events()
    cached = {str((fetch.cache_dir() / name).absolute()): name for name in fetch.PUBLISHED_SETS}
    return replace(
        training,
        call=recorded_call(start, environment, events),
        machine=environment.machine(),
        changed=[e for e in events if isinstance(e, ResumeEvent) and e.changed],
        data=cached.get(data.path, "") if data.path else data.kind,
    )


def _metrics(predictor: Predictor) -> dict[str, ClaimedFigures]:
    """The latest figures of this checkpoint, by split."""
    metrics: dict[str, ClaimedFigures] = {}
    checkpoint, trained = predictor.checkpoint.name, predictor.recipe.precision
    for event in predictor.run.events():
        if isinstance(event, ValEvent) and f"step-{event.step}" == checkpoint:
            metrics["val"] = ClaimedVal(
                top1=event.top1,
                top1_ci95=event.top1_ci95,
                top5=event.top5,
                top5_ci95=event.top5_ci95,
                loss=event.loss,
                n=event.n,
                precision=trained,
            )
        if not isinstance(event, TestEvent) or Path(event.checkpoint).name != checkpoint:
            continue
        # Figures on other data, or of another runtime, are no figures of this network.
        own_data = event.data == predictor.trained_on
        if own_data and event.engine == "torch" and not event.with_seen:
            metrics[event.split] = ClaimedTest(
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
    return metrics


def certify(
    description: NetworkDescription, sha256: str, takes: Takes, logits: Tensor, tolerance: float
) -> Certificate:
    """The certificate of a file.

    `takes` is "images" (stored, uint8) or "tensors" (preprocessed). `logits` (PROBE_COUNT, K) are
    its outputs for the probe images, up to a constant for each image.
    """
    probes = ProbeOutputs(
        takes=takes,
        count=PROBE_COUNT,
        logits=[[round(logit, 6) for logit in row] for row in logits.tolist()],
        tolerance=tolerance,
    )
    return Certificate(
        format=Certificate.FORMAT, **description.by_field(), sha256=sha256, probes=probes
    )


def certify_run(predictor: Predictor) -> Certificate:
    """Write the certificate of a run's checkpoint into the run."""
    images = draw_probe_images(predictor.preprocess, "images")
    sha256 = sha256_of(predictor.checkpoint / "model.safetensors")
    logits = run_logits(predictor, images)
    certificate = certify(describe_network(predictor), sha256, "images", logits, TOLERANCE)
    write_json(predictor.run.path / CERTIFICATE_FILE, certificate)
    return certificate


@torch.inference_mode()
def run_logits(predictor: Predictor, images: Tensor) -> Tensor:
    """A run's logits for stored images: (N, K), on the CPU, in fp32 also for a recipe in bf16."""
    device = next(predictor.model.parameters()).device
    network = EndToEnd(predictor.model, predictor.preprocess).to(device)
    return network.logits(images.to(device)).cpu()


def draw_probe_images(preprocess: Preprocess, takes: Takes) -> Tensor:
    """Draw the probe images: eight by eight squares of random greys or colours.

    "images": uint8 (PROBE_COUNT, size, size, C). "tensors": float32 (PROBE_COUNT, C, crop, crop),
    the same at the size of the crop, minus the channels' mean and, where the rule says so, divided
    by their standard deviation.
    """
    side = preprocess.size if takes == "images" else preprocess.crop
    count = PROBE_COUNT * 64 * preprocess.channels
    levels = draws.uniform(0, 0, np.arange(count), draws.PROBE).reshape(PROBE_COUNT, 8, 8, -1)
    square = np.arange(side) * 8 // side  # the square of each row and column of pixels
    pixels = torch.from_numpy((levels[:, square][:, :, square] * 256).astype(np.uint8))
    if takes == "images":
        return pixels
    rule = "mean" if preprocess.rule in ("image", "centre") else preprocess.rule
    uncropped = Preprocess(side, side, preprocess.channels, preprocess.statistics, rule)
    return uncropped.views(pixels, 1)[0].contiguous()


def certificate_path(path: Path) -> Path:
    """The path of the certificate of a run, an exported file or an exported folder."""
    if path.is_dir():
        return path / CERTIFICATE_FILE
    return path.with_name(f"{path.name}.{CERTIFICATE_FILE}")


def read_certificate(path: Path) -> Certificate:
    """Read the certificate of a file or folder. Raises CheckpointError where there is none, or
    where it was edited."""
    file = certificate_path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder: name a run or an export")
    if not file.is_file():
        how = f"`{call('test', path)}` makes one" if path.is_dir() else "export the run again"
        raise CheckpointError(f"{path} has no certificate ({file.name}): {how}")
    values = read_json(file)
    try:
        certificate = Certificate.read(values)
        certified_recipe(certificate)
        logits = torch.tensor(certificate.probes.logits, dtype=torch.float32)
        is_valid = (
            logits.shape == (PROBE_COUNT, len(certificate.classes))
            and bool(logits.isfinite().all())
            and 0 < certificate.probes.tolerance <= INT8_TOLERANCE
            and bool(certificate.sha256)
        )
    except OtherFormat as misfit:
        raise CheckpointError(
            f"{file} says format {misfit.value!r}, expected {misfit.expected}: use the version of "
            "alexnet that wrote it"
        ) from None
    except (Misfit, KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        is_valid = False
    if not is_valid:
        raise CheckpointError(f"{file} is no certificate, or was edited: restore it from a copy")
    return certificate


def certified_recipe(certificate: NetworkDescription) -> Recipe:
    """The recipe in a certificate. Raises CheckpointError where its digest does not fit."""
    recipe = Recipe.from_dict(dict(certificate.recipe))
    if recipe.digest != certificate.recipe_digest:
        raise CheckpointError(
            f"the certificate's recipe was edited: its fields give the digest {recipe.digest}, "
            f"and it says {certificate.recipe_digest}: restore it from a copy"
        )
    return recipe


def certified_preprocess(
    certificate: NetworkDescription, mean_image: Tensor | None = None
) -> Preprocess:
    """The preprocessing in a certificate. The mean image is in another file, so the caller reads
    it, where the rule needs one."""
    images = certificate.preprocessing
    statistics = Statistics(tuple(images.mean), tuple(images.std), (), mean_image)
    return preprocessing(certified_recipe(certificate), statistics)


def check_logits(certificate: Certificate, outputs: Tensor) -> CertificateCheck:
    """Compare a file's outputs for the probe images, logits or log probabilities, with those in
    its certificate."""
    expected = torch.tensor(certificate.probes.logits, dtype=torch.float32)
    if outputs.shape != expected.shape:
        evidence = f"{tuple(outputs.shape)} outputs, {tuple(expected.shape)} expected"
        return CertificateCheck(name="logits", ok=False, evidence=evidence)
    # Logits and log probabilities differ by a constant for each image.
    ours, theirs = (x - x.amax(1, keepdim=True) for x in (outputs, expected))
    is_comparable = theirs > -60  # smaller probabilities are cut in float32
    difference = float(((ours - theirs).abs() * is_comparable).max())
    bound = certificate.probes.tolerance * max(float(expected.abs().max()), 1.0)
    evidence = f"{PROBE_COUNT} probe images: {difference:.1e} apart, {bound:.1e} allowed"
    return CertificateCheck(name="logits", ok=difference <= bound, evidence=evidence)


def check_sha256(certificate: Certificate, content: Path) -> CertificateCheck:
    """Compare the sha256 of a file with that in its certificate."""
    sha256 = sha256_of(content)
    is_same = sha256 == certificate.sha256
    expected = "" if is_same else f", expected {certificate.sha256[:16]}…"
    return CertificateCheck(
        name="weights", ok=is_same, evidence=f"{content.name}: sha256 {sha256[:16]}…{expected}"
    )
