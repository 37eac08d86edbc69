"""The curve of accuracy against minutes: whole trainings of several lengths, several seeds.

    python benchmarks/accuracy.py RECIPE [--data DIR] --epochs 4 8 13 --seeds 0 1 2 \\
        [--set lr=0.002 ...] [--work runs/accuracy] [--out results/accuracy/RECIPE-MACHINE.json]
    ... --test EPOCHS       reads the test split, once, of the trainings of that length
    ... --checkpoint last   is judged, in the place of the best on the held-out slice

Every point is a training of its own, whose learning rate ends where it ends, judged on the held-out
slice of train: decide by that. Killed, the same command goes on. --test comes last, when the length
and all else is decided; what it read stays in the runs, and it is not read twice.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from script import obeyed
from trainings import at_the_end, tested, trained

from alexnet.errors import UsageError
from alexnet.metrics import wilson
from alexnet.recipe import find_recipe
from alexnet.runtime import environment
from alexnet.support.files import read_json, write_json
from alexnet.support.terminal import say


def fields(entries: list[str]) -> dict[str, Any]:
    """name=value of recipe fields, values as JSON or as words."""
    found = {}
    for entry in entries:
        name, sign, text = entry.partition("=")
        if not sign:
            raise UsageError(f"--set {entry!r}: write FIELD=VALUE, as --set lr=0.002")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


def point(runs: list[dict[str, Any]], epochs: float, threads: list[int]) -> dict[str, Any]:
    """A row of the curve: the seeds' mean, with their smallest and largest, and the 95 % interval
    of one whose figure it is (Wilson), since all are asked the same images."""
    top1, n = [run["top1"] for run in runs], runs[0]["n"]
    minutes = [run["wall_s"] / 60 for run in runs]
    return {
        "epochs": epochs,
        "seeds": len(runs),
        "threads": threads,
        "minutes": round(statistics.median(minutes), 2),
        "minutes_range": [round(min(minutes), 2), round(max(minutes), 2)],
        "top1": round(statistics.mean(top1), 5),
        "top1_range": [f"{100 * min(top1):.2f} %", f"{100 * max(top1):.2f} %"],
        "top1_ci95": [f"{100 * end:.2f} %" for end in wilson(statistics.mean(top1) * n, n)],
        "deviation": round(statistics.stdev(top1), 5) if len(top1) > 1 else None,
        "n": n,
        "split": "val",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", help="of the recipe, if it is not a set that is fetched")
    parser.add_argument("--epochs", type=float, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--out", type=Path, help="the record")
    parser.add_argument("--test", type=float, metavar="EPOCHS")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--note", default="", help="what the record says of its data")
    args = parser.parse_args()
    if args.test is not None and args.test not in args.epochs:
        raise UsageError(f"--test {args.test:g} is none of --epochs: no training has that length")
    changed = fields(args.set)
    digest = find_recipe(args.recipe).replace(**changed).digest
    args.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for epochs in dict.fromkeys(args.epochs):
        places = {s: args.work / f"{args.recipe}-{digest}-{epochs:g}-{s}" for s in args.seeds}
        runs = [
            trained(
                place, args.data, recipe=args.recipe, **{**changed, "epochs": epochs, "seed": seed}
            )
            for seed, place in places.items()
        ]
        if args.checkpoint == "last":
            runs = [
                {**run, **at_the_end(place), "wall_s": run["wall_s"]}
                for run, place in zip(runs, places.values(), strict=True)
            ]
        known = [read_json(place / "environment.json") for place in places.values()]
        threads = sorted({one["threads"] for one in known})
        rows.append(point(runs, epochs, threads))
        say(f"{epochs:g} epochs, {rows[-1]['minutes']} minutes: {100 * rows[-1]['top1']:.2f} %")
        if args.test == epochs:
            found = [tested(place, args.data, args.checkpoint) for place in places.values()]
            read = [{**f, "wall_s": run["wall_s"]} for f, run in zip(found, runs, strict=True)]
            rows.append({**point(read, epochs, threads), "split": "test"})
            say(f"test, read once a seed: {100 * rows[-1]['top1']:.2f} %")
    record = {
        "what": "accuracy", "recipe": args.recipe, "set": changed, "note": args.note,
        "checkpoint": args.checkpoint,
        "rows": rows, "environment": environment(),
    }  # fmt: skip
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, record)


if __name__ == "__main__":
    obeyed(main)
