"""What the guard beside a training costs, as a share of its steps.

    python benchmarks/sentinel.py [--rounds 9] [--out results/bench/sentinel-MACHINE.json]

Steps that the sentinel looks at and steps that it does not, in turns; it looks at one of a hundred.
To that comes the judgement of a line of figures, made every twenty steps.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import script  # before torch, for its threads
import torch
import torch.nn.functional as F

from alexnet.diagnosis.sentinel import LOOK_EVERY, Sentinel
from alexnet.lab.benches.rounds import take_turns
from alexnet.models.zoo import build_model
from alexnet.runtime import autocast, choose_precision, environment, pick_device
from alexnet.support.files import write_json
from alexnet.training.optim import PaperSGD

MODELS = {"alexnet-2012": 64, "alexnet-2014": 64, "cifar-alexnet": 128}  # with the batch
LINES, LOG_EVERY = 200, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [measure(name, batch, args.rounds) for name, batch in MODELS.items()]
    for row in rows:
        print(
            f"{row['model']:16} step {row['step_ms']:8.1f} ms, a look {row['look_ms']:7.1f} more, "
            f"a line {row['line_ms']:.2f} ms: {row['share']:.3%} of the time"
        )
    if args.out:
        write_json(args.out, {"look_every": LOOK_EVERY, "line_every": LOG_EVERY,
                              "rounds": args.rounds, "rows": rows,
                              "environment": environment()})  # fmt: skip


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    device = pick_device()
    net = build_model(name, 10).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(batch, *net.input_shape, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,), device=device)
    optimizer = PaperSGD(net.parameters(), 0.01, 0.9, 5e-4)
    precision = choose_precision("auto", device)
    sentinel = Sentinel(net, [0.1] * 10)

    def step(number: int) -> int:
        with sentinel.look(number):
            optimizer.zero_grad()
            with autocast(device, precision):
                loss = F.cross_entropy(net(x).float(), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
        return batch

    ways: dict[str, Callable[[], int]] = {"plain": lambda: step(1), "looked at": lambda: step(0)}
    found = take_turns(ways, rounds, name)
    plain, looked = (batch / found[way].images_per_s for way in ways)
    line = judged(sentinel)
    share = ((looked - plain) / LOOK_EVERY + line / LOG_EVERY) / plain
    return {
        "model": name,
        "batch": batch,
        "precision": precision,
        "step_ms": 1e3 * plain,
        "look_ms": 1e3 * (looked - plain),
        "line_ms": 1e3 * line,
        "share": share,
    }


def judged(sentinel: Sentinel) -> float:
    """Seconds to judge a line, with as many before it as are kept."""
    seconds = []
    for i in range(2 * LINES):
        loss = 2.0 - i / 400
        line = {"event": "train", "step": 20 * i, "loss": loss, "loss_mean": loss, "lr": 0.01}
        began = time.perf_counter()
        sentinel.note({**line, "epoch": i / 10, "top1": 0.3, "data_wait": 0.0})
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[LINES:])


if __name__ == "__main__":
    script.obeyed(main)
