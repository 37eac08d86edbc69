"""What was found wrong: how bad, by which measurement, why it is likely so, what to change."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from alexnet.runs.records import Severity, Verdict

__all__ = [
    "CAUSES",
    "SEVERITIES",
    "SYMPTOMS",
    "Severity",
    "Verdict",
    "as_severity",
    "is_healthy",
    "rank_by_cause",
    "ranked",
    "without_non_finite",
]

SEVERITIES: tuple[Severity, ...] = ("will not learn", "learns badly", "misleads", "note")

# From what is fed in to what comes out: a fault makes those further down look ill too, so of two
# that are as bad the earlier one is named first.
CAUSES = (
    "labels-out-of-range",
    "not-finite-input",
    "constant-input",
    "one-class",
    "labels-unrelated",
    "class-order",
    "input-scale",
    "activation-on-logits",
    "softmax-twice",
    "few-logits",
    "frozen",
    "not-in-optimizer",
    "no-gradient",
    "linear-layers",
    "stochastic-evaluation",
    "batch-in-evaluation",
    "trained-constant",
    "exploding-signal",
    "squashing-layer",
    "dead-units",
    "starved-signal",
    "large-initial-loss",
    "vanishing-gradient",
    "not-finite-loss",
    "loss-is-ln-k",
    "loss-is-prior",
    "decay-alone",
    "rate-jumped",
    "order-jumped",
    "rate-too-high",
    "rate-too-low",
    "no-steps",
    "cannot-overfit",
    "splits-shifted",
    "splits-differ",
    "validation-is-training",
    "shared-images",
    "ties",
    "overfitting",
    "starved-loader",
    "class-missing",
)

# What other faults bring about.
SYMPTOMS = {
    "dead-units",
    "starved-signal",
    "exploding-signal",
    "large-initial-loss",
    "vanishing-gradient",
    "not-finite-loss",
    "rate-too-high",
}


def as_severity(said: str) -> Severity | None:
    """A severity that a log has, or None of a later version's."""
    return next((severity for severity in SEVERITIES if severity == said), None)


def without_non_finite(found: dict[str, Any]) -> dict[str, Any]:
    """The same for JSON, which has no NaN and no infinity: they are None."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    cleaned: dict[str, Any] = clean(found)
    return cleaned


def ranked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The worst first, and of those as bad what is nearer to the input."""
    return sorted(
        verdicts, key=lambda v: (SEVERITIES.index(v.severity), CAUSES.index(v.name), v.where)
    )


def rank_by_cause(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Ranked, once what is only a consequence no longer outranks its cause.

    A symptom that keeps the network from learning makes the first fault before it as bad.
    """
    found = ranked(verdicts)
    fatal = [v for v in found if v.severity == "will not learn"]
    if fatal and all(v.name in SYMPTOMS for v in fatal):
        first = CAUSES.index(fatal[0].name)
        before = [v for v in found if v.severity == "learns badly" and CAUSES.index(v.name) < first]
        if before:
            cause = min(before, key=lambda v: CAUSES.index(v.name))
            found[found.index(cause)] = replace(cause, severity="will not learn")
    return ranked(found)


def is_healthy(verdicts: Iterable[Verdict], unmeasured: str = "") -> bool | None:
    """False where something other than a note was found, else None where `unmeasured` says why it
    could not be told, else true."""
    if any(verdict.severity != "note" for verdict in verdicts):
        return False
    return None if unmeasured else True
