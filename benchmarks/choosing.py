"""Whether the recipe that is chosen for a folder is as good as the best hand-written one.

    python benchmarks/choosing.py SET [SET ...] --minutes 10 [--against photos imagenette modern]
        [--work runs/choosing] [--out results/accuracy/choosing-MACHINE.json]

Each SET is a folder of images in class folders. `alexnet train --data SET --minutes M` chooses and
trains; every recipe of --against is then trained on the same images for the seconds that this took,
its schedule ending there: as many epochs as a few timed steps promise, at least one. Test is read
once for each network. Killed, the same command goes on. Nothing else may run meanwhile: time is
what is shared.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from script import obeyed
from trainings import tested, trained

from alexnet.data.dataset import open_dataset
from alexnet.recipe import find_recipe
from alexnet.runs.rundir import RunDir
from alexnet.runtime import environment
from alexnet.support.files import write_json
from alexnet.support.terminal import percent, say
from alexnet.training import measure_pace

AGAINST = ("photos", "imagenette", "modern")
POINTS = 2.0  # of test accuracy that the chosen recipe may be behind


def epochs_in(name: str, data: Path, seconds: float) -> float:
    recipe = find_recipe(name)
    dataset = open_dataset(recipe, data)
    pace = measure_pace(recipe, len(dataset.classes))
    return max(round(seconds * pace / len(dataset.train), 1), 1.0)


def compare(data: Path, against: list[str], minutes: float, work: Path) -> list[dict[str, Any]]:
    """A row for the chosen recipe and one for each that is named."""
    runs = {"chosen": trained(work / "chosen", data, minutes=minutes)}
    for name in against:
        place, how = work / name, {}
        if not (place / "recipe.json").is_file():
            how = {"recipe": name, "epochs": epochs_in(name, data, runs["chosen"]["wall_s"])}
        runs[name] = trained(place, data, **how)
    rows = []
    for name, run in runs.items():
        found = tested(work / name, data, "best")
        saved = RunDir.open(work / name).recipe["recipe"]
        rows.append({
            "set": data.name, "recipe": name, "model": saved["model"], "crop": saved["crop"],
            "epochs": saved["epochs"], "wall_s": run["wall_s"],
            "top1": found["top1"], "top1_ci95": found["top1_ci95"], "n": found["n"],
        })  # fmt: skip
        say(f"{data.name}: {name}: {percent(found['top1'])} in {run['wall_s']:.0f} s")
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the chosen one is before the best of the others, in points of test accuracy, with the
    95 % interval of two independent samples: wider than that of the same images."""
    chosen = next(row for row in rows if row["recipe"] == "chosen")
    best = max((row for row in rows if row is not chosen), key=lambda row: float(row["top1"]))
    variance = sum(row["top1"] * (1 - row["top1"]) / row["n"] for row in (chosen, best))
    ahead, half = 100 * (chosen["top1"] - best["top1"]), 196 * math.sqrt(variance)
    return {
        "set": chosen["set"],
        "best": best["recipe"],
        "ahead": round(ahead, 2),
        "ci95": [round(ahead - half, 2), round(ahead + half, 2)],
        "within": ahead >= -POINTS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--against", nargs="+", default=list(AGAINST), metavar="RECIPE")
    parser.add_argument("--work", type=Path, default=Path("runs/choosing"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    verdicts = []
    for data in args.sets:
        work = args.work / f"{data.name}-{args.minutes:g}"
        work.mkdir(parents=True, exist_ok=True)
        some = compare(data, args.against, args.minutes, work)
        rows += some
        verdicts.append(verdict(some))
        said = verdicts[-1]
        low, high = said["ci95"]
        say(f"{data.name}: {said['ahead']:+.2f} ({low:+.2f} to {high:+.2f}) from {said['best']}")
    about = {"what": "choosing", "minutes": args.minutes, "points": POINTS}
    record = {**about, "verdicts": verdicts, "rows": rows, "environment": environment()}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, record)
    print(json.dumps(verdicts, indent=1))


if __name__ == "__main__":
    obeyed(main)
