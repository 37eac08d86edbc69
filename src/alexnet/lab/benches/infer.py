"""Inference beside plain PyTorch's, for one image and for many."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.lab.benches.company import QUIET, described
from alexnet.lab.benches.reference import (
    Way,
    emulated,
    matrix_limits,
    plain_net,
    read_limit,
    synchronize,
)
from alexnet.lab.benches.rounds import company_rows, take_turns_in_company
from alexnet.models import Net, find_model, has_int8, summarize
from alexnet.recipe import Recipe
from alexnet.records import BenchRow, CompanyRow, InferBench, PartTimes
from alexnet.runtime import autocast, environment, pick_device, precisions
from alexnet.training import Inference, Int8, build_net, measure_ranges

REFERENCE = "plain PyTorch: eager, fp32, contiguous, its own response norm"
AUTOCAST = "plain PyTorch under bf16 autocast"
LEAST = 32  # images a round: one image is shown so often

Others = Callable[[Net, Tensor], tuple[Mapping[str, nn.Module], list[str]]]
"""From a network and images to the same in other runtimes, by name, and what is not installed."""


def bench_infer(
    model: str,
    *,
    batch_size: int = 128,
    rounds: int = 5,
    classes: int = 1000,
    others: Others | None = None,
    companies: Sequence[str] = (),
) -> InferBench:
    """Times answers of ours beside the reference, for one image and for `batch_size`.

    `share` is that of the machine's matrix multiply; `parts` are those of ours in bf16, and in fp32
    where the processor has nothing for it (int8 has other parts); `floor_ms` is what reading their
    weights once takes, which no answer can do without; `missing` what could not be measured, and
    why. `rows` ends with those of `rounds.company_rows` for each of `companies`.

    On images of noise, in memory as preprocessing leaves them (channels last) for ours, and
    contiguous for the reference.
    """
    device = pick_device()
    preset = find_model(model)
    size, channels = preset.size, preset.channels
    recipe = Recipe(model=model, size=size, crop=size, channels=channels, channels_last=True)
    net = build_net(recipe, classes).to(device).eval()
    plain = plain_net(recipe, classes).to(device).eval()
    example = torch.randn(4, channels, size, size, device=device)
    kinds = precisions(device)
    quickest = Inference(net, kinds[-1])
    ours: dict[str, nn.Module] = {kind: Inference(net, kind) for kind in kinds[:-1]}
    ours[kinds[-1]] = quickest
    if device.type == "cpu" and has_int8():
        ours["int8"] = Int8(net, measure_ranges(net, [example]))
    limits = matrix_limits(ours, device)
    flops = 2 * sum(row.macs for row in summarize(preset.spec(classes), net.input_shape))
    beside, lacking = others(net, example) if others is not None else ({}, [])
    rows: list[BenchRow] = []
    in_company: list[CompanyRow] = []
    parts = []
    for batch in dict.fromkeys((1, batch_size)):
        x = torch.randn(batch, channels, size, size, device=device)
        last = x.contiguous(memory_format=torch.channels_last)
        ways = {
            REFERENCE: _way(plain, x, "fp32"),
            **({AUTOCAST: _way(plain, x, "bf16")} if "bf16" in kinds else {}),
            **{f"ours, {kind}": _way(answers, last, "fp32") for kind, answers in ours.items()},
            **{name: _way(answers, last, "fp32") for name, answers in beside.items()},
        }
        turns = take_turns_in_company(ways, rounds, f"answering {batch} at a time", companies)
        quiet = turns[QUIET]
        for name, timed in quiet.items():
            ms = round(1e3 * batch / timed.images_per_s, 2)
            rows.append(replace(timed.row(name, quiet[REFERENCE]), batch=batch, ms=ms))
        in_company += [replace(row, batch=batch) for row in company_rows(turns, REFERENCE)]
        parts.append(PartTimes(batch=batch, ms=_parts(quickest, last)))
    limits = matrix_limits(ours, device, limits)
    for i, row in enumerate(rows):
        kind = next((kind for kind in ("int8", "bf16") if kind in row.name), "fp32")
        rows[i] = replace(row, share=round(row.images_per_s * flops / limits[kind], 3))
    weights = sum(p.numel() * p.element_size() for p in quickest.parameters())
    read = read_limit(device)
    return InferBench(
        model=model,
        rounds=rounds,
        flops=flops,
        limits=limits,
        read_bytes_per_s=read,
        floor_ms=round(1e3 * weights / read, 2),
        rows=[*rows, *in_company],
        parts=parts,
        missing=emulated(device) + lacking,
        company=described() if companies else None,
        environment=environment(),
    )


def _way(net: nn.Module, x: Tensor, precision: str) -> Way:
    times = max(LEAST // len(x), 1)

    @torch.inference_mode()
    def answer() -> int:
        for _ in range(times):
            with autocast(x.device, precision):
                net(x)
        synchronize(x)
        return times * len(x)

    return answer


@torch.inference_mode()
def _parts(net: Inference, x: Tensor) -> dict[str, float]:
    """Milliseconds of each part, the least of a few times."""
    least: dict[str, float] = {}
    clock = {"at": 0.0}

    def timed(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            synchronize(x)
            now = time.perf_counter()
            least[name] = min(least.get(name, now), 1e3 * (now - clock["at"]))
            clock["at"] = now

        return note

    handles = [layer.register_forward_hook(timed(name)) for name, layer in net.layers.items()]
    try:
        for _ in range(max(LEAST // len(x), 3)):
            clock["at"] = time.perf_counter()
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: round(ms, 3) for name, ms in least.items()}
