"""A background thread that writes checkpoints while training goes on."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch
from torch import Tensor


class CheckpointWriter:
    """Runs the saves of `submit` in a thread, one at a time and in order: `with
    CheckpointWriter()`.

    An exception of a save is raised by the next `submit` or `wait`, or at the end of the context.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[Any] | None = None

    def submit(self, save: Callable[..., Any], *args: Any, **named: Any) -> None:
        """Start a save, once the one before has ended."""
        self.wait()
        self._job = self._pool.submit(save, *args, **named)

    def failed(self) -> bool:
        """Whether the last save has already ended with an exception."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Wait until the last save is on the disk."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, so that later steps do not change them."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
