"""alexnet bench: throughput beside a reference and the machine's limit."""

from pathlib import Path
from typing import Any

from alexnet.benches.input import bench_input
from alexnet.errors import UsageError
from alexnet.runtime import environment


def bench(
    what: str = "input",
    *,
    data: str | Path | None = None,
    batches: int = 8,
    rounds: int = 5,
    batch_size: int = 128,
) -> dict[str, Any]:
    """Measures the input pipeline, interleaved with the reference in one run.

    Returns `rows` (name, images_per_s, its range, ratio to the reference) and `environment`.
    """
    if what != "input":
        raise UsageError(f"cannot bench {what!r}: there is input")
    if min(batches, rounds, batch_size) < 1:
        raise UsageError(f"batches {batches}, rounds {rounds}, batch_size {batch_size}: 1 or more")
    folder = Path(data).expanduser() if data is not None else None
    found = bench_input(folder, batches=batches, rounds=rounds, batch_size=batch_size)
    return {**found, "environment": environment()}
