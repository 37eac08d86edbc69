"""The doctor: what is measured of data, network and training, and what is concluded from it.

These names are stable. The modules they come from are not. The package is not called `doctor`,
because `alexnet.doctor` is the verb, and a package of that name would hide it.
"""

from alexnet.diagnosis.diagnose import diagnose
from alexnet.diagnosis.sentinel import Sentinel
from alexnet.diagnosis.verdict import Verdict

__all__ = ["Sentinel", "Verdict", "diagnose"]
