"""The claims, by name, in the order of the paper as far as it has one."""

from alexnet.errors import UsageError, did_you_mean
from alexnet.lab.claims import (
    architecture,
    bias_one,
    counts,
    equations,
    learning,
    qualitative,
    results,
    tables,
)
from alexnet.lab.claims.claim import Claim
from alexnet.support.options import call

_ALL = (
    *(*counts.CLAIMS, *equations.CLAIMS),
    *(*architecture.CLAIMS, *learning.CLAIMS, *results.CLAIMS, *qualitative.CLAIMS),
    *(*tables.CLAIMS, bias_one.CLAIM),
)

# Those of others may be added: `alexnet claim NAME` then measures and lists them too.
CLAIMS: dict[str, Claim] = {claim.name: claim for claim in _ALL}


def find_claim(name: str) -> Claim:
    """A claim by name; a misspelt one gets the nearest."""
    if name not in CLAIMS:
        raise UsageError(f"unknown claim {name!r}{did_you_mean(name, CLAIMS, call('claim'))}")
    return CLAIMS[name]
