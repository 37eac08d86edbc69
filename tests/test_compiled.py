"""Training steps through torch.compile."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import commands
from alexnet.errors import Interrupted, Unavailable, UsageError
from alexnet.predict import load
from alexnet.recipe import Recipe
from alexnet.training import compiled as module
from alexnet.training.compiled import Compiled, compiled
from alexnet.training.network import build_net
from alexnet.training.parallel import Team
from conftest import read_events, without_report

SMALL = Recipe(model="alexnet-2012-32", precision="fp32", compile=True)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead, and not made into C++, which takes minutes."""
    monkeypatch.setattr(module, "BACKEND", "aot_eager")


def losses(run: Path) -> list[float]:
    return [e["loss"] for e in read_events(run) if e["event"] in ("train", "val")]


def test_a_compiled_training_is_the_plain_one(
    traced: None, idx_folder: Path, tiny: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same numbers up to rounding, and a look by hooks still sees every layer."""
    without_report(monkeypatch)
    calls: list[torch.Size] = []
    forward = Compiled.forward

    def counted(self: Compiled, images: torch.Tensor) -> torch.Tensor:
        calls.append(images.shape)
        return forward(self, images)

    monkeypatch.setattr(Compiled, "forward", counted)
    for name in ("plain", "quick"):
        words = tiny | {"compile": name == "quick"}
        commands.train("digits", data=idx_folder, run=tmp_path / name, **words)
    assert len(calls) == tiny["steps"] - 1  # all but the step that is looked into
    assert losses(tmp_path / "quick") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
    looks = [e["dead"].keys() for e in read_events(tmp_path / "quick") if e["event"] == "look"]
    assert looks == [e["dead"].keys() for e in read_events(tmp_path / "plain") if "dead" in e]
    digests = [
        json.loads((tmp_path / name / "recipe.json").read_text())["digest"]
        for name in ("plain", "quick")
    ]
    assert digests[0] != digests[1]


def test_cut_and_continued_it_ends_with_the_same_bits(
    traced: None, idx_folder: Path, tiny: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    without_report(monkeypatch)
    words = tiny | {"compile": True, "steps": 12, "save_every": 5}
    commands.train("digits", data=idx_folder, run=tmp_path / "whole", **words)
    stopping = stop_after(6)
    monkeypatch.setattr(Compiled, "forward", stopping(Compiled.forward))
    with pytest.raises(Interrupted):
        commands.train("digits", data=idx_folder, run=tmp_path / "cut", **words)
    monkeypatch.undo()
    without_report(monkeypatch)
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    commands.train(run=tmp_path / "cut", resume=True)
    first, second = (
        torch.cat([p.flatten() for p in load(tmp_path / name, "last").model.parameters()])
        for name in ("whole", "cut")
    )
    assert torch.equal(first, second)


def stop_after(calls: int) -> Callable[[Any], Any]:
    """Asks the training to stop, as a cluster does, at a step in the middle."""

    def around(forward: Any) -> Any:
        seen = iter(range(10**6))

        def call(self: Compiled, images: torch.Tensor) -> torch.Tensor:
            if next(seen) == calls:
                os.kill(os.getpid(), signal.SIGTERM)
            result: torch.Tensor = forward(self, images)
            return result

        return call

    return around


def test_what_is_not_compiled_is_refused() -> None:
    net = build_net(SMALL, 10)
    assert compiled(net, SMALL.replace(compile=False), Team()) is net
    with pytest.raises(UsageError, match="leave --compile out under torchrun"):
        compiled(net, SMALL, Team(ranks=2))
    with pytest.raises(UsageError, match="accumulate is 2"):
        SMALL.replace(accumulate=2)


def test_a_machine_that_cannot_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(graph: Any, given: Any) -> Any:
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(module, "BACKEND", lacking)
    quick = compiled(build_net(SMALL, 10), SMALL, Team())
    with pytest.raises(Unavailable, match=r"no g\+\+ here.*leave --compile out"):
        quick(torch.zeros(2, 3, 32, 32))


def test_a_signal_while_it_compiles_ends_it_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised in a compiler is wrapped by it, and was a traceback."""

    def stopped(graph: Any, given: Any) -> Any:
        raise Interrupted(signal.SIGTERM, "alexnet train --resume")

    monkeypatch.setattr(module, "BACKEND", stopped)
    quick = compiled(build_net(SMALL, 10), SMALL, Team())
    with pytest.raises(Interrupted, match="--resume") as caught:
        quick(torch.zeros(2, 3, 32, 32))
    assert caught.value.signum == signal.SIGTERM


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("model", ["alexnet-2012-32", "cifar-alexnet"])
def test_compiled_code_has_the_networks_gradients(model: str) -> None:
    """In C++, without dropout, whose masks it draws in another way; in float64, where rounding
    turns no pool's choice."""
    net = build_net(SMALL.replace(model=model, dropout=0.0), 10).train().double()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for one in (net, Compiled(net)):
        net.zero_grad(set_to_none=True)
        one(images).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert (found[0] - found[1]).norm() <= 1e-12 * found[0].norm()
