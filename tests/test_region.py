"""Work cut to pieces, done in one parallel region: same bits on any number of threads, and what
goes wrong in one of them."""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet import response_norm

# Deep because who calls a function of the package sees neither which thread does which piece nor
# what one of them raises: those that are cut to pieces raise nothing.
from alexnet.support.region import over_pieces
from alexnet.training import threads

Worker = Callable[[], Callable[[int], Any]]


@pytest.fixture
def out() -> Tensor:
    """Rows that are worked on, large enough for torch to use its threads."""
    return torch.zeros(40, 50_000)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_piece_is_done_once_by_as_many_threads_as_there_are(count: int, out: Tensor) -> None:
    names, workers = set(), []

    def make_worker() -> Callable[[int], None]:
        workers.append(threading.get_ident())

        def add(i: int) -> None:
            out[i] += i + 1
            names.add(threading.get_ident())
            time.sleep(0.01)  # so that no thread takes all before the others are awake

        return add

    with threads(count):
        over_pieces(range(40), make_worker, out)
    assert out[:, 0].tolist() == list(range(1, 41))
    assert (len(names), len(workers)) == (count, count)


@pytest.mark.parametrize(("switch", "at_work"), [("0", 3), ("1", 1)])
def test_the_switch_leaves_all_pieces_to_the_caller(
    switch: str, at_work: int, out: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_PLAIN", switch)
    workers = []

    def make_worker() -> Callable[[int], None]:
        workers.append(threading.get_ident())
        return lambda i: time.sleep(0.01)

    with threads(3):
        over_pieces(range(40), make_worker, out)
    assert len(set(workers)) == at_work
    assert switch == "0" or workers == [threading.get_ident()]


def test_what_a_worker_raises_comes_out_and_ends_the_others(out: Tensor) -> None:
    done: list[int] = []

    def make_worker() -> Callable[[int], None]:
        def work(i: int) -> None:
            time.sleep(0.01)
            if i == 3:
                raise KeyboardInterrupt("three")
            done.append(i)

        return work

    with threads(2):
        with pytest.raises(KeyboardInterrupt, match="three"):
            over_pieces(range(1000), make_worker, out)
        assert len(done) < 20
        over_pieces(range(2), lambda: done.append, out)  # and the threads are still there
    assert sorted(done[-2:]) == [0, 1]


def test_modes_of_the_caller_hold_in_every_thread(out: Tensor) -> None:
    weight = torch.ones(50_000, requires_grad=True)
    seen = set()

    def worker_of(rows: Tensor) -> Worker:
        def work(i: int) -> None:
            time.sleep(0.01)
            made = weight * i
            seen.add((made.requires_grad, torch.is_inference_mode_enabled()))
            rows[i].copy_(made)

        return lambda: work

    with threads(2):
        over_pieces(range(8), worker_of(out), out)
        with torch.inference_mode():
            own = torch.zeros(40, 50_000)
            over_pieces(range(8), worker_of(own), own)  # tensors that only inference may change
    assert seen == {(False, False), (False, True)}


def test_regions_of_several_threads_of_the_caller_and_within_one_another(out: Tensor) -> None:
    x = torch.randn(8, 96, 27, 27)
    inner = torch.zeros(4, 4)

    def outer(i: int) -> None:
        over_pieces(range(4), lambda: lambda j: inner[i, j].add_(1), inner)

    with threads(2):
        alone = response_norm(x)
        with ThreadPoolExecutor(4) as pool:
            alike = [torch.equal(alone, b) for b in pool.map(lambda _: response_norm(x), range(16))]
        over_pieces(range(4), lambda: outer, out)
    assert all(alike)
    assert (inner == 1).all()


class Count(TorchDispatchMode):
    """How many operations were seen, and additions among them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.additions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        self.additions += func is torch.ops.aten.add_.Tensor
        return func(*args, **(kwargs or {}))


def test_who_follows_operations_sees_them_all(out: Tensor) -> None:
    x = torch.randn(4, 96, 27, 27)

    def add(i: int) -> None:
        out[i].add_(1)
        time.sleep(0.005)  # so that another thread, if there were one, would take some

    with threads(2):
        plain = response_norm(x)
        with Count() as count:
            followed = response_norm(x)
        assert torch.equal(plain, followed)
        assert count.calls > 50
        with Count() as count:
            over_pieces(range(40), lambda: add, out)
        assert count.additions == 40


def digest_of_norms() -> str:
    """Of outputs and gradients of many kinds."""
    torch.manual_seed(0)
    found = hashlib.sha256()
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            for shape in ((2, 96, 40, 40), (3, 96, 13, 13), (1, 5, 3, 3)):
                extras: list[dict[str, Any]] = [
                    {}, {"window": "map"}, {"n": 9, "beta": 0.5}, {"n": 4}
                ]  # fmt: skip
                for extra in extras:
                    x = torch.randn(shape).to(kind).contiguous(memory_format=layout)
                    x.requires_grad_()
                    b = response_norm(x, **extra)
                    b.backward(torch.randn_like(b))
                    assert x.grad is not None
                    for t in (b, x.grad):
                        found.update(t.detach().double().contiguous().numpy().tobytes())
    return found.hexdigest()


def test_response_norm_has_the_same_bits_on_any_number_of_threads() -> None:
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(digest_of_norms())
    assert len(set(found)) == 1
