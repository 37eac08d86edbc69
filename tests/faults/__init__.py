"""Faults, one by one and counted: what is done to the program, how often, and what was lost.

    make faults                                     every fault, its full count
    PYTHONPATH=tests python -m faults [NAME ...] [--count N] [--seed N]

Each fault is a function of (count, seed, folder) that returns a `Tally`. The ordinary tests run a
few of each (tests/test_faults.py); full counts leave a line each in results/faults.jsonl, of which
docs/faults.md is made. It runs in a process of its own, which forks for whatever may die.
"""
