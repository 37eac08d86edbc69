"""Throughput beside a named reference and the machine's own limit, interleaved in one run."""
