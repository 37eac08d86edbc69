"""What is decided where there is a GPU, asked of a processor that pretends to have one."""

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from alexnet import cli

# Deep because what a GPU would be asked for is asked inside of these, and none is here.
from alexnet.data import Split, loader, training_batches
from alexnet.errors import UsageError

# Deep because of the same.
from alexnet.lab.benches import verb as benching
from alexnet.recipe import Recipe

# Deep because of the same.
from alexnet.training import Hardware, join, parallel


def test_float32_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert Hardware.here().device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    # Patched because torch is to see a GPU that is not there.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    here = Hardware.here()
    assert (here.device, here.precision, here.bf16_pace()) == (torch.device("cuda"), "bf16", 1)
    assert not torch.backends.cudnn.allow_tf32


def test_a_slice_is_kept_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split("train", np.arange(9) % 3, np.zeros((9, 3, 3, 3), np.uint8), 3, 3)
    recipe, kept = Recipe(size=3, crop=3, batch_size=3), list[int]()
    # Patched because a processor keeps nothing in a memory of its own.
    monkeypatch.setattr(loader, "copy_to_device", lambda *_: kept.append(1))
    for keep, steps in ((True, range(1)), (None, range(1)), (None, range(6)), (False, range(6))):
        list(training_batches(split, recipe, steps, 0, torch.device("cpu"), keep=keep))
        kept.append(0)
    assert kept == [1, 0, 0, 1, 0, 0]


def test_other_runtimes_are_left_out_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def infer(*_: Any, others: Any, **__: Any) -> dict[str, Any]:
        asked.append(others)
        return {}

    # Patched because nothing can be timed on a GPU that is not there.
    monkeypatch.setattr(benching, "bench_infer", infer)
    for kind in ("cpu", "cuda"):
        # Patched because this processor pretends to be a GPU.
        monkeypatch.setattr(benching, "pick_device", lambda kind=kind: torch.device(kind))
        benching.bench("infer")
    assert asked == [benching.build_runtimes, None]


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchrun's words to one of two processes on a host with GPUs; what is done of NCCL's."""
    done: list[str] = []
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    # Patched because neither GPUs nor NCCL nor another process are there to be joined.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda i: done.append(f"GPU {i}"))
    # Patched because of the same.
    monkeypatch.setattr(parallel, "_meeting_place", lambda: None)
    monkeypatch.setattr(parallel, "_left", [])
    monkeypatch.setattr(dist, "PrefixStore", lambda *_: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: done.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda ranks: ranks)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("end"))
    return done


def test_each_process_has_a_gpu(team: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with join() as found:
        assert (found.rank, found.ranks) == (1, 2)
    assert team == ["GPU 1", "cpu:gloo,cuda:nccl", "end"]
    assert not parallel.left_others()
    # Patched because a host with one GPU is pretended.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes for 1 GPU\(s\): start 1 "), join():
        pass


def test_who_fails_does_not_wait_for_the_others(
    team: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """NCCL would end when all end, and they wait in a sum for this one."""

    def run(error: Exception) -> Any:
        def train(**_: Any) -> Any:
            with join():
                raise error

        return types.SimpleNamespace(train=train)

    def leave(status: int) -> None:
        raise SystemExit(status)

    # Patched because it would end this process.
    monkeypatch.setattr(cli.os, "_exit", leave)
    for error, status, words in (
        (UsageError("no such thing"), 2, "alexnet: no such thing"),
        (ValueError("a fault of ours"), 1, "ValueError: a fault of ours"),
    ):
        # Patched because no training that can be asked for fails by a fault of ours.
        monkeypatch.setitem(sys.modules, "alexnet.commands.train", run(error))
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "digits"])
        assert ended.value.code == status
        assert words in capfd.readouterr().err
    assert "end" not in team
