"""Work cut to pieces, done in one parallel region: same bits on any number of threads, and what
goes wrong in one of them."""

import subprocess
import sys
import textwrap

import pytest


def run(body: str, threads: int = 2) -> str:
    """A program of its own with so many threads, what every session of tests has one of."""
    head = f"""
        import threading
        import torch
        from alexnet.region import over_pieces
        torch.set_num_threads({threads})
        out = torch.zeros(40, 50_000)
    """
    program = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_piece_is_done_once_by_as_many_threads_as_there_are(threads: int) -> None:
    body = """
        import time
        names, workers = set(), []
        def make_worker():
            workers.append(threading.get_ident())
            def add(i):
                out[i] += i + 1
                names.add(threading.get_ident())
                time.sleep(0.01)  # so that no thread takes all before the others are awake
            return add
        over_pieces(range(40), make_worker, out)
        assert out[:, 0].tolist() == list(range(1, 41))
        print(len(names), len(workers))
    """
    assert run(body, threads) == f"{threads} {threads}"


def test_one_region_is_had_here() -> None:
    """Else every other test of this file would pass without it, on the caller's thread."""
    assert run("from alexnet.region import _entry; print(_entry() is not None)") == "True"


def test_what_a_worker_raises_comes_out_and_ends_the_others() -> None:
    body = """
        import time
        done = []
        def make_worker():
            def work(i):
                time.sleep(0.01)
                if i == 3:
                    raise KeyboardInterrupt("three")
                done.append(i)
            return work
        try:
            over_pieces(range(1000), make_worker, out)
        except KeyboardInterrupt as error:
            print(error, len(done) < 20)
        over_pieces(range(2), lambda: done.append, out)  # and the threads are still there
        print(done[-2:])
    """
    assert run(body).split("\n") == ["three True", "[0, 1]"]


def test_modes_of_the_caller_hold_in_every_thread() -> None:
    body = """
        import time
        weight = torch.ones(50_000, requires_grad=True)
        seen = set()
        def make_worker():
            def work(i):
                time.sleep(0.01)
                made = weight * i
                seen.add((made.requires_grad, torch.is_inference_mode_enabled()))
                out[i].copy_(made)
            return work
        over_pieces(range(8), make_worker, out)
        with torch.inference_mode():
            out = torch.zeros(40, 50_000)
            over_pieces(range(8), make_worker, out)  # of tensors that only inference may change
        print(sorted(seen))
    """
    assert run(body) == "[(False, False), (False, True)]"


def test_regions_of_several_threads_of_the_caller_and_within_one_another() -> None:
    body = """
        from concurrent.futures import ThreadPoolExecutor
        from alexnet import response_norm
        x = torch.randn(8, 96, 27, 27)
        alone = response_norm(x)
        with ThreadPoolExecutor(4) as pool:
            alike = [torch.equal(alone, b) for b in pool.map(lambda _: response_norm(x), range(16))]
        inner = torch.zeros(4, 4)
        def make_worker():
            def outer(i):
                over_pieces(range(4), lambda: lambda j: inner[i, j].add_(1), inner)
            return outer
        over_pieces(range(4), make_worker, out)
        print(all(alike), bool((inner == 1).all()))
    """
    assert run(body) == "True True"


def test_who_follows_operations_sees_them_all() -> None:
    body = """
        from torch.utils._python_dispatch import TorchDispatchMode
        from alexnet import response_norm
        class Count(TorchDispatchMode):
            calls = additions = 0
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.calls += 1
                self.additions += func is torch.ops.aten.add_.Tensor
                return func(*args, **(kwargs or {}))
        x = torch.randn(8, 96, 55, 55)
        plain = response_norm(x)
        with Count() as count:
            followed = response_norm(x)
        print(torch.equal(plain, followed), count.calls > 50)
        import time
        def add(i):
            out[i].add_(1)
            time.sleep(0.005)  # so that another thread, if there were one, would take some
        with Count() as count:
            over_pieces(range(40), lambda: add, out)
        print(count.additions)
    """
    assert run(body).split("\n") == ["True True", "40"]


NORMS = """
    import hashlib
    from alexnet import response_norm
    torch.manual_seed(0)
    found = hashlib.sha256()
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):
            for shape in ((3, 96, 55, 55), (3, 96, 13, 13), (1, 5, 3, 3)):
                for extra in ({}, {"window": "map"}, {"n": 9, "beta": 0.5}, {"n": 4}):
                    x = torch.randn(shape).to(kind).contiguous(memory_format=layout)
                    x.requires_grad_()
                    b = response_norm(x, **extra)
                    b.backward(torch.randn_like(b))
                    for t in (b, x.grad):
                        found.update(t.detach().double().contiguous().numpy().tobytes())
    print(found.hexdigest())
"""


def test_response_norm_has_the_same_bits_on_any_number_of_threads() -> None:
    alone = run(NORMS, 1)
    assert [run(NORMS, threads) for threads in (2, 3)] == [alone, alone]
