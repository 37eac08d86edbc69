"""How long 90 epochs of ILSVRC-2012 take on many devices: a model, and its check on two processes.

    python benchmarks/scaling.py predict                     the table of docs/scaling.md
    python benchmarks/scaling.py measure --out FILE.json     1 and 2 processes here, interleaved
    python benchmarks/scaling.py check FILE.json             the model beside what was measured

A step takes the larger of reading and computing, and what of the exchange the backward pass does
not hide. A ring of n devices sends 2 (n - 1) / n of the gradients' bytes through each, in 2 (n - 1)
turns. What is assumed stands in `Machine`; what is measured comes from records.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from script import obeyed

from alexnet.data.ilsvrc import training_hours
from alexnet.support.files import read_json, write_json

RECORDS = Path(__file__).parents[1] / "results/bench"
PARAMETERS = 60_965_224
STORED = 256 * 256 * 3  # bytes of a raw packed image
PROVEN = 32_768  # the largest batch with published results (arXiv 1709.05011)
HIDDEN = 0.6  # of a step: two thirds are backward, whose last tenth hides nothing


@dataclass(frozen=True)
class Machine:
    """A kind of device and what connects it: bytes or images a second, seconds, dollars."""

    name: str
    images_per_s: float
    input_per_s: float  # images read for each device
    inside: float  # bandwidth within a host
    between: float  # bandwidth between hosts, for each device
    turn: float  # of a ring
    per_host: int
    batch: int  # images for each device
    price: float  # of a device


def machines() -> list[Machine]:
    """The measured processor, and an assumed GPU."""
    trained = json.loads((RECORDS / "train-alexnet-2012-xeon-2.json").read_text())
    best = max(row["images_per_s"] for row in trained["rows"])
    read = json.loads((RECORDS / "input-xeon-2.json").read_text())
    jpeg = next(r["images_per_s"] for r in read["rows"] if "jpeg" in r["name"].lower())
    # 989e12 dense bf16 operations a second is NVIDIA's figure for H100 and H200; that a tenth of it
    # is reached is a guess until `alexnet bench train` has run on one. 2 processor cores a device.
    gpu = 0.1 * 989e12 / trained["flops"]
    return [
        Machine("2 cores (measured)", best, jpeg, 10e9, 1.25e9, 50e-6, 1, 128, 0.10),
        Machine("GPU (assumed)", gpu, 8 * jpeg, 300e9, 50e9, 10e-6, 8, 128, 3.00),
    ]


def step_seconds(m: Machine, devices: int, batch: int, bytes_: float) -> dict[str, float]:
    """Seconds of one step's parts with `batch` images on each device."""
    compute, reading = batch / m.images_per_s, batch / m.input_per_s
    narrow = m.inside if devices <= m.per_host else m.between
    ring = 2 * (devices - 1) / devices * bytes_ / narrow + 2 * (devices - 1) * m.turn
    shown = max(ring - HIDDEN * compute, 0.0)
    return {"compute": compute, "read": reading, "exchange": ring, "shown": shown,
            "step": max(compute + shown, reading)}  # fmt: skip


