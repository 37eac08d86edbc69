"""Work cut to pieces, done in one parallel region of torch's own threads.

torch enters a parallel region of OpenMP for each operation on more than 32,768 numbers, at whose
end all threads wait for the last. On a quiet machine that costs microseconds. Beside a busy process
a thread may be off its core for milliseconds, while the others spin on theirs: many small
operations then take ten times as long. Here a thread takes one piece after the other and does all
operations of it alone, so there is one wait a call, and a thread that is held up takes fewer
pieces. Pieces should be small enough for a core's cache.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from alexnet.support.plain import is_plain, report_missing

T = TypeVar("T")

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def pieces_at_least() -> int:
    """How many pieces keep all threads at work to the end, also one that is held up."""
    return 4 * torch.get_num_threads()


def over_pieces(
    pieces: Sequence[T], make_worker: Callable[[], Callable[[T], None]], like: Tensor
) -> None:
    """Calls a worker with each of the pieces, in any order, on as many threads as torch has.

    Each thread makes a worker of its own, which may hold buffers. `like` is one of the tensors that
    are worked on. Workers run without autograd and write into tensors that are there. What one of
    them raises is raised here, once all threads have stopped.

    Where one region cannot be had (another device, another threading library than OpenMP, somebody
    who follows torch's operations), and with ALEXNET_PLAIN=1, the caller's thread does all pieces,
    and torch's operations enter regions of their own as ever: the same numbers.
    """
    count = min(torch.get_num_threads(), len(pieces))
    one_region = count > 1 and not is_plain() and _can_share(like)
    enter = _entry() if one_region else None
    left, raised = iter(pieces), list[BaseException]()  # threads share the iterator: next is atomic
    inference = torch.is_inference_mode_enabled()

    def work(_: Any = None) -> None:
        try:
            with torch.inference_mode(inference), torch.no_grad():  # a thread has modes of its own
                worker = make_worker()
                for piece in left:
                    if raised:
                        return
                    worker(piece)
        except BaseException as error:  # nothing may leave a callback, KeyboardInterrupt neither
            raised.append(error)

    if enter is None:
        work()
    else:
        enter(_BODY(work), None, count, 0)
    if raised:
        raise raised[0]


def _can_share(like: Tensor) -> bool:
    """Whether operations on it are a processor's and nobody follows them: modes and subclasses that
    do are of the thread they were entered in."""
    if type(like) is not Tensor or like.device.type != "cpu":
        return False
    for name in ("_len_torch_dispatch_stack", "_len_torch_function_stack"):
        followers = getattr(torch._C, name, None)
        if followers is None:
            report_missing(f"torch._C.{name}", "each operation enters a parallel region of its own")
            return False
        if followers():
            return False
    return True


@cache
def _entry() -> Any:
    """`GOMP_parallel` of the OpenMP runtime that torch uses: GNU's, or another's under that name.

    It is part of the interface that compilers call, and so is stable. None where there is none.
    """
    if "backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    # In the order in which torch's own library looks for it.
    library = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    for place in (None, library):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            found = ctypes.CDLL(place).GOMP_parallel
            found.argtypes = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            found.restype = None
            return found
    report_missing("GOMP_parallel", "each operation enters a parallel region of its own")
    return None
