"""Compares the speed of two source trees: training steps, a training, its memory, and --help.

    python scripts/same_speed.py --before TREE --after TREE [--rounds N]

A tree is a checkout. The Python that runs this script runs `TREE/src`, each time in a new process.
The two trees take turns, and the order changes each round. For each figure the script prints the
medians and ranges of both trees, and the ratio of the medians. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BENCH = ["bench", "train", "--alone", "--model", "alexnet-2012", "--batch-size", "32", "--rounds",
         "1", "--json"]  # fmt: skip
TRAIN = ["train", "digits", "--precision", "fp32", "--epochs", "3", "--doctor", "stop", "--json"]


def run(tree: Path, words: list[str], folder: Path) -> tuple[float, float, str]:
    """Run `alexnet WORDS`. Returns its seconds, its peak memory in MiB, and its standard output."""
    out = folder / "out"
    with out.open("w") as file:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "alexnet", *words],
            cwd=folder,
            stdout=file,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(tree / "src")},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{tree}: alexnet {' '.join(words)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024, out.read_text()


def bench_train(tree: Path, folder: Path) -> dict[str, float]:
    rows = json.loads(run(tree, BENCH, folder)[2])["rows"]
    return {f"bench train, {r['name'][:24]}, images/s": r["images_per_s"] for r in rows}


def train_digits(tree: Path, folder: Path) -> dict[str, float]:
    seconds, memory, out = run(tree, [*TRAIN, "--run", f"run-{time.monotonic_ns()}"], folder)
    return {
        "train digits, images/s of steps": json.loads(out)["images_per_s"],
        "train digits, s": seconds,
        "train digits, peak memory, MiB": memory,
    }


def print_help(tree: Path, folder: Path) -> dict[str, float]:
    seconds, memory, _ = run(tree, ["--help"], folder)
    return {"--help, s": seconds, "--help, peak memory, MiB": memory}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--before", type=Path, required=True)
    words.add_argument("--after", type=Path, required=True)
    words.add_argument("--rounds", type=int, default=5)
    args = words.parse_args()
    measures: list[Callable[[Path, Path], dict[str, float]]] = [
        print_help,
        bench_train,
        train_digits,
    ]
    figures: dict[str, tuple[list[float], list[float]]] = {}
    turn = [(args.before.absolute(), 0), (args.after.absolute(), 1)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for measure in measures:
                for tree, which in turn:
                    for name, value in measure(tree, Path(folder)).items():
                        figures.setdefault(name, ([], []))[which].append(value)
            turn.reverse()
    print(f"{'':52}{'before':>10}{'range':>18}{'after':>10}{'range':>18}{'ratio':>8}")
    for name, both in figures.items():
        before, after = (statistics.median(values) for values in both)
        ranges = [f"{min(values):,.2f} to {max(values):,.2f}" for values in both]
        print(
            f"{name:52}{before:>10,.2f}{ranges[0]:>18}{after:>10,.2f}{ranges[1]:>18}"
            f"{after / before:>8.3f}"
        )


if __name__ == "__main__":
    main()
