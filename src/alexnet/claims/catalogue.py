"""The claims, by name."""

from alexnet.claims import bias_one
from alexnet.claims.lab import Claim
from alexnet.errors import UsageError
from alexnet.recipe import nearest

CLAIMS: dict[str, Claim] = {claim.name: claim for claim in (bias_one.CLAIM,)}


def find_claim(name: str) -> Claim:
    """A claim by name; a misspelt one gets the nearest."""
    if name not in CLAIMS:
        raise UsageError(f"unknown claim {name!r}{nearest(name, CLAIMS, 'alexnet claim')}")
    return CLAIMS[name]
