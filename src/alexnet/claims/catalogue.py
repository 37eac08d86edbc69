"""The claims, by name, in the order of the paper as far as it has one."""

from alexnet.claims import (
    architecture,
    averaging,
    bias_one,
    counts,
    learning,
    rules,
    seeing,
    tables,
)
from alexnet.claims.lab import Claim
from alexnet.errors import UsageError, did_you_mean
from alexnet.options import call

_ALL = (
    *(*counts.CLAIMS, *rules.CLAIMS),
    *(*architecture.CLAIMS, *learning.CLAIMS, *averaging.CLAIMS, *seeing.CLAIMS),
    *(*tables.CLAIMS, bias_one.CLAIM),
)

# Those of others may be added: `alexnet claim NAME` then measures and lists them too.
CLAIMS: dict[str, Claim] = {claim.name: claim for claim in _ALL}


def find_claim(name: str) -> Claim:
    """A claim by name; a misspelt one gets the nearest."""
    if name not in CLAIMS:
        raise UsageError(f"unknown claim {name!r}{did_you_mean(name, CLAIMS, call('claim'))}")
    return CLAIMS[name]
