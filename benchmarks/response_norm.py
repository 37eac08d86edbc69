"""Response norm, forward and backward, beside torch.nn.functional.local_response_norm.

    python benchmarks/response_norm.py [--rounds 9] [--out results/bench/response-norm-MACHINE.json]

One run, interleaved, the order turned round every time; medians. The reference in bfloat16 runs
under autocast, which takes it to float32: torch's own norm has no bfloat16 kernel on the CPU.
The floor is what must be moved at least: forward reads a and writes b, backward reads a and the
gradient and writes the gradient, over the bandwidth of a plain copy measured in the same run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import script  # before torch, for its threads
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import response_norm
from alexnet.runtime import environment, pick_device

SHAPE = (64, 96, 55, 55)  # conv1's maps for 64 images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = pick_device()
    rows = [
        measure(kind, layout, device, args.rounds)
        for kind in (torch.float32, torch.bfloat16)
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    record = {"shape": SHAPE, "rounds": args.rounds, "rows": rows, "environment": environment()}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(
    kind: torch.dtype, layout: torch.memory_format, device: torch.device, rounds: int
) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(SHAPE, device=device).to(kind).contiguous(memory_format=layout)
    gradient, target = torch.randn_like(x), torch.empty_like(x)
    x.requires_grad_()
    low = kind != torch.float32

    def reference(a: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            return F.local_response_norm(a, 5, 5e-4, 0.75, 2.0)

    def both(norm: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            x.grad = None
            b = norm(x)
            b.backward(gradient.to(b.dtype))

        return run

    def copy() -> None:
        target.copy_(gradient)

    runs = {"torch": both(reference), "ours": both(response_norm), "copy": copy}
    if device.type == "cuda":
        runs["ours, compiled"] = both(torch.compile(response_norm))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name in runs if turn % 2 else reversed(runs):
            seconds = timed(runs[name], device)
            if turn:
                times[name].append(seconds)
    medians = {name: statistics.median(t) for name, t in times.items()}
    floor = 2.5 * medians["copy"]  # a copy moves two of the five tensors that must be moved
    row = {
        "dtype": str(kind).removeprefix("torch."),
        "layout": "NCHW" if layout == torch.contiguous_format else "channels-last",
        "ms": {name: round(1e3 * t, 2) for name, t in medians.items()},
        "spread_ms": {n: [round(1e3 * f(t), 2) for f in (min, max)] for n, t in times.items()},
        "floor_ms": round(1e3 * floor, 2),
        "ratio": round(medians["torch"] / medians["ours"], 2),
    }
    print(json.dumps(row), flush=True)
    return row


def timed(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    script.obeyed(main)
