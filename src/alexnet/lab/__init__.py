"""Experiments: claims of the paper, measured, and throughput beside references.

It uses what the other packages export, and only the command line uses it. These names are stable.
The modules they come from are not.
"""

from alexnet.lab.benches.verb import bench
from alexnet.lab.claims.verb import claim

__all__ = ["bench", "claim"]
