"""Training steps through torch.compile."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import alexnet
from alexnet.errors import Interrupted, Unavailable, UsageError
from alexnet.recipe import Recipe
from alexnet.training import Compiled, build_net
from conftest import read_events, without_report
from short_runs import at_each_step, same_bits

SMALL = Recipe(model="alexnet-2012-32", precision="fp32", compile=True)


def losses(run: Path) -> list[float]:
    return [e["loss"] for e in read_events(run) if e["event"] in ("train", "val")]


def looks(run: Path) -> list[set[str]]:
    return [set(e["dead"]) for e in read_events(run) if e["event"] == "look"]


def stop(step: int) -> None:
    """As a cluster stops a training, in the middle."""
    if step == 7:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_compiled_training_is_the_plain_one(
    traced: list[None], idx_folder: Path, tiny: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same numbers up to rounding, and a look by hooks still sees every layer. Cut and
    continued it ends with the same bits."""
    without_report(monkeypatch)
    plain, quick, cut = (tmp_path / name for name in ("plain", "quick", "cut"))
    words = {**tiny, "data": idx_folder, "steps": 12, "log_every": 1}
    alexnet.train("digits", run=plain, **words)
    assert not traced
    alexnet.train("digits", run=quick, compile=True, **words)
    assert len(traced) == words["steps"] - 1  # all but the step that is looked into
    assert losses(quick) == pytest.approx(losses(plain), rel=1e-3)
    assert looks(quick) == looks(plain) != []
    recipes = [json.loads((run / "recipe.json").read_text()) for run in (plain, quick)]
    assert recipes[0]["digest"] != recipes[1]["digest"]

    with at_each_step(stop), pytest.raises(Interrupted):
        alexnet.train("digits", run=cut, compile=True, **words)
    torch._dynamo.reset()
    alexnet.train(run=cut, resume=True)
    ends = (load_file(run / "checkpoints/last/model.safetensors") for run in (quick, cut))
    assert same_bits(*ends)


def test_a_batch_in_parts_is_not_compiled() -> None:
    with pytest.raises(UsageError, match="accumulate is 2"):
        SMALL.replace(accumulate=2)


def test_a_machine_that_cannot_compile_says_so() -> None:
    def lacking(graph: Any, given: Any) -> Any:
        raise RuntimeError("no g++ here")

    torch._dynamo.reset()
    quick = Compiled(build_net(SMALL, 10), lacking)
    with pytest.raises(Unavailable, match=r"no g\+\+ here.*leave compile=True out"):
        quick(torch.zeros(2, 3, 32, 32))


def test_a_signal_while_it_compiles_ends_it_as_any_other() -> None:
    """What is raised in a compiler is wrapped by it, and was a traceback."""

    def stopped(graph: Any, given: Any) -> Any:
        raise Interrupted(signal.SIGTERM, "alexnet train --resume")

    torch._dynamo.reset()
    quick = Compiled(build_net(SMALL, 10), stopped)
    with pytest.raises(Interrupted, match="--resume") as caught:
        quick(torch.zeros(2, 3, 32, 32))
    assert caught.value.signum == signal.SIGTERM


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("model", ["alexnet-2012-32", "cifar-alexnet"])
def test_compiled_code_has_the_networks_gradients(model: str) -> None:
    """In C++, without dropout, whose masks it draws in another way; in float64, where rounding
    turns no pool's choice."""
    torch._dynamo.reset()
    net = build_net(SMALL.replace(model=model, dropout=0.0), 10).train().double()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for one in (net, Compiled(net)):
        net.zero_grad(set_to_none=True)
        one(images).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert (found[0] - found[1]).norm() <= 1e-12 * found[0].norm()
