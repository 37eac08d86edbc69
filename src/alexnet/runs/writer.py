"""Checkpoints written beside the training, by one thread in the order they were asked for."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch
from torch import Tensor


class Writer:
    """`with Writer() as writer:` calls of `submit` run in a thread, one at a time and in order.

    What one raises comes up at the next `submit`, `check` or `wait`, or at the end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[Any] | None = None

    def submit(self, save: Callable[..., Any], *args: Any, **named: Any) -> None:
        """Waits for the one before, then returns at once."""
        self.wait()
        self._job = self._pool.submit(save, *args, **named)

    def failed(self) -> bool:
        """Whether the last one has ended badly by now."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Until all is on the disk."""
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
    """Copies in main memory that later steps do not touch."""
    return {
        name: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
