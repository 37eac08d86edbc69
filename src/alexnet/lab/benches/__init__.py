"""Throughput beside a named reference and the machine's own limit, interleaved in one run.

These names are stable. The modules they come from are not.
"""

from alexnet.lab.benches.company import busy_processes, in_company
from alexnet.lab.benches.input import make_photos
from alexnet.lab.benches.reference import plain_net
from alexnet.lab.benches.rounds import company_rows, peak_bytes, take_turns, take_turns_in_company

__all__ = [
    "busy_processes",
    "company_rows",
    "in_company",
    "make_photos",
    "peak_bytes",
    "plain_net",
    "take_turns",
    "take_turns_in_company",
]
