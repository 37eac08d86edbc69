"""Diagnoses any network with any loader: measures both, and judges by the rules."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from alexnet.diagnosis.batches import BatchSample, fixed_permutation, sample_batches
from alexnet.diagnosis.findings import DataFindings, NetworkFindings
from alexnet.diagnosis.label_probe import probe_labels
from alexnet.diagnosis.modes import compare_modes, evaluation_mode
from alexnet.diagnosis.ranking import is_healthy, rank_by_cause
from alexnet.diagnosis.rules import find_faults
from alexnet.diagnosis.signal import Loss, cross_entropy, dead_activations, measure_signals
from alexnet.diagnosis.tensor_measures import rms
from alexnet.diagnosis.trial import Batch, run_rate_test, taken_back, try_steps
from alexnet.errors import UsageError
from alexnet.records import Diagnosis
from alexnet.support.argument_checks import Range, checked

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
TRIALS_END = 0.75  # of the time: when trial steps have to end
BATCH_SIZE = 32  # images that the network gets at a time
MAX_BATCHES = 16


@checked(classes=Range(1, 10**6), steps=Range(0), seconds=Range(0, 10**9), images=Range(1))
def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    val_loader: Iterable[Any] | None = None,
    loss: Loss = cross_entropy,
    classes: int | None = None,
    steps: int = 24,
    seconds: float = 60.0,
    images: int = 2000,
    warmup: bool = False,
) -> Diagnosis:
    """Says whether an image classifier will learn, or why it will not.

    `loader` yields batches of float images (N, C, H, W) and integer labels (N,), `val_loader` those
    of another split. The network maps images to logits (N, K). With an `optimizer` its learning
    rate is judged too. Up to `steps` steps are trained (0: none) and taken back: weights, optimiser
    and random state are afterwards what they were. It takes about `seconds` at most. With `warmup`
    the learning rate rises to that of the optimiser over half the steps; use it where the training
    has a warm-up.

    Returns a Diagnosis: whether the network is `healthy` (true, false, or None where that could not
    be told, and `unmeasured` says why), the `verdicts`, worst first, measurements of each of the
    `layers`, and all other `figures`.
    """
    started, val = time.monotonic(), None
    model = getattr(model, "module", model) if isinstance(model, WRAPPERS) else model
    model = getattr(model, "_orig_mod", model)  # the module that torch.compile wraps
    if any(is_lazy(p) for p in model.parameters()):
        raise UsageError(
            "the network has layers without a size: run one batch through it before diagnose"
        )
    with taken_back(model, optimizer), _restored_generators(loader, val_loader):
        train = sample_batches(loader, images=images, seconds=seconds / 6)
        if not train.n:
            raise UsageError("the loader yields no batch, so there is nothing to diagnose")
        if val_loader is not None:
            val = sample_batches(val_loader, images=images, seconds=seconds / 12)
        warmup = _set_peak_rates(optimizer) or warmup
        findings = DataFindings(train=train, val=val)
        batches = _trial_batches(train, model)
        if not batches:
            findings.unmeasured = "no two of the images read have the same size and finite pixels"
        else:
            findings = _measure_network(findings, model, optimizer, batches, loss)
        if isinstance(findings, NetworkFindings) and steps:
            deadline = started + TRIALS_END * seconds
            _measure_training(
                findings, model, optimizer, batches, loss,
                steps=steps, warmup=steps // 2 if warmup else 0, deadline=deadline,
            )  # fmt: skip
    findings.classes = classes or findings.classes or findings.label_range()[1] + 1
    findings.probe = probe_labels(train, val, findings.classes)
    verdicts = rank_by_cause(find_faults(findings))
    signals = findings.signals if isinstance(findings, NetworkFindings) else None
    layers = signals.described() if signals else []
    diagnosis = {
        "healthy": is_healthy(verdicts, findings.unmeasured),
        "unmeasured": findings.unmeasured,
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "layers": [layer.to_json() for layer in layers],
        "figures": findings.figures().to_json(),
        "seconds": round(time.monotonic() - started, 1),
    }
    return Diagnosis.from_json(_without_non_finite(diagnosis), "the diagnosis")


def _measure_network(
    data: DataFindings,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    batches: list[Batch],
    loss: Loss,
) -> DataFindings:
    """NetworkFindings without trial steps; `data` itself, with the reason, where labels do not fit.

    Each measurement starts from the network as it was, batch norms included.
    """
    x, y = batches[0]
    with taken_back(model, optimizer), torch.no_grad():
        data.classes = _count_outputs(model, x[:2])
    if data.classes == 1 and loss is not cross_entropy:
        raise UsageError(
            "the network has one output and a loss of its own, which cannot be diagnosed: give it "
            "two outputs and the cross-entropy"
        )
    labels = torch.cat([y for _, y in batches])
    low, high = int(labels.min()), int(labels.max())
    if high >= data.classes or low < 0:  # the loss cannot be computed
        data.unmeasured = (
            f"the labels go from {low} to {high}, but the network has {data.classes} output(s) and "
            "the cross-entropy needs one for each class: the network was not measured"
        )
        return data
    with taken_back(model, optimizer):
        signals = measure_signals(model, x, y, loss)
    normalised = data.train.normalise(x)
    with taken_back(model, optimizer), evaluation_mode(model), torch.no_grad():
        logits = model(x.clone()).float()
        own_loss, initial_cross_entropy = float(loss(logits, y)), float(cross_entropy(logits, y))
        normalised_logits = model(normalised).float()
    batch_norm_trains = evaluation_mode(model, batch_norm_trains=True)
    with taken_back(model, optimizer), batch_norm_trains, torch.no_grad():
        logits, others = model(x.clone()).float(), model(data.train.normalise(x)).float()
        normalising_effect = rms(logits - others) / max(rms(logits - logits.mean(0)), 1e-12)
    with taken_back(model, optimizer):
        modes = compare_modes(model, x, optimizer)
    rates = [float(group["lr"]) for group in optimizer.param_groups] if optimizer else []
    return NetworkFindings(
        **vars(data),
        signals=signals,
        modes=modes,
        initial_cross_entropy=initial_cross_entropy,
        uses_cross_entropy=abs(own_loss - initial_cross_entropy) < 1e-3 * max(1.0, abs(own_loss)),
        normalised_logits=normalised_logits,
        normalising_effect=normalising_effect,
        learning_rate=max(rates, default=None),
    )


def _measure_training(
    findings: NetworkFindings,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    batches: list[Batch],
    loss: Loss,
    *,
    steps: int,
    warmup: int,
    deadline: float,
) -> None:
    """Trial steps: at the optimiser's rate, at rising rates, and on one batch by heart."""
    trial_optimizer = optimizer or torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad] or [torch.zeros(1)], 0.01, 0.9
    )
    seconds_left = max(deadline - time.monotonic(), 1.0)
    if optimizer is not None:
        with taken_back(model, optimizer):
            findings.trial = try_steps(
                model, optimizer, batches, loss,
                steps=steps, seconds=seconds_left / 3, warmup=warmup,
            )  # fmt: skip
            findings.dead_after_trial = dead_activations(model, batches[0][0])
        if findings.has_wrong_scale() and findings.bursts(findings.trial):
            normalised = [(findings.train.normalise(images), y) for images, y in batches]
            with taken_back(model, optimizer):
                findings.normalised_trial = try_steps(
                    model, optimizer, normalised, loss,
                    steps=steps, seconds=seconds_left / 6, warmup=warmup,
                )  # fmt: skip
    with taken_back(model, trial_optimizer):
        findings.rate_test = run_rate_test(
            model, trial_optimizer, batches[0], loss, steps=steps, seconds=seconds_left / 3
        )
    with taken_back(model, trial_optimizer):
        for group in trial_optimizer.param_groups:
            group["lr"] = findings.rate_test.best or group["lr"]
        findings.overfit_trial = try_steps(
            model, trial_optimizer, batches[:1], loss,
            steps=2 * steps, seconds=seconds_left / 3, target_loss=findings.label_entropy() / 2,
        )  # fmt: skip


