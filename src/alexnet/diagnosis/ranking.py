"""The order of verdicts: by severity, then by cause; and whether they leave a network healthy."""

from collections.abc import Iterable
from dataclasses import replace

from alexnet.diagnosis.rules import CAUSES, SYMPTOMS
from alexnet.records import Severity, Verdict

SEVERITIES: tuple[Severity, ...] = ("will not learn", "learns badly", "misleads", "note")


def as_severity(text: str) -> Severity | None:
    """A severity read from a log; None for one that only a later version knows."""
    return next((severity for severity in SEVERITIES if severity == text), None)


def ranked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts by severity, the worst first, and those of one severity in the order of causes."""
    return sorted(
        verdicts, key=lambda v: (SEVERITIES.index(v.severity), CAUSES.index(v.name), v.where)
    )


def rank_by_cause(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Ranked verdicts, in which a symptom does not outrank its cause.

    Where only symptoms are "will not learn", the first fault that comes before them in the order of
    causes gets the same severity.
    """
    ordered = ranked(verdicts)
    fatal = [v for v in ordered if v.severity == "will not learn"]
    if fatal and all(v.name in SYMPTOMS for v in fatal):
        first_symptom = CAUSES.index(fatal[0].name)
        causes = [
            v
            for v in ordered
            if v.severity == "learns badly" and CAUSES.index(v.name) < first_symptom
        ]
        if causes:
            cause = min(causes, key=lambda v: CAUSES.index(v.name))
            ordered[ordered.index(cause)] = replace(cause, severity="will not learn")
    return ranked(ordered)


def is_healthy(verdicts: Iterable[Verdict], unmeasured: str = "") -> bool | None:
    """False with a verdict other than a note, else None where `unmeasured` says why nothing could
    be told, else True."""
    if any(verdict.severity != "note" for verdict in verdicts):
        return False
    return None if unmeasured else True
