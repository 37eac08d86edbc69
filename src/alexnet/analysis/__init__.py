"""What a trained network has learnt: kernels, features, neighbours, confidence, evidence.

These names are stable. The modules they come from are not.
"""

from alexnet.analysis.answers import Mistakes

__all__ = ["Mistakes"]
