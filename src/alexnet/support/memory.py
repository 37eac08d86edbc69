"""How the C library hands memory out: a training takes and gives back the same gigabytes a step."""

import contextlib
import ctypes
import gc
import os

from alexnet.support.options import option

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt
_LARGEST = 2**31 - 1
# torch of a processor's memory, and libraries of a GPU's where torch has no word of its own.
_SAID = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def keep_pages() -> None:
    """Lets freed memory stay with the process, in pages of 2 MB, from here on.

    Otherwise every large tensor is mapped and cleared by the kernel anew: 10 to 20 % of a training
    step on a CPU. Costs about a fifth more memory. Does nothing where the C library is not glibc;
    torch reads its part when it first takes memory.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST)


def give_back() -> None:
    """Hands what is free back to the system, so that what is held can be counted."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def short_of_memory(error: Exception) -> str:
    """What to do, in a line, where this error says that memory ran out; empty where it does not.

    torch raises RuntimeError for the processor's memory and a kind of its own for a device's.
    """
    told = " ".join(str(error).split())
    out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not out and not any(words in told for words in _SAID):
        return ""
    return (
        f"out of memory ({told or 'MemoryError'}): use a smaller {option('batch_size')}, and for "
        "a test or "
        f"a validation a smaller {option('eval_batch')}; what was saved before is kept"
    )
