"""alexnet bench: throughput beside a reference and the machine's limit."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from alexnet.errors import UsageError
from alexnet.lab.benches.company import COMPANIES, no_company
from alexnet.lab.benches.infer import bench_infer
from alexnet.lab.benches.input import bench_input
from alexnet.lab.benches.runtimes import build_runtimes
from alexnet.lab.benches.train import bench_train
from alexnet.models import find_model
from alexnet.records import InferBench, InputBench, TrainBench
from alexnet.runtime import chance_kept, pick_device
from alexnet.support.argument_checks import Range, checked
from alexnet.support.options import option


@checked(batches=Range(1, 10**6), rounds=Range(1, 10**6), batch_size=Range(1, 10**6))
@chance_kept()
def bench(
    what: Literal["input", "train", "infer"] = "input",
    *,
    data: str | Path | None = None,
    batches: int | None = None,
    rounds: int = 5,
    batch_size: int = 128,
    model: str | None = None,
    compile: bool = False,
    alone: bool = False,
) -> InputBench | TrainBench | InferBench:
    """Measures reading (`input`), training steps (`train`) or answers (`infer`), in turns with a
    named reference.

    Returns an InputBench, with `model` also the shares of its training steps that wait for data; a
    TrainBench: the machine's own limits, the share of them that is reached, and the seconds of each
    part, and with `compile` steps through torch.compile too; or an InferBench: the shares for one
    image and for a batch, parts in milliseconds, what reading the weights once takes, and the
    runtimes missing here; beside a GPU, other runtimes, which are a processor's, are left out.
    Unless `alone`, `rows` ends with the same ways in company: beside one busy process a core, of
    the lowest priority and of an equal one, in turns with the quiet rounds, with the fraction of
    each way's own quiet rate.
    """
    if model is not None:
        find_model(model)
    if compile and what != "train":
        raise UsageError(f"bench {what} compiles nothing: leave {option('compile', True)} out")
    companies = () if alone or no_company() else COMPANIES
    result: InputBench | TrainBench | InferBench
    if what != "input":
        if data is not None:
            raise UsageError(f"bench {what} makes its own images: leave {option('data')} out")
        if batches is not None:
            raise UsageError(
                f"bench {what} takes one batch at a time: leave {option('batches')} out"
            )
        model = model or "alexnet-2014"
        how: dict[str, Any] = {
            "batch_size": batch_size, "rounds": rounds, "companies": companies,
        }  # fmt: skip
        if what == "train":
            result = bench_train(model, compile=compile, **how)
        else:
            others = build_runtimes if pick_device().type == "cpu" else None
            result = bench_infer(model, others=others, **how)
    else:
        folder = Path(data).expanduser() if data is not None else None
        result = bench_input(
            folder,
            batches=batches or 8,
            rounds=rounds,
            batch_size=batch_size,
            model=model,
            companies=companies,
        )
    if lacking := [] if alone else no_company():
        result = replace(result, missing=[*(result.missing or ()), *lacking])
    return result
