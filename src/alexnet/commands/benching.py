"""alexnet bench: throughput beside a reference and the machine's limit."""

from functools import partial
from pathlib import Path
from typing import Any

from alexnet.benches.company import COMPANIES, described, no_company
from alexnet.benches.infer import bench_infer
from alexnet.benches.input import bench_input
from alexnet.benches.train import bench_train
from alexnet.errors import UsageError
from alexnet.interchange.runtimes import rivals
from alexnet.models.zoo import find_model
from alexnet.runtime import chance_kept, environment, pick_device


@chance_kept()
def bench(
    what: str = "input",
    *,
    data: str | Path | None = None,
    batches: int | None = None,
    rounds: int = 5,
    batch_size: int = 128,
    model: str | None = None,
    compile: bool = False,
    alone: bool = False,
) -> dict[str, Any]:
    """Measures reading (`input`), training steps (`train`) or answers (`infer`), in turns with a
    named reference.

    Returns `rows` (name, images_per_s, its range, ratio to the reference) and `environment`; of
    input with `model` also the shares of its training steps that wait for data; of train the
    machine's own limits, the share of them that is reached, and the seconds of each part, and with
    `compile` steps through torch.compile too; of infer the shares for one image and for a batch,
    `parts` in milliseconds, `floor_ms`, what reading the weights once takes, and the runtimes
    `missing` here; beside a GPU, other runtimes, which are a processor's, are left out.
    Unless `alone`, `rows` ends with the same ways in company: beside one busy process a core, of
    the lowest priority and of an equal one (`company`), in turns with the quiet rounds, with the
    fraction of each way's own quiet rate (`of_quiet`); `company` says how many processes of which
    priorities.
    """
    if what not in ("input", "train", "infer"):
        raise UsageError(f"cannot bench {what!r}: there are input, train and infer")
    for name, count in (("batches", batches), ("rounds", rounds), ("batch-size", batch_size)):
        if count is not None and count < 1:
            raise UsageError(f"--{name} {count}: it takes 1 or more")
    if model is not None:
        find_model(model)
    if compile and what != "train":
        raise UsageError(f"bench {what} compiles nothing: leave --compile out")
    companies = () if alone or no_company() else COMPANIES
    if what != "input":
        if data is not None:
            raise UsageError(f"bench {what} makes its own images: leave --data out")
        if batches is not None:
            raise UsageError(f"bench {what} takes one batch at a time: leave --batches out")
        measure = (
            partial(bench_train, compile=compile)
            if what == "train"
            else partial(bench_infer, others=rivals if pick_device().type == "cpu" else None)
        )
        found = measure(
            model or "alexnet-2014", batch_size=batch_size, rounds=rounds, companies=companies
        )
    else:
        folder = Path(data).expanduser() if data is not None else None
        found = bench_input(
            folder,
            batches=batches or 8,
            rounds=rounds,
            batch_size=batch_size,
            model=model,
            companies=companies,
        )
    if companies:
        found["company"] = described()
    if lacking := [] if alone else no_company():
        found["missing"] = [*found.get("missing", ()), *lacking]
    return {"what": what, **found, "environment": environment()}
