"""Short runs and a small network: what they saved, one that is cut, and two that end alike."""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import alexnet
from alexnet.models import BatchNorm, Conv, Linear, Net, ReLU
from conftest import read_events, without_pictures

QUICK: dict[str, Any] = {
    "steps": 2,
    "batch_size": 8,
    "eval_every": 100,
    "log_every": 1,
    "keep": 99,
    "shift": 0,
    "rotate": 0.0,
    "scale": 0.0,
    "precision": "fp32",
    "workers": 0,
    "doctor": "off",
}


@pytest.fixture(autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes longer than these runs, and other tests look at pictures."""
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        yield


def small_net() -> Net:
    """Three convolutions with batch norm, two fully connected layers."""
    spec = [
        *(Conv("conv1", 4, 3), BatchNorm(), ReLU()),
        *(Conv("conv2", 5, 3), BatchNorm(), ReLU()),
        *(Conv("conv3", 6, 3), BatchNorm(), ReLU()),
        *(Linear("fc4", 7), ReLU()),
        Linear("fc5", 3),
    ]
    return Net(spec, (1, 8, 8))


def model_file(run: Path, checkpoint: str = "best") -> Path:
    return run / "checkpoints" / checkpoint / "model.safetensors"


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(v, second[k]) for k, v in first.items()
    )


def saved(run: Path) -> dict[str, Any]:
    return json.loads((run / "recipe.json").read_text())  # type: ignore[no-any-return]


class Listener(io.StringIO):
    """A standard error that calls `heard` with each line that is printed on it."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        super().__init__()
        self._heard = heard

    def write(self, text: str) -> int:
        self._heard(text)
        return super().write(text)


def at_each_line(heard: Callable[[str], None]) -> AbstractContextManager[Listener]:
    """Inside, `heard` is called with each line that is said to people: it may look, or raise."""
    return redirect_stderr(Listener(heard))


def at_each_step(heard: Callable[[int], None]) -> AbstractContextManager[Listener]:
    """Inside, `heard` is called with the number of each update whose figures a training says."""

    def number(line: str) -> None:
        if found := re.match(r"step +([\d,]+)  epoch .* images/s", line):
            heard(int(found[1].replace(",", "")))

    return at_each_line(number)


class Cut(Exception):
    """Stands in for a kill."""


def cut_at(step: int, *args: Any, **options: Any) -> None:
    """A training that dies as it says the figures of update number `step` (from 1), of which
    nothing is saved yet."""

    def die(now: int) -> None:
        if now == step:
            raise Cut

    with at_each_step(die), pytest.raises(Cut):
        alexnet.train(*args, **options)


def assert_same_end(run: Path, other: Path) -> None:
    """Weights and optimiser to the bit, and the same figures."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, theirs = (r / "checkpoints/last" / name for r in (run, other))
        assert mine.read_bytes() == theirs.read_bytes(), name
    events = [[e for e in read_events(r) if e["event"] == "val"] for r in (run, other)]
    assert events[0] == events[1] != []
