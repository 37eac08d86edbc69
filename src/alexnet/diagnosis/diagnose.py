"""Anybody's network with anybody's loader: measured, and diagnosed."""

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from alexnet.diagnosis.batches import BatchSample, mixed, probe_labels, sample_batches
from alexnet.diagnosis.contract import check_contract
from alexnet.diagnosis.data_rules import find_data_faults
from alexnet.diagnosis.findings import Findings
from alexnet.diagnosis.rate_rules import find_rate_faults
from alexnet.diagnosis.rules import find_network_faults
from alexnet.diagnosis.signal import Loss, cross_entropy, evaluating, measure_signals, switched_off
from alexnet.diagnosis.sizes import rms
from alexnet.diagnosis.trial import find_rates, taken_back, try_steps
from alexnet.diagnosis.verdict import is_healthy, rank_by_cause, without_non_finite
from alexnet.errors import UsageError
from alexnet.runs.records import Diagnosis

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
OF_STEPS = 0.75  # of the time: when trial steps have to end
BATCH = 32  # images of which the network is shown as many at a time


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

    `loader` gives batches of float images (N, C, H, W) and integer labels (N,), `val_loader` those
    of another split. The network maps images to logits (N, K). With an `optimizer` its learning
    rate is judged too. Up to `steps` steps are trained (0: none) and taken back: weights, optimiser
    and random state are afterwards what they were. About `seconds` at most. With `warmup` the
    learning rate rises to the optimiser's over half the steps, for who trains so.

    Returns a Diagnosis: whether it is `healthy` (true, false, or None where it could not be told,
    and `unmeasured` says why), the `verdicts`, worst first, what each of the `layers` does, and all
    other `figures`.
    """
    began, val = time.monotonic(), None
    model = getattr(model, "module", model) if isinstance(model, WRAPPERS) else model
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if any(is_lazy(p) for p in model.parameters()):
        raise UsageError("the network has layers without a size yet: run one batch through it")
    with taken_back(model, optimizer), _undrawn(loader, val_loader):
        train = sample_batches(loader, images=images, seconds=seconds / 6)
        if not train.n:
            raise UsageError("the loader gives no batch: nothing to diagnose")
        if val_loader is not None:
            val = sample_batches(val_loader, images=images, seconds=seconds / 12)
        warmup = _planned(optimizer) or warmup
        found = Findings(train=train, val=val, rate=_rate(optimizer))
        batches = _batches(train, model)
        if not batches:
            found.unmeasured = "of the images read no two of one size are finite numbers"
        else:
            _measure(
                found, model, optimizer, batches, loss, steps, warmup, began + OF_STEPS * seconds
            )
    found.classes = classes or found.classes or int(torch.cat(train.labels).max()) + 1
    found.probe = probe_labels(train, val, found.classes)
    faults = (find_data_faults(found), find_network_faults(found), find_rate_faults(found))
    verdicts = rank_by_cause(itertools.chain(*faults))
    layers = found.signals.described() if found.signals else []
    measured = {
        "healthy": is_healthy(verdicts, found.unmeasured),
        "unmeasured": found.unmeasured,
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "layers": [layer.to_json() for layer in layers],
        "figures": found.figures().to_json(),
        "seconds": round(time.monotonic() - began, 1),
    }
    return Diagnosis.from_json(without_non_finite(measured), "the diagnosis")


def _measure(
    found: Findings,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    batches: list[tuple[Tensor, Tensor]],
    loss: Loss,
    steps: int,
    warmup: bool,
    until: float,
) -> None:
    x, y = batches[0]
    with taken_back(model, optimizer), torch.no_grad():
        found.classes = _outputs(model, x[:2])
    if found.classes == 1 and loss is not cross_entropy:
        raise UsageError(
            "the network has one output and a loss of its own: give it two outputs and the "
            "cross-entropy to have it diagnosed"
        )
    labels = torch.cat([y for _, y in batches])
    low, high = int(labels.min()), int(labels.max())
    if high >= found.classes or low < 0:  # the loss cannot be computed
        found.unmeasured = (
            f"the labels go from {low} to {high}, and the network has {found.classes} output(s), "
            "where the cross-entropy takes one for each class: nothing of it was measured"
        )
        return
    # Batch norms as they are, not as measuring left them, each time.
    with taken_back(model, optimizer):
        found.signals = measure_signals(model, x, y, loss)
    with taken_back(model, optimizer), evaluating(model), torch.no_grad():
        z = model(x.clone()).float()
        own, theirs = float(loss(z, y)), float(cross_entropy(z, y))
        found.known = theirs
        found.entropic = abs(own - theirs) < 1e-3 * max(1.0, abs(own))
        found.standard = model(_normalised(x, found.train)).float()
    with taken_back(model, optimizer), evaluating(model, norms=True), torch.no_grad():
        z, other = model(x.clone()).float(), model(_normalised(x, found.train)).float()
        found.moves = rms(z - other) / max(rms(z - z.mean(0)), 1e-12)
    with taken_back(model, optimizer):
        found.contract = check_contract(model, x, optimizer)
    if not steps:
        return
    given = optimizer or torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad] or [torch.zeros(1)], 0.01, 0.9
    )
    left = max(until - time.monotonic(), 1.0)
    if optimizer is not None:
        with taken_back(model, given):
            found.trial = try_steps(
                model, given, batches, loss,
                steps=steps, seconds=left / 3, warmup=steps // 2 if warmup else 0,
            )  # fmt: skip
            found.after = switched_off(model, x)
        if found.misscaled() and found.bursts(found.trial):
            others = [(_normalised(images, found.train), labels) for images, labels in batches]
            with taken_back(model, given):
                found.normalised = try_steps(
                    model, given, others, loss,
                    steps=steps, seconds=left / 6, warmup=steps // 2 if warmup else 0,
                )  # fmt: skip
    with taken_back(model, given):
        found.rates = find_rates(model, given, batches[0], loss, steps=steps, seconds=left / 3)
    with taken_back(model, given):
        for group in given.param_groups:
            group["lr"] = found.rates.best or group["lr"]
        found.overfit = try_steps(
            model, given, batches[:1], loss,
            steps=2 * steps, seconds=left / 3, enough=found.prior() / 2,
        )  # fmt: skip


def _normalised(images: Tensor, sample: BatchSample) -> Tensor:
    """Images of mean 0 and deviation 1, channel by channel."""
    mean, scale = (v[:, None, None].to(images) for v in (sample.mean, sample.scale()))
    return (images - mean) / scale


def _outputs(model: nn.Module, x: Tensor) -> int:
    z = model(x.clone())
    if not isinstance(z, Tensor) or z.dim() != 2:
        what = f"a tensor {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise UsageError(
            f"the network gives {what} for {len(x)} images: wrap it so that it returns logits "
            "(N, classes)"
        )
    return int(z.shape[1])


@contextmanager
def _undrawn(*loaders: Any) -> Iterator[None]:
    """Loaders' own generators are afterwards as they were."""
    own = (getattr(loader, "generator", None) for loader in loaders)
    sampled = (getattr(getattr(loader, "sampler", None), "generator", None) for loader in loaders)
    found = [g for g in (*own, *sampled) if isinstance(g, torch.Generator)]
    states = [g.get_state() for g in found]
    try:
        yield
    finally:
        for generator, state in zip(found, states, strict=True):
            generator.set_state(state)


