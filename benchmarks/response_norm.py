"""Response norm, forward and backward, beside torch.nn.functional.local_response_norm.

    python benchmarks/response_norm.py [--rounds 9] [--out results/bench/response-norm-MACHINE.json]

One run, interleaved, the order turned round every time; medians. The reference in bfloat16 runs
under autocast, which takes it to float32: torch's own norm has no bfloat16 kernel on the CPU.
The floor is what must be moved at least: forward reads a and writes b, backward reads a and the
gradient and writes the gradient, over the bandwidth of a plain copy measured in the same run.

On a processor a few of the rounds are also run beside one busy process a core, of the lowest and of
an equal priority, in turns with the quiet ones, without any setting of how threads wait, which is
what a program that imports alexnet has. Their rows have `company`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from script import obeyed  # after torch, where it no longer sets how threads wait
from torch import Tensor

from alexnet import response_norm
from alexnet.lab.benches.company import COMPANIES, QUIET, in_company, no_company
from alexnet.lab.benches.rounds import companies_by_round
from alexnet.runtime import environment, pick_device

SHAPE = (64, 96, 55, 55)  # conv1's maps for 64 images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = pick_device()
    rows = [
        row
        for kind in (torch.float32, torch.bfloat16)
        for layout in (torch.contiguous_format, torch.channels_last)
        for row in measure(kind, layout, device, args.rounds)
    ]
    rows.sort(key=lambda row: "company" in row)
    record = {"shape": SHAPE, "rounds": args.rounds, "rows": rows, "environment": environment()}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(
    kind: torch.dtype, layout: torch.memory_format, device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """A row quiet, and one in each company."""
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
    companies = () if device.type == "cuda" or no_company() else COMPANIES
    times: dict[str, dict[str, list[float]]] = {
        company: {name: [] for name in runs} for company in (QUIET, *companies)
    }
    for run in runs.values():
        run()
    for turn, beside in enumerate(companies_by_round(rounds, companies)):
        for company in beside:
            with in_company(company):
                for name in runs if turn % 2 else reversed(runs):
                    times[company][name].append(timed(runs[name], device))
    rows = []
    for company, by_name in times.items():
        medians = {name: statistics.median(t) for name, t in by_name.items()}
        row = {
            "dtype": str(kind).removeprefix("torch."),
            "layout": "NCHW" if layout == torch.contiguous_format else "channels-last",
            **({} if company == QUIET else {"company": company}),
            "ms": {name: round(1e3 * t, 2) for name, t in medians.items()},
            "spread_ms": {
                n: [round(1e3 * f(t), 2) for f in (min, max)] for n, t in by_name.items()
            },
            # A copy moves two of the five tensors that must be moved.
            **({"floor_ms": round(2.5e3 * medians["copy"], 2)} if company == QUIET else {}),
            "ratio": round(medians["torch"] / medians["ours"], 2),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def timed(run: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    obeyed(main)
