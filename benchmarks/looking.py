"""How long each way of looking into a run takes, and how much memory.

    python benchmarks/looking.py RUN [RUN ...] [--out results/bench/looking-MACHINE.json]

Every WHAT of `alexnet inspect`, with an image of the run's own test split where it wants one, and
`alexnet report`, each a process of its own, one after the other: seconds with its start, and the
largest resident memory. The data must be where the run has it. Nothing else may run meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from script import obeyed

from alexnet.data.dataset import reopen_dataset
from alexnet.predictor import load
from alexnet.runtime import environment
from alexnet.support.files import write_json
from alexnet.support.terminal import say

SECONDS = 60.0  # the bar


def ways(run: Path, image: Path, features: Path) -> list[list[str]]:
    """The words after `alexnet`."""
    inspect = ["inspect", str(run)]
    pictures = (
        ["filters"], ["activations", str(image)],
        ["activations", "--split", "test", "--part", "relu2"],
        ["neighbors", str(image)], ["neighbors", "--split", "test"],
        ["predictions", "--split", "test"], ["mistakes", "--split", "test"],
        ["saliency", str(image)], ["confusion", "--split", "test"],
        ["calibration", "--split", "test"], ["curves"], ["data"],
        ["features", "--split", "train", "--out", str(features)],
        ["probe"], ["similarity", str(run)],
    )  # fmt: skip
    return [[*inspect, *words] for words in pictures] + [["report", str(run)]]


def look(words: list[str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of one command. RuntimeError with its last lines where
    it fails."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "alexnet", *words], stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if code := os.waitstatus_to_exitcode(status):
            said.seek(0)
            raise RuntimeError(f"alexnet {' '.join(words)}: status {code}: {said.read()[-500:]}")
    return wall, 1024 * used.ru_maxrss


def measure(run: Path) -> list[dict[str, Any]]:
    predictor = load(run)
    pixels = reopen_dataset(predictor.recipe, predictor.data).split("test").read(np.arange(1))[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image, features = Path(folder) / "image.png", Path(folder) / "features.npy"
        Image.fromarray(pixels.squeeze()).save(image)  # grey without its channel
        for words in ways(run, image, features):
            wall, peak = look(words)
            shown = [Path(w).name if "/" in w else w for w in words if w != str(run)]
            row = {
                "run": run.name, "model": predictor.recipe.model,
                "command": " ".join(shown), "seconds": round(wall, 1), "extra_bytes": peak,
                "met": "yes" if wall < SECONDS else "no",
            }  # fmt: skip
            say(json.dumps(row))
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [row for run in args.runs for row in measure(run)]
    over = [f"{row['run']}: {row['command']}" for row in rows if row["met"] == "no"]
    found = {
        "bars": {"seconds": SECONDS},
        "note": f"Bar: {SECONDS:g} s a command; memory is all that was resident at once",
        "over": over,
        "rows": rows,
        "environment": environment(),
    }
    print(json.dumps({"commands": len(rows), "over": over}))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, found)


if __name__ == "__main__":
    obeyed(main)
