"""A guard beside a training: cheap looks at the network every so many steps, and at the figures.

It stops a training only on what no training shows that learns, or has learnt: severity "will not
learn". A network that has learnt its images gets almost no gradient from them, so that weight decay
is all that still moves it; a wide layer may be off for every image of a small batch; a plateau may
end. Such things are held against the figures first, and where those are better than a constant
answer's, or too few to tell, they are said at most.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.history import Learning, find_run_faults, learning
from alexnet.diagnosis.rate_rules import SHRINKING, decay_alone
from alexnet.diagnosis.sizes import dead_share
from alexnet.diagnosis.trial import Move, moved, weights_now
from alexnet.diagnosis.verdict import SEVERITIES, Severity, Verdict, as_severity, ranked
from alexnet.runs.records import (
    DoctorEvent,
    Event,
    LookEvent,
    ResumeEvent,
    TrainEvent,
    ValEvent,
    as_event,
)

LOOK = 100  # steps between two looks
DEAD = 0.95  # share of a layer's units that are 0 for a whole batch
ALONG = 0.999  # cosine between a gradient and its weight, from where on it is decay and no more
PLATEAU = "loss-is-prior"
LARGE = 0.3  # rms of an update beside that of the weight, the median over weights
FEWEST = 16  # images; of fewer any sparse layer is off for all
SMALL = 1e-8
DECAYED = 1e-3  # of the highest learning rate: who comes to an end takes small steps
KEPT = 200  # lines of the figures that are judged


class Sentinel:
    """Names what goes wrong while it does, each thing once, and again where it has become worse.

    `shares` are those of the classes among training labels. `look` surrounds a training step; every
    `every` steps it measures there. `note` takes each line of the figures, those from before a
    restart too, so that what is found does not depend on where a run was cut. Both tell what is
    new, the worst first.
    """

    def __init__(self, model: nn.Module, shares: Sequence[float], every: int = LOOK) -> None:
        self.model, self.shares, self.every = model, shares, every
        self.events: list[Event] = []
        self.known: dict[tuple[str, str], Severity] = {}
        self.found: list[Verdict] = []
        self.measured: dict[str, Any] = {}
        self.last: Mapping[str, Any] = {}  # what the look before this one measured
        self.highest = 0.0

    def learning(self) -> Learning:
        """What the figures since the look before say of the training."""
        return learning(self.events, self.shares, self.every)

    def has_learnt(self) -> bool:
        return self.learning() == "learnt"

    @contextmanager
    def look(self, step: int) -> Iterator[None]:
        """Measures the step inside, if it is one of those: `measured` are the share of dead units
        by layer, the size of the update beside the weight, the median over weights, and the share
        of weights whose gradient tells nothing of the images."""
        self.found, self.measured = [], {}
        if step % self.every:
            yield
            return
        shares: dict[str, float] = {}
        names = {module: name for name, module in self.model.named_modules()}

        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() > 1:
                shares[names[module]] = dead_share(output) if len(output) >= FEWEST else 0.0

        activations = [m for m in self.model.modules() if isinstance(m, nn.ReLU)]
        handles = [m.register_forward_hook(see) for m in activations]
        before = weights_now(self.model)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if not activations:
            shares = self._without_gradient()
        moves = list(moved(self.model, before).values())
        self.measured = {"dead": {name: round(share, 4) for name, share in shares.items()}}
        if moves:
            self.measured["update"] = statistics.median(move.ratio for move in moves)
            self.measured["untaught"] = self._untaught(before)
        state = self.learning()
        found = [*self._dying(shares, step, state), *self._updates(moves, step, state)]
        self.found = self._new(found)
        self.last = self.measured

    def note(self, line: Event | Mapping[str, Any]) -> list[Verdict]:
        """What a line of the figures shows, with those before it."""
        event = as_event(line)
        if isinstance(event, DoctorEvent):  # said before a restart
            if (severity := as_severity(event.severity)) is not None:
                self.known[event.name, event.where] = severity
            return []
        if isinstance(event, LookEvent):
            self.last = event.to_json()
        if not isinstance(event, TrainEvent | ValEvent | ResumeEvent):
            return []
        if isinstance(event, TrainEvent):
            self.highest = max(self.highest, event.lr or 0.0)
        self.events = [*self.events[-KEPT:], event]
        return self._new(map(_still_training, ranked(find_run_faults(self.events, self.shares))))

    def _new(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        fresh = []
        for v in verdicts:
            worst = self.known.get((v.name, v.where), "")
            if not worst or SEVERITIES.index(v.severity) < SEVERITIES.index(worst):
                self.known[v.name, v.where] = v.severity
                fresh.append(v)
        return fresh

    def _ending(self) -> bool:
        """Whether the schedule has brought the rate down to almost nothing."""
        trained = (event for event in self.events if isinstance(event, TrainEvent))
        rates = [event.lr for event in trained if event.lr is not None]
        return bool(rates) and rates[-1] < DECAYED * self.highest

    def _without_gradient(self) -> dict[str, float]:
        """The layer nearest to the output most of whose units get no gradient, and their share.

        For networks whose activations are functions: a unit that is off for a whole batch gets
        none, and neither do the layers before, once all of a layer are off.
        """
        shares = {}
        for name, module in self.model.named_modules():
            # A bias's gradient is the unit's; a weight's is zero too where its input is.
            p = getattr(module, "bias", None)
            p = getattr(module, "weight", None) if p is None else p
            if isinstance(p, Tensor) and p.grad is not None and p.dim() > 0:
                by_unit = p.grad.flatten(1).abs().amax(1) if p.dim() > 1 else p.grad
                shares[name] = float((by_unit == 0).float().mean())
        off = [name for name, share in shares.items() if share > DEAD]
        return {off[-1]: shares[off[-1]]} if off and len(off) < len(shares) else {}

    def _untaught(self, before: Mapping[str, Tensor]) -> float:
        """The share of weights that get no gradient from the images: none at all, or one along the
        weight itself, as of an L2 term in the loss."""
        now = dict(self.model.named_parameters())
        count = 0
        for name, weight in before.items():
            gradient = now[name].grad
            if gradient is None or not bool(gradient.any()):
                count += 1
                continue
            along = float((gradient * weight.conj()).sum().real)
            sizes = torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(weight)
            count += along > ALONG * float(sizes)
        return count / len(before)

    def _dying(self, shares: Mapping[str, float], step: int, state: Learning) -> Iterator[Verdict]:
        for name, share in shares.items():
            both = min(share, self.last.get("dead", {}).get(name, 0.0))  # at two looks in a row
            if both > DEAD:
                # Of a layer that is off to the last unit nothing comes through; with a few units
                # left, or where it is off only for images like these, a network learns.
                severity = _severity(state, proof=both == 1)
                yield Verdict(
                    "dead-units",
                    severity,
                    f"{share:.0%} of the units of {name} are off for every image of a batch, at "
                    f"step {step:,} and at the look before",
                    "steps so large that they pushed units below zero for good",
                    "nothing, as long as its figures are good: it has learnt with the others"
                    if state == "learnt"
                    else "lower the learning rate tenfold and start from a checkpoint before that",
                    share, DEAD, "a unit that is off for all images gets no gradient", name,
                )  # fmt: skip

    def _updates(self, moves: Sequence[Move], step: int, state: Learning) -> Iterator[Verdict]:
        if not moves:
            return
        shrinking = statistics.median(move.shrinking for move in moves)
        ratios = [move.ratio for move in moves]
        middle = statistics.median(ratios)
        untaught = self.measured["untaught"] == 1
        if middle > LARGE or not math.isfinite(middle):
            yield Verdict(
                "rate-too-high",
                "learns badly",
                f"the update of step {step:,} is {middle:.2g} times as large as the weights",
                "a learning rate that is too high",
                "lower the learning rate tenfold",
                middle, LARGE, "healthy updates are under a tenth of the weights",
            )  # fmt: skip
        elif state == "learnt":
            return  # who has learnt the images gets next to nothing from them
        elif shrinking > SHRINKING and (untaught or state == "nothing"):
            proof = untaught and self.last.get("untaught") == 1  # at two looks in a row
            verdict = decay_alone(shrinking, f"at step {step:,}")
            yield replace(verdict, severity=_severity(state, proof))
        elif max(ratios) < SMALL and not self._ending():
            yield Verdict(
                "vanishing-gradient",
                "learns badly",
                f"the update of step {step:,} is {middle:.2g} times as large as the weights",
                "gradients that are zero, or a learning rate that came to nothing",
                "stop here, or raise the learning rate",
                middle, SMALL, "float32 cannot add less than 6e-8 of a number to it",
            )  # fmt: skip


def _severity(state: Learning, proof: bool) -> Severity:
    """How bad is what a look measured, by what the figures say beside it."""
    if state == "nothing":
        return "will not learn" if proof else "learns badly"
    return "note"


def _still_training(verdict: Verdict) -> Verdict:
    """What the figures of a training show that goes on: a plateau may end."""
    if verdict.name == PLATEAU and verdict.severity == "will not learn":
        return replace(verdict, severity="learns badly")
    return verdict


def first_not_finite(model: nn.Module, x: Tensor | None) -> str:
    """The first weight that is not finite, else the first layer whose output for x is not."""
    for name, p in model.named_parameters():
        if not bool(p.isfinite().all()):
            return f"{name} (a weight)"
    if x is None:
        return "the loss"
    place: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not place and not bool(output.isfinite().all()):
            place.append(names[module])

    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    handles = [m.register_forward_hook(see) for m in leaves]
    try:
        if not bool(x.isfinite().all()):
            return "the images"
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return place[0] if place else "the loss"
