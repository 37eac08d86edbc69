"""Training steps beside plain PyTorch's, beside the machine's own limit, and part by part."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.data import Split, Statistics
from alexnet.lab.benches.company import QUIET, described
from alexnet.lab.benches.reference import Way, emulated, matrix_limits, plain_net, synchronize
from alexnet.lab.benches.rounds import company_rows, take_turns_in_company
from alexnet.models import Net, find_model, training_operations
from alexnet.recipe import Recipe
from alexnet.records import BenchRow, CompanyRow, PartSeconds, TrainBench
from alexnet.runtime import autocast, environment, pick_device, precisions
from alexnet.training import Trainer, TrainingData, plain_step

STEPS = {"cpu": 1, "cuda": 50}  # that are timed as one: a GPU's are too short for a clock
REFERENCE = "plain PyTorch: eager, fp32, contiguous, its own response norm, SGD one by one"


def bench_train(
    model: str,
    *,
    batch_size: int = 128,
    rounds: int = 3,
    classes: int = 1000,
    compile: bool = False,
    companies: Sequence[str] = (),
) -> TrainBench:
    """Times steps of ours beside the reference; `share` is that of the machine's matrix multiply in
    the same precision. `rows` ends with those of `rounds.company_rows` for each of `companies`;
    `missing` is bf16, and why, where the processor has nothing for it.

    On images of noise, made once: reading them is `bench input`.
    """
    device = pick_device()
    preset = find_model(model)
    size, channels = preset.size, preset.channels
    recipe = Recipe(model=model, batch_size=batch_size, size=size, crop=size, channels=channels)
    x = torch.randn(batch_size, channels, size, size, device=device)
    y = torch.randint(0, classes, (batch_size,), device=device)
    kinds = precisions(device)
    recipes = {f"ours, {k}": recipe.replace(precision=k, channels_last=True) for k in kinds}
    quickest = recipes[f"ours, {kinds[-1]}"]
    if compile:
        recipes |= {f"{name}, compiled": r.replace(compile=True) for name, r in recipes.items()}
    ways: dict[str, Way] = {REFERENCE: _plain_step(recipe, x, y, classes)}
    for name, one in recipes.items():
        ways[name] = _our_step(one, x, y, classes)
    limits = matrix_limits(kinds, device)
    turns = take_turns_in_company(ways, rounds, f"training {model}", companies, untimed=1)
    quiet, limits = turns[QUIET], matrix_limits(kinds, device, limits)
    flops = training_operations(preset.spec(classes), (channels, size, size))
    rows: list[BenchRow | CompanyRow] = []
    for name, timed in quiet.items():
        limit = limits["bf16" if "bf16" in name else "fp32"]
        share = round(timed.images_per_s * flops / limit, 3)
        rows.append(replace(timed.row(name, quiet[REFERENCE]), share=share))
    rows += company_rows(turns, REFERENCE)
    return TrainBench(
        model=model,
        batch_size=batch_size,
        rounds=rounds,
        flops=flops,
        limits=limits,
        rows=rows,
        parts=_parts(quickest, x, y, classes),
        missing=emulated(device),
        company=described() if companies else None,
        environment=environment(),
    )


def _plain_step(recipe: Recipe, x: Tensor, y: Tensor, classes: int) -> Way:
    net = plain_net(recipe, classes).to(x.device)
    optimizer = torch.optim.SGD(
        net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, foreach=False, fused=False
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return _several(step, x)


def _several(step: Callable[[], None], x: Tensor) -> Way:
    """As many steps as a clock needs, one after the other without a wait between them."""

    def run() -> int:
        for _ in range(STEPS[x.device.type]):
            step()
        synchronize(x)
        return len(x) * STEPS[x.device.type]

    return run


def _our_step(recipe: Recipe, x: Tensor, y: Tensor, classes: int) -> Way:
    trainer = _trainer(recipe, classes)
    x = x.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        plain_step(trainer.step_model, trainer.optimizer, x, y, recipe.precision)

    return _several(step, x)


def _trainer(recipe: Recipe, classes: int) -> Trainer:
    """A trainer whose images are not read: what is timed begins with images as a network takes
    them."""
    shape = (recipe.batch_size, recipe.size, recipe.size, recipe.channels)
    labels = np.zeros(recipe.batch_size, np.int64)
    black = Split(
        "train", labels, np.broadcast_to(np.uint8(0), shape), recipe.size, recipe.channels
    )
    statistics = Statistics((0.0,) * recipe.channels, (1.0,) * recipe.channels, ())
    return Trainer(recipe, TrainingData(black, black, classes, statistics))


def _parts(recipe: Recipe, x: Tensor, y: Tensor, classes: int) -> list[PartSeconds]:
    """Seconds of each part, medians of three steps after two: forward, backward, optimiser."""
    trainer = _trainer(recipe, classes)
    net, optimizer = trainer.net, trainer.optimizer
    x = x.contiguous(memory_format=torch.channels_last)
    steps: list[dict[str, dict[str, float]]] = []
    for _ in range(5):
        seconds = {name: {"forward": 0.0, "backward": 0.0} for name in net.parts}
        optimizer.zero_grad(set_to_none=True)
        with _timed(net, seconds, x), autocast(x.device, recipe.precision):
            loss = F.cross_entropy(net(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
        synchronize(x)
        began = time.perf_counter()
        optimizer.step()
        synchronize(x)
        seconds["optimiser"] = {"forward": time.perf_counter() - began, "backward": 0.0}
        steps.append(seconds)
    return [
        PartSeconds(
            part=part,
            **{
                way: round(statistics.median(step[part][way] for step in steps[2:]), 5)
                for way in ("forward", "backward")
            },
        )
        for part in steps[0]
    ]


@contextmanager
def _timed(net: Net, seconds: dict[str, dict[str, float]], x: Tensor) -> Iterator[None]:
    """Times each part: forward around the call; backward from when the gradient of its output is
    there to when that of its input is."""
    clock = {"at": 0.0}
    handles = []

    def arrive(name: str, before: str | None) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            synchronize(x)
            now = time.perf_counter()
            if before is not None:
                seconds[before]["backward"] = now - clock["at"]
            clock["at"] = now

        return note

    names = list(net.parts)
    for i, name in enumerate(names):
        after = names[i + 1] if i + 1 < len(names) else None

        def start(*_: Any, name: str = name) -> None:
            synchronize(x)
            seconds[name]["forward"] = -time.perf_counter()

        def stop(_m: Any, _i: Any, out: Tensor, name: str = name, after: Any = after) -> None:
            synchronize(x)
            seconds[name]["forward"] += time.perf_counter()
            if out.requires_grad:
                out.register_hook(arrive(name, after))  # type: ignore[no-untyped-call]

        handles += [
            net.part(name).register_forward_pre_hook(start),
            net.part(name).register_forward_hook(stop),
        ]
    try:
        yield
        synchronize(x)
        seconds[names[0]]["backward"] = time.perf_counter() - clock["at"]
    finally:
        for handle in handles:
            handle.remove()
