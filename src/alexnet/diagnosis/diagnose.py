"""Anybody's network with anybody's loader: measured, and judged."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis import data_rules, rules
from alexnet.diagnosis.batches import Seen, look_at, probe_labels
from alexnet.diagnosis.contract import check_contract
from alexnet.diagnosis.findings import Findings
from alexnet.diagnosis.signal import Loss, cross_entropy, evaluating, measure_signals
from alexnet.diagnosis.trial import find_rates, taken_back, try_steps
from alexnet.diagnosis.verdict import is_healthy, settled
from alexnet.errors import UsageError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
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
) -> dict[str, Any]:
    """Says whether an image classifier will learn, or why it will not.

    `loader` gives batches of float images (N, C, H, W) and integer labels (N,), `val_loader` those
    of another split. The network maps images to logits (N, K). With an `optimizer` its learning
    rate is judged too. Up to `steps` steps are trained (0: none) and taken back: weights, optimiser
    and random state are afterwards what they were. About `seconds` at most. With `warmup` the
    learning rate rises to the optimiser's over half the steps, for who trains so.

    Returns `healthy`, `verdicts` (worst first: name, severity, evidence, cause, advice, measured,
    threshold, source, where), `layers` and `figures`.
    """
    began, val = time.monotonic(), None
    model = getattr(model, "module", model) if isinstance(model, WRAPPERS) else model
    with taken_back(model, optimizer):  # and the random state that loaders draw from
        train = look_at(loader, images=images, seconds=seconds / 6)
        if not train.n:
            raise UsageError("the loader gives no batch: nothing to diagnose")
        if val_loader is not None:
            val = look_at(val_loader, images=images, seconds=seconds / 12)
        found = Findings(train=train, val=val, rate=_rate(optimizer))
        batches = _batches(train, model)
        if batches:
            _measure(found, model, optimizer, batches, loss, steps, warmup, began + seconds)
    found.classes = classes or found.classes or int(torch.cat(train.labels).max()) + 1
    found.probe = probe_labels(train, val, found.classes)
    verdicts = settled([*data_rules.judge(found), *rules.judge(found)])
    layers = [asdict(layer) for layer in found.signals.layers] if found.signals else []
    return {
        "healthy": is_healthy(verdicts),
        "verdicts": [verdict.to_dict() for verdict in verdicts],
        "layers": layers,
        "figures": found.figures(),
        "seconds": round(time.monotonic() - began, 1),
    }


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
        found.classes = int(model(x[:2].clone()).shape[-1])
    labels = torch.cat([y for _, y in batches])
    if int(labels.max()) >= found.classes or int(labels.min()) < 0:
        return  # the loss cannot be computed; the labels are judged by themselves
    # Batch norms as they are, not as measuring left them, each time.
    with taken_back(model, optimizer):
        found.signals = measure_signals(model, x, y, loss)
    scale = found.train.std.clamp(min=1e-9)[:, None, None].to(x)
    with taken_back(model, optimizer), evaluating(model), torch.no_grad():
        found.standard = model((x - found.train.mean[:, None, None].to(x)) / scale).float()
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
            found.after = measure_signals(model, x, y, loss)
    with taken_back(model, given):
        found.rates = find_rates(model, given, batches[0], loss, steps=steps, seconds=left / 3)
    with taken_back(model, given):
        for group in given.param_groups:
            group["lr"] = found.rates.best or group["lr"]
        found.overfit = try_steps(
            model, given, batches[:1], loss,
            steps=2 * steps, seconds=left / 3, enough=found.prior() / 2,
        )  # fmt: skip


def _batches(seen: Seen, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The images that are finite, in batches of 32: mixed by a fixed seed, as they should be."""
    floats = (p for p in model.parameters() if p.is_floating_point())
    like = next(floats, torch.zeros(0))
    shape = seen.images[0].shape[1:]  # others come from multi-scale loaders
    alike = [i for i, batch in enumerate(seen.images) if batch.shape[1:] == shape]
    x = torch.cat([seen.images[i].detach().float().cpu() for i in alike])
    y = torch.cat([seen.labels[i] for i in alike])
    good = x.flatten(1).isfinite().all(1).nonzero()[:, 0]
    order = good[torch.randperm(len(good), generator=torch.Generator().manual_seed(0))]
    parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    whole = [part for part in parts if len(part) == BATCH] or parts[:1]
    return [
        (x[part].to(like.device, like.dtype), y[part].to(like.device))
        for part in whole[:16]
        if len(part) > 1
    ]


def _rate(optimizer: torch.optim.Optimizer | None) -> float | None:
    return max(float(group["lr"]) for group in optimizer.param_groups) if optimizer else None
