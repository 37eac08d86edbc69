"""Whether training in bf16 is training: its loss curves beside the spread of fp32's over seeds.

    python benchmarks/precisions.py [RECIPE] [--data DIR] --seeds 0 1 2 3 4 [--set lr=0.002 ...]
        [--work runs/precisions] [--out results/accuracy/precisions-RECIPE-MACHINE.json]
        [--picture docs/precisions.png]

A row for each validation: the loss on the held-out slice in both precisions, mean over the seeds,
and how far bf16's mean is from fp32's in deviations that fp32 has from seed to seed. The two differ
by chance too, with a deviation of sqrt(2 / seeds) of these; `shift` is the difference over that,
and `spread` the ratio of the deviations. Killed, the same command goes on.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from accuracy import fields
from script import obeyed
from trainings import trained

from alexnet.errors import UsageError
from alexnet.figures.canvas import BLUE, ORANGE, new_figure, style_axes, write_figure
from alexnet.recipe import find_recipe
from alexnet.runs.rundir import RunDir
from alexnet.runtime import environment
from alexnet.support.files import write_json
from alexnet.support.terminal import say

PRECISIONS = ("fp32", "bf16")


def curve(place: Path) -> dict[float, float]:
    """Loss on the held-out slice by epoch."""
    return {e["epoch"]: e["loss"] for e in RunDir.open(place).events() if e["event"] == "val"}


def compare(curves: dict[str, list[dict[float, float]]]) -> list[dict[str, Any]]:
    """A row an epoch, as the head of this file says."""
    rows = []
    for epoch in curves["fp32"][0]:
        losses = {kind: [c[epoch] for c in found] for kind, found in curves.items()}
        means = {kind: statistics.mean(found) for kind, found in losses.items()}
        spread = {kind: statistics.stdev(found) for kind, found in losses.items()}
        apart = (means["bf16"] - means["fp32"]) / spread["fp32"]
        rows.append({
            "epoch": round(epoch, 2),
            **{f"{kind}_loss": round(mean, 4) for kind, mean in means.items()},
            "fp32_deviation": round(spread["fp32"], 4),
            "deviations_apart": round(apart, 2),
            "shift": round(apart / math.sqrt(2 / len(losses["fp32"])), 2),
            "spread": round(spread["bf16"] / spread["fp32"], 2),
        })  # fmt: skip
    return rows


def draw(curves: dict[str, list[dict[float, float]]], name: str, out: Path) -> None:
    figure = new_figure(6, 3.6, name)
    axes = figure.subplots()
    for (kind, found), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        for i, one in enumerate(found):
            label = f"{kind}, {len(found)} seeds" if i == 0 else None
            axes.plot(list(one), list(one.values()), color=colour, lw=1, label=label)
    axes.set(xlabel="epoch", ylabel="loss, held-out slice", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False, fontsize=8)
    style_axes(axes)
    write_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--work", type=Path, default=Path("runs/precisions"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    changed = fields(args.set)
    if len(set(args.seeds)) < 2:
        raise UsageError(f"--seeds {args.seeds}: a spread needs two or more, as --seeds 0 1 2")
    if "precision" in changed:
        raise UsageError("both precisions are trained: leave precision out of --set")
    digest = find_recipe(args.recipe).replace(**changed).digest
    args.work.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[float, float]]] = {kind: [] for kind in PRECISIONS}
    for seed in args.seeds:
        for kind, found in curves.items():
            place = args.work / f"{args.recipe}-{digest}-{kind}-{seed}"
            how = {**changed, "seed": seed, "precision": kind}
            top1 = trained(place, args.data, recipe=args.recipe, **how)["top1"]
            found.append(curve(place))
            say(f"seed {seed}, {kind}: best top-1 {100 * top1:.2f} %")
    rows = compare(curves)
    say(f"largest shift {max(abs(row['shift']) for row in rows):.2f} over {len(rows)} validations")
    record = {
        "what": "precisions", "recipe": args.recipe, "set": changed, "seeds": len(args.seeds),
        "rows": rows, "environment": environment(),
    }  # fmt: skip
    if args.picture:
        draw(curves, f"{args.recipe}, {environment()['cpu']}", args.picture)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, record)
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    obeyed(main)
