"""The doctor: measures data, network and training, and says what is wrong with them.

These names are stable. The modules they come from are not. The package is not called `doctor`,
because `alexnet.doctor` is the verb, and a package of that name would hide it.
"""

from alexnet.diagnosis.diagnose import diagnose
from alexnet.diagnosis.ranking import SEVERITIES
from alexnet.diagnosis.rules import CAUSES
from alexnet.diagnosis.sentinel import Sentinel, first_not_finite
from alexnet.diagnosis.signal import measure_signals
from alexnet.records import Verdict

__all__ = [
    "CAUSES",
    "SEVERITIES",
    "Sentinel",
    "Verdict",
    "diagnose",
    "first_not_finite",
    "measure_signals",
]
