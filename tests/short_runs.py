"""Short runs and a small network: what they saved, one that is cut, and two that end alike."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet import commands
from alexnet.models.layers import BatchNorm, Conv, Linear, ReLU
from alexnet.models.net import Net
from alexnet.training import trainer as engine
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


def cut_at(step: int, monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> None:
    """A training that dies before its update number `step` (from 0)."""

    class Cut(Exception):
        pass

    def dying(model: Any, optimizer: Any, batch: Any, *rest: Any) -> Tensor:
        if batch.step == step:
            raise Cut
        return real(model, optimizer, batch, *rest)

    real = engine.train_step
    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", dying)
        with pytest.raises(Cut):
            commands.train(*args, **options)


def assert_same_end(run: Path, other: Path) -> None:
    """Weights and optimiser to the bit, and the same figures."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        mine, theirs = (r / "checkpoints/last" / name for r in (run, other))
        assert mine.read_bytes() == theirs.read_bytes(), name
    events = [[e for e in read_events(r) if e["event"] == "val"] for r in (run, other)]
    assert events[0] == events[1] != []
