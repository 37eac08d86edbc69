"""alexnet export: a run's network in the format of others, verified before it is written."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from alexnet.data.splits import Split
from alexnet.errors import DataError, UsageError
from alexnet.evaluation_set import EvaluationSet, open_evaluation_set
from alexnet.interchange import certificate as certificates
from alexnet.interchange import hub
from alexnet.interchange.export_check import BATCHES, OnnxNet
from alexnet.interchange.formats import FORMATS, Exportable, Format
from alexnet.interchange.held_out import spread_readable_indices
from alexnet.interchange.quantise import calibration_indices, compare_quantised, quantise
from alexnet.predictor import Predictor, load
from alexnet.records import (
    ExportCheck,
    ExportResult,
    QuantisationFigures,
    QuantisationResult,
)
from alexnet.runtime import chance_kept
from alexnet.support.argument_checks import checked
from alexnet.support.files import write_atomic, write_json
from alexnet.support.options import Placeholder, option
from alexnet.support.terminal import say


@checked()
@chance_kept()
def export(
    run: str | Path,
    *,
    format: Format,
    out: str | Path,
    preprocess: bool = False,
    int8: bool = False,
    data: str | Path | None = None,
    checkpoint: str = "best",
    push: str | None = None,
    ignore_unknown: bool = False,
) -> ExportResult:
    """Writes a run's network as onnx, safetensors, torchvision or torch-export.

    The file is held against the network on held-out images of the run's data (or on images of
    `data` that it was not trained on; `ignore_unknown` as for `test`), 1, 5 and 64 at a time; where
    it computes something else nothing is written. With `preprocess` it takes stored images, uint8
    (N, size, size, C), and gives probabilities; else preprocessed
    float32 (N, C, crop, crop), and logits. `int8` quantises an ONNX file. `safetensors` writes the
    folder that Hugging Face's hub has, or one file where `out` is called so; `push` uploads the
    folder to OWNER/NAME. Beside the file comes its certificate.

    Returns an ExportResult: the files, on which images they were verified and how far apart the
    answers were at most, of `int8` the accuracies before and after, and where it was pushed.
    """
    target = Path(out)
    folder = format == "safetensors" and target.suffix != ".safetensors"
    if preprocess and format not in ("onnx", "torch-export"):
        raise UsageError(
            f"{option('preprocess', True)}: {format} holds weights alone; use "
            f"{option('format', 'onnx')}"
        )
    if int8 and format != "onnx":
        raise UsageError(
            f"{option('int8', True)}: {format} is not quantised; use {option('format', 'onnx')}"
        )
    if push and not folder:
        raise UsageError(
            f"{option('push')} uploads a folder: use {option('format', 'safetensors')} "
            f"{option('out', Placeholder('FOLDER'))}"
        )
    if push:
        hub.import_hub()
    if target.exists() and not folder:
        raise UsageError(f"{target} is there already: remove it or choose another {option('out')}")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no folder: make it or choose another {option('out')}")
    predictor = load(run, checkpoint)
    images, source = _images(predictor, data, int8, ignore_unknown)
    described = certificates.describe_network(predictor)
    subject = Exportable.of(
        predictor.model, predictor.preprocess, images, described.to_json(), preprocess
    )
    content, proof = FORMATS[format](subject)
    takes: certificates.Takes = "images" if preprocess or folder else "tensors"
    probes = certificates.draw_probe_images(predictor.preprocess, takes)
    tolerance = certificates.TOLERANCE
    if takes == "images":
        logits = certificates.run_logits(predictor, probes)
    else:
        with torch.inference_mode():
            logits = predictor.model(probes)
    quantised = None
    if int8:
        content, quantised = _quantised(predictor, content, preprocess, data, ignore_unknown)
        # The figures of other images are no claim about the run's own split.
        own = quantised.split if quantised.own else "other-data"
        described = replace(described, metrics={own: quantised.int8})
        logits = OnnxNet(content, "the int8 file")(probes)
        logits, tolerance = logits.log() if preprocess else logits, certificates.INT8_TOLERANCE
    digest = hashlib.sha256(content).hexdigest()
    made = certificates.certify(described, digest, takes, logits, tolerance)
    if folder:
        files = hub.write_folder(target, content, made, predictor.preprocess.statistics.image)
    else:
        write_atomic(target, content)
        write_json(certificates.certificate_path(target), made)
        files = [target, certificates.certificate_path(target)]
    return ExportResult(
        format=format,
        run=str(run),
        verified=ExportCheck(**proof.by_field(), images=source),
        int8=quantised,
        pushed=hub.push(target, push) if push else None,
        out=str(target),
        files=[str(file) for file in files],
        bytes=len(content),
    )


def _held_out(predictor: Predictor, data: str | Path | None, ignore_unknown: bool) -> EvaluationSet:
    """Images that it was not trained on: val of the run's data, or others."""
    held_out = open_evaluation_set(
        predictor.recipe, predictor.data, data, run=predictor.run,
        ignore_unknown=ignore_unknown, default="val",
    )  # fmt: skip
    for note in held_out.notes():
        say(note)
    return held_out


def _images(
    predictor: Predictor, data: str | Path | None, needed: bool, ignore_unknown: bool
) -> tuple[Tensor, str]:
    """Held-out images, or where the run's data is not here, drawn ones; and which they are."""
    try:
        part = _held_out(predictor, data, ignore_unknown).images
        images = torch.from_numpy(part.read(spread_readable_indices(part, BATCHES[-1])))
        return images, f"{len(images)} of {part.name}"
    except DataError as error:
        if needed or data is not None:
            raise
        say(
            f"warning: verified on drawn images, not on real ones ({option('data')} names them): "
            f"{error}"
        )
        return certificates.draw_probe_images(predictor.preprocess, "images"), "drawn"


def _quantised(
    predictor: Predictor,
    content: bytes,
    preprocess: bool,
    data: str | Path | None,
    ignore_unknown: bool,
) -> tuple[bytes, QuantisationResult]:
    held_out = _held_out(predictor, data, ignore_unknown)

    def inputs(images: Tensor) -> Tensor:
        return images if preprocess else predictor.preprocess.views(images, 1)[0].contiguous()

    def compared(part: Split) -> tuple[bytes, QuantisationFigures]:
        ids = calibration_indices(part)
        after = quantise(content, inputs(torch.from_numpy(part.read(ids))))
        return after, compare_quantised(content, after, part, ids, len(predictor.classes), inputs)

    after, figures = held_out.around(compared)
    if figures.int8.top1 < figures.fp32.top1_ci95[0]:
        say("warning: int8 loses more than the interval of fp32's top-1: compare before you use it")
    return after, QuantisationResult(
        **figures.by_field(), data=held_out.path, **held_out.figures().by_field()
    )