def _count_outputs(model: nn.Module, x: Tensor) -> int:
    """Outputs of the network for an image, or UsageError where it does not return logits."""
    logits = model(x.clone())
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        is_tensor = isinstance(logits, Tensor)
        kind = f"a tensor {tuple(logits.shape)}" if is_tensor else f"a {type(logits).__name__}"
        raise UsageError(
            f"the network returns {kind} for {len(x)} images, expected logits (N, classes): wrap "
            "it so that it returns them"
        )
    return int(logits.shape[1])


@contextmanager
def _restored_generators(*loaders: Any) -> Iterator[None]:
    """Restores the random generators of loaders and of their samplers."""
    of_loaders = (getattr(loader, "generator", None) for loader in loaders)
    samplers = (getattr(loader, "sampler", None) for loader in loaders)
    of_samplers = (getattr(sampler, "generator", None) for sampler in samplers)
    generators = [g for g in (*of_loaders, *of_samplers) if isinstance(g, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _trial_batches(sample: BatchSample, model: nn.Module) -> list[Batch]:
    """Up to 16 batches of 32 finite images of one size, shuffled by a fixed seed.

    They have the network's device and type. A batch has two images at least.
    """
    floats = (p for p in model.parameters() if p.is_floating_point())
    like = next(floats, torch.zeros(0))
    shape = sample.images[0].shape[1:]  # multi-scale loaders yield other shapes too
    places = [
        (i, j)
        for i, images in enumerate(sample.images)
        if images.shape[1:] == shape
        for j in images.flatten(1).isfinite().all(1).nonzero()[:, 0].tolist()
    ]
    order = fixed_permutation(len(places))[: MAX_BATCHES * BATCH_SIZE].tolist()
    shuffled = [places[k] for k in order]
    chunks = [shuffled[i : i + BATCH_SIZE] for i in range(0, len(shuffled), BATCH_SIZE)]
    full_chunks = [chunk for chunk in chunks if len(chunk) == BATCH_SIZE] or chunks[:1]
    return [
        (
            torch.stack([sample.images[i][j] for i, j in chunk])
            .detach()
            .to(like.device, like.dtype),
            torch.stack([sample.labels[i][j] for i, j in chunk]).to(like.device),
        )
        for chunk in full_chunks
        if len(chunk) > 1
    ]


def _set_peak_rates(optimizer: torch.optim.Optimizer | None) -> bool:
    """Sets the rates at which a scheduler's warm-up ends; returns whether one has begun."""
    has_warmup = False
    for group in optimizer.param_groups if optimizer else ():
        peak = group.get("max_lr", group.get("initial_lr") if group["lr"] == 0 else None)
        if peak is not None and peak > group["lr"]:
            group["lr"], has_warmup = peak, True
    return has_warmup


def _without_non_finite(value: Any) -> Any:
    """The same value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_non_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
