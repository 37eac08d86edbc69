"""alexnet bench: throughput beside a reference and the machine's limit."""

from pathlib import Path
from typing import Any

from alexnet.benches.input import bench_input
from alexnet.errors import UsageError
from alexnet.models.zoo import find_model
from alexnet.runtime import environment


def bench(
    what: str = "input",
    *,
    data: str | Path | None = None,
    batches: int = 8,
    rounds: int = 5,
    batch_size: int = 128,
    model: str | None = None,
) -> dict[str, Any]:
    """Measures the input pipeline, interleaved with the reference in one run.

    Returns `rows` (name, images_per_s, its range, ratio to the reference), with `model` the
    shares of its training steps that wait for data, and `environment`.
    """
    if what != "input":
        raise UsageError(f"cannot bench {what!r}: there is input")
    if min(batches, rounds, batch_size) < 1:
        raise UsageError(f"batches {batches}, rounds {rounds}, batch_size {batch_size}: 1 or more")
    folder = Path(data).expanduser() if data is not None else None
    if model is not None:
        find_model(model)
    found = bench_input(folder, batches=batches, rounds=rounds, batch_size=batch_size, model=model)
    return {**found, "environment": environment()}
