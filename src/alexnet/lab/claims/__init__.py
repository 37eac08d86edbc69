"""What the paper, and those who repeat it, claim; each measured by one experiment.

These names are stable. The modules they come from are not.
"""

from alexnet.lab.claims.catalogue import CLAIMS
from alexnet.lab.claims.claim import Claim, Outcome
from alexnet.lab.claims.comparison import Arm, Comparison
from alexnet.lab.claims.one_training import gather
from alexnet.lab.claims.paired import compare_scores, search_rate
from alexnet.lab.claims.study import OutOfTime, Study, measurements_at_once
from alexnet.lab.claims.tables import table as measure_table

__all__ = [
    "CLAIMS",
    "Arm",
    "Claim",
    "Comparison",
    "OutOfTime",
    "Outcome",
    "Study",
    "compare_scores",
    "gather",
    "measure_table",
    "measurements_at_once",
    "search_rate",
]
