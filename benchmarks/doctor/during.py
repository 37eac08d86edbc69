"""Faults that only training shows: a plain loop with the sentinel beside it."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.doctor.faults import Case, Then
from torch import Tensor, nn

from alexnet.diagnosis.sentinel import Sentinel
from alexnet.metrics import Tally

BATCH = 32
LINE, VALIDATE = 10, 50  # steps between two lines of figures
STEPS = 450


@dataclass(frozen=True)
class During:
    """`causes` are the names that are right. The rest is what the loop does otherwise."""

    name: str
    causes: tuple[str, ...]
    apply: Callable[[Case], Case] = lambda case: case
    resumes_at: int = 0  # with `rate_times` the rate, and the epoch anew where `forgets`
    rate_times: float = 1.0
    forgets: bool = False
    validates_on_training: bool = False
    penalty: float = 0.0  # an L2 term in the loss
    breaks_at: int = 0  # the images are NaN from there on
    waits: float = 0.0  # seconds for every batch
    steps: int = STEPS


def train_under_guard(case: Case, fault: During) -> dict[str, Any]:
    """Trains until the sentinel names something other than a note, or to the end."""
    torch.manual_seed(case.seed)
    case = fault.apply(replace(case, model=copy.deepcopy(case.model)))
    model, optimizer = case.model, case.optimizer()
    shares = torch.bincount(case.y, minlength=10) / len(case.y)
    sentinel = Sentinel(model, shares.tolist(), every=50)
    chance = torch.Generator().manual_seed(case.seed)
    found: list[Any] = []
    losses: list[float] = []
    waited, since, lost = 0.0, time.monotonic(), 0
    for step in range(fault.steps):
        if fault.resumes_at and step == fault.resumes_at:
            found += sentinel.note({"event": "resume", "step": step})
            lost = step % (len(case.y) // BATCH) if fault.forgets else 0
            for group in optimizer.param_groups:
                group["lr"] *= fault.rate_times
        began = time.monotonic()
        time.sleep(fault.waits)
        part = torch.randint(len(case.y), (BATCH,), generator=chance)
        x, y = case.x[part], case.y[part]
        waited += time.monotonic() - began
        if fault.breaks_at and step >= fault.breaks_at:
            x = x * math.nan
        with sentinel.look(step):
            model.train()
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            if fault.penalty:
                loss = loss + fault.penalty * sum(p.square().sum() for p in model.parameters())
            loss.backward()
            optimizer.step()
        found += sentinel.verdicts
        losses.append(float(loss.detach()))
        if (step + 1) % LINE == 0:
            took = time.monotonic() - since
            line = {
                "event": "train",
                "step": step + 1,
                "epoch": (step + 1 - lost) * BATCH / len(case.y),
                "loss": losses[-1],
                "n": BATCH,
                "loss_mean": statistics.fmean(losses[-LINE:]),
                "top1": float((logits.argmax(1) == y).float().mean()),
                "lr": optimizer.param_groups[0]["lr"],
                "data_wait": waited / took,
            }
            found += sentinel.note(line)
            waited, since = 0.0, time.monotonic()
        if (step + 1) % VALIDATE == 0:
            given = (x, y) if fault.validates_on_training else (case.val_x, case.val_y)
            line = _validated(model, *given, step + 1)
            if fault.validates_on_training:
                line["loss"] = losses[-1]
            found += sentinel.note(line)
            since = time.monotonic()
        if any(v.severity != "note" or v.name in fault.causes for v in found):
            break
    named = [v.name for v in found if v.severity != "note"] or [v.name for v in found]
    right = named[0] in fault.causes if named and fault.causes else not (named or fault.causes)
    return {"right": right, "named": named, "steps": step + 1}


def _validated(model: nn.Module, x: Tensor, y: Tensor, step: int) -> dict[str, Any]:
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part).float() for part in x.split(BATCH)])
    tally = Tally(logits.shape[1])
    tally.add(logits, y, F.cross_entropy(logits, y, reduction="none"))
    line: dict[str, Any] = {"event": "val", "step": step, **tally.figures()}
    return line


def _cut_off(case: Case) -> Case:
    """Adam at a rate that makes a ReLU on the logits fatal."""
    model = Then(case.model, torch.relu)
    return replace(case, model=model, adam=True, rate=3e-3)


def _few(case: Case) -> Case:
    return replace(case, x=case.x[:100], y=case.y[:100])


def _shuffled(case: Case) -> Case:
    chance = torch.Generator().manual_seed(case.seed)
    return replace(case, y=case.y[torch.randperm(len(case.y), generator=chance)])


def _one_picture(case: Case) -> Case:
    x, val_x = (t[:1].expand_as(t).contiguous() for t in (case.x, case.val_x))
    return replace(case, x=x, val_x=val_x)


def _silenced(case: Case) -> Case:
    """What comes out no longer depends on the weights, which the penalty then shrinks."""
    return replace(case, model=Then(case.model, lambda z: torch.zeros_like(z) + 0 * z))


def _rate(rate: float, adam: bool = False) -> Callable[[Case], Case]:
    return lambda case: replace(case, rate=rate, adam=adam)


DURING = [
    During("healthy", ()),
    During("ReLU on the logits, Adam", ("loss-is-ln-k", "ties", "dead-units"), _cut_off),
    During("rate restarted on resume", ("rate-jumped",), resumes_at=200, rate_times=10),
    During("epoch restarted on resume", ("order-jumped",), resumes_at=160, forgets=True),
    During("resumed as it should be", (), resumes_at=160, steps=250),
    During("training batch as validation", ("validation-is-training",), validates_on_training=True),
    During("falling by L2 alone", ("decay-alone",), _silenced, penalty=1e-3),
    During("Adam at 0.1", ("dead-units", "rate-too-high", "not-finite-loss"), _rate(0.1, True)),
    During("rate 10", ("rate-too-high", "not-finite-loss", "dead-units"), _rate(10.0)),
    During("rate 1e-12", ("vanishing-gradient",), _rate(1e-12)),
    During("NaN from step 120 on", ("not-finite-loss",), breaks_at=120),
    During("shuffled labels", ("loss-is-prior",), _shuffled, steps=900),
    During("one picture", ("loss-is-prior", "decay-alone"), _one_picture),
    During("a hundred images", ("overfitting",), _few, steps=1500),
    During("slow loader", ("starved-loader",), waits=0.2, steps=80),
]
