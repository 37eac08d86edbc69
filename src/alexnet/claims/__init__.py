"""What the paper, and those who repeat it, claim; each measured by one experiment.

These names are stable. The modules they come from are not.
"""

from alexnet.claims.catalogue import CLAIMS
from alexnet.claims.comparison import Arm, Comparison
from alexnet.claims.lab import Claim, Lab, Outcome, OutOfTime
from alexnet.claims.paired import compare_scores, search_rate
from alexnet.claims.tables import table as measure_table
from alexnet.claims.trial import gather
from alexnet.claims.workers import measurements_at_once

__all__ = [
    "CLAIMS",
    "Arm",
    "Claim",
    "Comparison",
    "Lab",
    "OutOfTime",
    "Outcome",
    "compare_scores",
    "gather",
    "measure_table",
    "measurements_at_once",
    "search_rate",
]
