"""Proves a certificate: measures again what it says of a run or an exported file."""

from pathlib import Path

import torch
from torch import Tensor

from alexnet.errors import CheckpointError, DataError
from alexnet.evaluation_set import open_evaluation_set
from alexnet.interchange import certificate as certificates
from alexnet.interchange.end_to_end import EndToEnd, Function
from alexnet.interchange.export_check import OnnxNet
from alexnet.interchange.held_out import tally_scores
from alexnet.predictor import load
from alexnet.recipe import Recipe
from alexnet.records import Certificate, CertificateCheck, DataCard, ProofResult
from alexnet.runs.rundir import RunDir, read_recipe
from alexnet.runs.weights import SIZE_LIMIT, read_weights
from alexnet.support.files import read_bytes
from alexnet.support.options import option
from alexnet.support.terminal import percent
from alexnet.training.network import build_net


def prove(path: str | Path, *, data: str | Path | None = None) -> ProofResult:
    """Checks a run, an export or an exported folder against its certificate.

    The sha256 of the weights and the logits of the probes always; the claimed top-1 where the
    images are at hand (`data`, or those of the run). Returns a ProofResult: whether it `holds`, by
    which `checks`, and what was `skipped` and why.
    """
    file = Path(path)
    made = certificates.read_certificate(file)
    recipe, skipped = certificates.certified_recipe(made), list[str]()
    checks, scores = _network(file, made, recipe, skipped)
    if scores is not None:
        checks += _figures(file, made, recipe, scores, data, skipped)
    return ProofResult(
        certificate=str(certificates.certificate_path(file)),
        holds=all(check.ok for check in checks),
        checks=checks,
        skipped=skipped,
        claimed={split: figures.to_json() for split, figures in made.metrics.items()},
    )


@torch.inference_mode()
def _network(
    file: Path, made: Certificate, recipe: Recipe, skipped: list[str]
) -> tuple[list[CertificateCheck], Function | None]:
    """The checks of weights and logits, and the function from stored images to scores, if the file
    has one."""
    takes = made.probes.takes
    run: Function
    if (file / "recipe.json").is_file():
        predictor = load(file, f"step-{made.step}")
        network = EndToEnd(predictor.model.cpu(), predictor.preprocess)
        claims: tuple[tuple[str, object, object], ...] = (
            ("recipe", recipe.digest, predictor.recipe.digest),
            ("classes", list(made.classes), list(predictor.classes)),
        )
        checks = [
            CertificateCheck(name=name, ok=own == claimed, evidence=f"of the run: {own}")
            for name, claimed, own in claims
        ]
        checks.append(certificates.check_sha256(made, predictor.checkpoint / "model.safetensors"))
        preprocess, run = predictor.preprocess, network.logits
    else:
        content = file / "model.safetensors" if file.is_dir() else file
        wanted = made.preprocessing.mean_image
        image = RunDir(file).mean_image() if file.is_dir() and wanted else None
        preprocess = certificates.certified_preprocess(made, image)
        checks = [certificates.check_sha256(made, content)]
        if not checks[0].ok:
            return checks, None
        if file.suffix == ".pt2":
            skipped.append(
                "logits: torch.export's files are unpickled when read, which may run code"
            )
            return checks, None
        if file.suffix == ".onnx":
            net = OnnxNet(read_bytes(content, SIZE_LIMIT), str(file))
            run = (lambda x: net(x).log()) if takes == "images" else net
        else:
            model = build_net(recipe, len(made.classes)).eval()
            try:
                model.load_state_dict(read_weights(content))
            except RuntimeError:
                raise CheckpointError(
                    f"{content}: not the weights of {recipe.model}, which its certificate names"
                ) from None
            run = EndToEnd(model, preprocess).logits if takes == "images" else model
    checks.append(
        certificates.check_logits(made, run(certificates.draw_probe_images(preprocess, takes)))
    )
    if takes == "images":
        return checks, run
    if preprocess.rule in ("image", "centre"):
        skipped.append("accuracy: the mean image is not in this file: prove the run")
        return checks, None

    def scores(images: Tensor) -> Tensor:
        return run(preprocess.views(images, 1)[0].contiguous())

    return checks, scores


def _figures(
    file: Path,
    made: Certificate,
    recipe: Recipe,
    scores: Function,
    data: str | Path | None,
    skipped: list[str],
) -> list[CertificateCheck]:
    claims = {split: m for split, m in made.metrics.items() if split in ("val", "test")}
    if not claims:
        skipped.append("accuracy: none is claimed")
        return []
    split = "test" if "test" in claims else "val"
    claim, classes = claims[split], made.classes
    described = DataCard(
        kind=made.data.kind,
        classes=classes,
        digest=made.data.digest or "",
        mean=made.preprocessing.mean,
        std=made.preprocessing.std,
    )
    run = None
    if (file / "recipe.json").is_file():
        run = RunDir(file)
        described = read_recipe(run)[1]
    elif data is None and described.kind != "digits":
        skipped.append(f"accuracy on {split}: name the images with {option('data')}")
        return []
    try:
        tested = open_evaluation_set(recipe, described, data, run=run, default=split)
    except DataError as error:
        if data is not None:
            raise
        skipped.append(f"accuracy on {split}: {error}")
        return []
    measured = tally_scores(scores, tested.images, len(classes)).figures()
    if claim.top1 is None or claim.top1_ci95 is None or claim.n is None:
        skipped.append(f"accuracy on {split}: none is claimed")
        return []
    low, high = claim.top1_ci95
    evidence = (
        f"{percent(measured.top1)} of {measured.n:,} in fp32, claimed {percent(claim.top1)} "
        f"({percent(low)} to {percent(high)}, n {claim.n:,}"
        f"{f', in {kind}' if (kind := claim.precision) else ''})"
    )
    if not tested.own:  # a figure of other images is held against the claim, and says so
        evidence += f"; on other images than were claimed: {'; '.join(tested.notes())}"
    return [
        CertificateCheck(
            name=f"top-1 on {split}", ok=low <= measured.top1 <= high, evidence=evidence
        )
    ]
