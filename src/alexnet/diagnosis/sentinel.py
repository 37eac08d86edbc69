"""A guard beside a training: cheap looks at the network every so many steps, and at the figures."""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.diagnosis.history import judge_history
from alexnet.diagnosis.rate_rules import SHRINKING, decay_alone
from alexnet.diagnosis.sizes import dead_share
from alexnet.diagnosis.trial import Move, moved, weights_now
from alexnet.diagnosis.verdict import Verdict, ranked

LOOK = 100  # steps between two looks
DEAD = 0.95  # share of a layer's units that are 0 for a whole batch
LARGE = 0.3  # rms of an update beside that of the weight, the median over weights
FEWEST = 16  # images; of fewer any sparse layer is off for all
SMALL = 1e-8
DECAYED = 1e-3  # of the highest learning rate: who comes to an end takes small steps
KEPT = 200  # lines of the figures that are judged


class Sentinel:
    """Names what goes wrong while it does, each thing once.

    `shares` are those of the classes among training labels. `look` surrounds a training step; every
    `every` steps it measures there. `note` takes each line of the figures, those from before a
    restart too, so that what is found does not depend on where a run was cut. Both tell what is
    new, the worst first.
    """

    def __init__(self, model: nn.Module, shares: Sequence[float], every: int = LOOK) -> None:
        self.model, self.shares, self.every = model, shares, every
        self.events: list[dict[str, Any]] = []
        self.known: set[tuple[str, str]] = set()
        self.found: list[Verdict] = []
        self.measured: dict[str, Any] = {}
        self.last_dead: dict[str, float] = {}
        self.highest = 0.0

    @contextmanager
    def look(self, step: int) -> Iterator[None]:
        """Measures the step inside, if it is one of those: `measured` are the share of dead units
        by layer, and the size of the update beside the weight, the median over weights."""
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
        self.found = self._new([*self._dying(shares, step), *self._updates(moves, step)])
        self.last_dead = self.measured["dead"]

    def note(self, event: dict[str, Any]) -> list[Verdict]:
        """What a line of the figures shows, with those before it."""
        if event["event"] == "doctor":  # said before a restart
            self.known.add((event["name"], event["where"]))
            return []
        if event["event"] == "look":
            self.last_dead = event["dead"]
        if event["event"] not in ("train", "val", "resume"):
            return []
        self.highest = max(self.highest, event.get("lr") or 0.0)
        self.events = [*self.events[-KEPT:], event]
        return self._new(ranked(judge_history(self.events, self.shares)))

    def _new(self, verdicts: list[Verdict]) -> list[Verdict]:
        fresh = [v for v in verdicts if (v.name, v.where) not in self.known]
        self.known.update((v.name, v.where) for v in fresh)
        return fresh

    def _ending(self) -> bool:
        """Whether the schedule has brought the rate down to almost nothing."""
        rates = [event["lr"] for event in self.events if event.get("lr") is not None]
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

    def _dying(self, shares: dict[str, float], step: int) -> Iterator[Verdict]:
        for name, share in shares.items():
            if min(share, self.last_dead.get(name, 0.0)) > DEAD:  # at two looks in a row
                yield Verdict(
                    "dead-units",
                    "will not learn",
                    f"{share:.0%} of the units of {name} are off for every image of a batch, at "
                    f"step {step:,} and at the look before",
                    "steps so large that they pushed units below zero for good",
                    "lower the learning rate tenfold and start from a checkpoint before that",
                    share, DEAD, "a unit that is off for all images gets no gradient", name,
                )  # fmt: skip

    def _updates(self, moves: Sequence[Move], step: int) -> Iterator[Verdict]:
        if not moves:
            return
        shrinking = statistics.median(move.shrinking for move in moves)
        ratios = [move.ratio for move in moves]
        middle = statistics.median(ratios)
        if middle > LARGE or not math.isfinite(middle):
            yield Verdict(
                "rate-too-high",
                "learns badly",
                f"the update of step {step:,} is {middle:.2g} times as large as the weights",
                "a learning rate that is too high",
                "lower the learning rate tenfold",
                middle, LARGE, "healthy updates are under a tenth of the weights",
            )  # fmt: skip
        elif shrinking > SHRINKING:
            yield decay_alone(shrinking, f"at step {step:,}")
        elif max(ratios) < SMALL and not self._ending():
            yield Verdict(
                "vanishing-gradient",
                "learns badly",
                f"the update of step {step:,} is {middle:.2g} times as large as the weights",
                "gradients that are zero, or a learning rate that came to nothing",
                "stop here, or raise the learning rate",
                middle, SMALL, "float32 cannot add less than 6e-8 of a number to it",
            )  # fmt: skip


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