def predict(m: Machine, devices: int) -> dict[str, Any]:
    """Hours and dollars of the whole training, and what limits it."""
    batch = min(m.batch, PROVEN // devices)
    parts = step_seconds(m, devices, batch, 4 * PARAMETERS)
    images_per_s = batch * devices / parts["step"]
    hours = training_hours(images_per_s)
    limit = "computing"
    if parts["read"] > parts["compute"] + parts["shown"]:
        limit = "reading"
    elif parts["shown"] > 0.2 * parts["step"]:
        limit = "the exchange"
    return {
        "machine": m.name, "devices": devices, "batch": batch * devices, **parts,
        "images_per_s": images_per_s, "hours": hours,
        "efficiency": parts["compute"] / parts["step"], "dollars": hours * devices * m.price,
        "limit": limit,
    }  # fmt: skip


def table() -> str:
    """Markdown, as in docs/scaling.md."""
    head = "| device | devices | batch | images/s | 90 epochs | efficiency | cost | limit |"
    rows = [head, "|---|--:|--:|--:|--:|--:|--:|---|"]
    for m in machines():
        for devices in (1, 8, 64, 512):
            p = predict(m, devices)
            took = f"{p['hours']:,.1f} h" if p["hours"] >= 1 else f"{60 * p['hours']:.1f} min"
            rows.append(
                f"| {m.name} | {devices} | {p['batch']:,} | {p['images_per_s']:,.0f} | {took} | "
                f"{100 * p['efficiency']:.0f} % | ${p['dollars']:,.0f} | {p['limit']} |"
            )
    return "\n".join(rows)


def work(batch: int, steps: int, model: str, out: Path) -> None:
    """Under torchrun: times training steps, and the exchange of the gradients alone."""
    import numpy as np
    import torch
    import torch.distributed as dist

    from alexnet.data.loader import Batch, Piece, Share
    from alexnet.data.statistics import Statistics
    from alexnet.models.zoo import find_model
    from alexnet.recipe import Recipe
    from alexnet.training.data_parallel import distribute
    from alexnet.training.network import build_net, preprocessing
    from alexnet.training.optim import build_optimizer
    from alexnet.training.parallel import join
    from alexnet.training.step import train_step

    side = find_model(model).size
    recipe = Recipe(model=model, size=side, crop=side, precision="fp32", batch_size=batch)
    with join() as team:
        net = build_net(recipe, 1000)
        many, optimizer = distribute(net, team), build_optimizer(net, recipe)
        places = Share(team.rank, team.ranks).places(batch)[0]
        n = len(places)
        given = torch.zeros(n, side, side, 3, dtype=torch.uint8), torch.arange(n)
        piece = (Piece(slice(0, n), places),)
        one = Batch(0, 0, np.arange(n), *given, batch, piece)
        sums = torch.zeros(4, dtype=torch.float64)
        preprocess = preprocessing(recipe, Statistics((0.0,) * 3, (1.0,) * 3, ()))
        took, exchanged = [], []
        for _ in range(steps + 1):
            began = time.perf_counter()
            train_step(many, optimizer, one, 1e-6, recipe, preprocess, sums, None, team)
            took.append(time.perf_counter() - began)
            gradients = torch.zeros(sum(p.numel() for p in net.parameters()))
            team.largest(0)
            began = time.perf_counter()
            if team.size > 1:
                dist.all_reduce(gradients)
            exchanged.append(time.perf_counter() - began)
        if team.leads:
            found = {"ranks": team.ranks, "batch": batch, "steps": took[1:]}
            out.write_text(json.dumps({**found, "exchange": exchanged[1:]}))


def measure(out: Path, rounds: int, batch: int, steps: int, model: str) -> None:
    """One process with half a batch and two with a whole one, a thread each, in turns."""
    from alexnet.runtime import environment

    found: dict[str, Any] = {"half": [], "two": [], "exchange": []}
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, ranks, images in (("half", 1, batch // 2), ("two", 2, batch)):
                print(f"round {turn + 1} of {rounds}: {ranks} x {batch // 2} images", flush=True)
                made = Path(folder) / f"{name}.json"
                launch = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                          "--nproc-per-node", str(ranks), __file__, "work", str(made),
                          str(images), str(steps), model]  # fmt: skip
                subprocess.run(launch, check=True, env=environ)
                one = json.loads(made.read_text())
                found[name].append(statistics.median(one["steps"]))
                if ranks == 2:
                    found["exchange"].append(statistics.median(one["exchange"]))
    record = {"model": model, "batch": batch, "rounds": rounds, "steps": steps, **found}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"rows": rows_of(record), **record, "environment": environment()})
    print(f"wrote {out}")


def rows_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians over the rounds with their range, and what the model says of two processes."""
    half, two, exchange = (record[name] for name in ("half", "two", "exchange"))
    said = [alone + added for alone, added in zip(half, exchange, strict=True)]
    whole, part = record["batch"], record["batch"] // 2
    timed = (
        (f"one process, one thread, {part} images", half),
        (f"two processes, one thread each, {whole} images", two),
        ("the exchange of all gradients, by itself", exchange),
        ("the model of two: one process and the exchange", said),
    )
    return [
        {
            "name": name,
            "seconds": round(statistics.median(of), 3),
            "range": [round(min(of), 3), round(max(of), 3)],
            "ratio": round(statistics.median(a / b for a, b in zip(of, half, strict=True)), 3),
        }
        for name, of in timed
    ]


def check(record: Path) -> int:
    """0 where the model is within a quarter of what two processes took.

    On processors nothing is hidden: who adds gradients does not multiply meanwhile.
    """
    r = read_json(record)
    half, two, exchange = (statistics.median(r[name]) for name in ("half", "two", "exchange"))
    said = half + exchange
    print(f"one process, {r['batch'] // 2} images: {half:.3f} s a step; exchange {exchange:.3f} s")
    print(f"two processes, {r['batch']} images: {two:.3f} s; the model says {said:.3f} s")
    print(f"overhead of two against one with half the batch: {100 * (two / half - 1):.1f} %")
    near = abs(two / said - 1) <= 0.25
    print(f"the model is off by {100 * (said / two - 1):+.1f} %: {'holds' if near else 'does not'}")
    return 0 if near else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("predict")
    sub = verbs.add_parser("measure")
    sub.add_argument("--out", type=Path, default=RECORDS / "scaling-2.json")
    for name, value in (("rounds", 5), ("batch", 64), ("steps", 5)):
        sub.add_argument(f"--{name}", type=int, default=value)
    sub.add_argument("--model", default="alexnet-2012")
    verbs.add_parser("check").add_argument("record", type=Path)
    sub = verbs.add_parser("work")
    sub.add_argument("out", type=Path)
    for name in ("batch", "steps"):
        sub.add_argument(name, type=int)
    sub.add_argument("model")
    a = parser.parse_args()
    if a.verb == "predict":
        print(table())
    elif a.verb == "measure":
        measure(a.out, a.rounds, a.batch, a.steps, a.model)
    elif a.verb == "work":
        work(a.batch, a.steps, a.model, a.out)
    else:
        return check(a.record)
    return 0


if __name__ == "__main__":
    obeyed(main)