def _batches(sample: BatchSample, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Up to 16 batches of 32 finite images: mixed by a fixed seed, as they should be."""
    floats = (p for p in model.parameters() if p.is_floating_point())
    like = next(floats, torch.zeros(0))
    shape = sample.images[0].shape[1:]  # others come from multi-scale loaders
    places = [
        (i, j)
        for i, images in enumerate(sample.images)
        if images.shape[1:] == shape
        for j in images.flatten(1).isfinite().all(1).nonzero()[:, 0].tolist()
    ]
    taken = [places[k] for k in mixed(len(places))[: 16 * BATCH].tolist()]
    parts = [taken[i : i + BATCH] for i in range(0, len(taken), BATCH)]
    whole = [part for part in parts if len(part) == BATCH] or parts[:1]
    return [
        (
            torch.stack([sample.images[i][j] for i, j in part])
            .detach()
            .to(like.device, like.dtype),
            torch.stack([sample.labels[i][j] for i, j in part]).to(like.device),
        )
        for part in whole
        if len(part) > 1
    ]


def _rate(optimizer: torch.optim.Optimizer | None) -> float | None:
    return max(float(group["lr"]) for group in optimizer.param_groups) if optimizer else None


def _planned(optimizer: torch.optim.Optimizer | None) -> bool:
    """Sets the rates that a scheduler's warm-up leads to, if it has begun one; whether it has."""
    found = False
    for group in optimizer.param_groups if optimizer else ():
        peak = group.get("max_lr", group.get("initial_lr") if group["lr"] == 0 else None)
        if peak is not None and peak > group["lr"]:
            group["lr"], found = peak, True
    return found
