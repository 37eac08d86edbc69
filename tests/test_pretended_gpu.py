"""What is decided where there is a GPU, asked of a processor that pretends to have one."""

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from alexnet import cli, runtime
from alexnet.commands import benching
from alexnet.data import loader
from alexnet.data.slices import Slice
from alexnet.errors import UsageError
from alexnet.memory import short_of_memory
from alexnet.recipe import Recipe
from alexnet.training import optim, parallel, settings
from alexnet.training.optim import Lars, PaperSGD


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(settings, "choose_precision", lambda asked, _: "bf16")


def test_float32_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert runtime.pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.pick_device() == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("accumulate", "ranks", "images"), [(1, 1, 4096), (4, 1, 1024), (1, 8, 512), (3, 8, 171)]
)
def test_a_trial_step_is_what_a_gpu_has_at_once(
    gpu: None, accumulate: int, ranks: int, images: int
) -> None:
    recipe = Recipe(batch_size=4096, accumulate=accumulate)
    assert settings.trial_size(recipe, ranks) == images


def test_what_runs_out_of_memory_is_not_chosen(
    gpu: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepare(recipe: Recipe, _: int) -> settings.Step:
        if recipe.precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if not recipe.channels_last:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return lambda: 1.0

    recipe = Recipe(model="alexnet-2014", size=256, crop=224)
    settled, found = settings.choose_settings(recipe, 10, 10**8, ("compile",), prepare)
    assert (settled.precision, settled.channels_last) == ("bf16", True)
    assert [one["seconds"] for one in found["measured"]] == [1.0]
    assert capfd.readouterr().err.count("not chosen: ") == 2

    def broken(recipe: Recipe, _: int) -> settings.Step:
        if recipe.precision == "fp32":
            raise RuntimeError("some other fault")
        return lambda: 1.0

    with pytest.raises(RuntimeError, match="some other fault"):
        settings.choose_settings(recipe, 10, 10**8, ("compile",), broken)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: RuntimeError, short: bool) -> None:
    assert bool(short_of_memory(error)) is short


@pytest.mark.parametrize("trust", [0.0, 0.02])
@pytest.mark.parametrize("lr", [0.1, 1e-6])
def test_the_update_with_gradients_scaled_before_is_the_papers(
    lr: float, trust: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(exact: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(optim, "EXACT", exact)
        chance = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=chance))
        groups = [{"params": [weight]}]
        made = Lars(groups, lr, 0.9, 5e-3, trust) if trust else PaperSGD(groups, lr, 0.9, 5e-3)
        for _ in range(5):
            weight.grad = torch.randn(7, 5, generator=chance)
            before = weight.grad.clone()
            made.step()
            if not trust:
                assert torch.equal(weight.grad, before)
        return weight.detach(), made.state[weight]["velocity"]

    for ours, theirs in zip(trained(()), trained(("cpu",)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-12)


def test_a_slice_is_kept_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Slice("train", np.arange(9) % 3, np.zeros((9, 3, 3, 3), np.uint8), 3, 3)
    recipe, kept = Recipe(size=3, crop=3, batch_size=3), list[int]()
    monkeypatch.setattr(loader, "keep_on", lambda *_: kept.append(1))
    for keep, steps in ((True, range(1)), (None, range(1)), (None, range(6)), (False, range(6))):
        list(loader.training_batches(split, recipe, steps, 0, torch.device("cpu"), keep=keep))
        kept.append(0)
    assert kept == [1, 0, 0, 1, 0, 0]


def test_other_runtimes_are_left_out_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def infer(*_: Any, others: Any, **__: Any) -> dict[str, Any]:
        asked.append(others)
        return {}

    monkeypatch.setattr(benching, "bench_infer", infer)
    for kind in ("cpu", "cuda"):
        monkeypatch.setattr(benching, "pick_device", lambda kind=kind: torch.device(kind))
        benching.bench("infer")
    assert asked == [benching.rivals, None]


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchrun's words to one of two processes on a host with GPUs; what is done of NCCL's."""
    done: list[str] = []
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda i: done.append(f"GPU {i}"))
    monkeypatch.setattr(parallel, "_meeting_place", lambda: None)
    monkeypatch.setattr(parallel, "_left", [])
    monkeypatch.setattr(dist, "PrefixStore", lambda *_: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: done.append(backend))
    monkeypatch.setattr(dist, "new_group", lambda ranks: ranks)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("end"))
    return done


def test_each_process_has_a_gpu(team: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with parallel.join() as found:
        assert (found.rank, found.ranks) == (1, 2)
    assert team == ["GPU 1", "cpu:gloo,cuda:nccl", "end"]
    assert not parallel.left_others()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes for 1 GPU\(s\): start 1 "), parallel.join():
        pass


def test_who_fails_does_not_wait_for_the_others(
    team: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """NCCL would end when all end, and they wait in a sum for this one."""

    def run(error: Exception) -> Any:
        def train(**_: Any) -> Any:
            with parallel.join():
                raise error

        return types.SimpleNamespace(train=train)

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(cli.os, "_exit", leave)
    for error, status, words in (
        (UsageError("no such thing"), 2, "alexnet: no such thing"),
        (ValueError("a fault of ours"), 1, "ValueError: a fault of ours"),
    ):
        monkeypatch.setitem(sys.modules, "alexnet.commands", run(error))
        monkeypatch.setattr("alexnet.commands", run(error))
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "digits"])
        assert ended.value.code == status
        assert words in capfd.readouterr().err
    assert "end" not in team
