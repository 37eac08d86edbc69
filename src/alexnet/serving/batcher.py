"""Batches of images from many requests."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Computes probabilities from stored images, uint8 (N, size, size, C) -> float32 (N, K), by the
network of a run, in int8, or on another runtime."""

WAIT_S = 0.003  # that a batch waits for images that are being decoded
POLL_S = 0.0005


@dataclass
class Answer:
    """Probabilities (N, K) of one request's images, and where its time went, in seconds."""

    probabilities: NDArray[np.float32]
    waited_s: float
    network_s: float
    batch: int


@dataclass
class _Pending:
    """A request that waits for its answer."""

    pixels: NDArray[np.uint8]
    answer: "asyncio.Future[Answer]"
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Sends the requests that arrived during one batch through the network as the next batch.

    A batch has at most `largest` images, unless one request has more. A single image is not
    delayed: the batcher waits, for WAIT_S at most, only if `expected()` says that other images are
    being decoded. `thread` is that of the network.
    """

    def __init__(
        self,
        engine: Engine,
        expected: Callable[[], int],
        largest: int,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._engine, self._expected, self._largest = engine, expected, largest
        self._queue: deque[_Pending] = deque()
        self._arrival = asyncio.Event()
        self._thread = thread

    async def __call__(self, pixels: NDArray[np.uint8]) -> Answer:
        """Probabilities of decoded images, uint8 (N, size, size, C)."""
        pending = _Pending(pixels, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._arrival.set()
        return await pending.answer

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            await self._arrival.wait()
            await self._wait_for_more()
            await self._answer(self._take())

    async def _wait_for_more(self) -> None:
        deadline = time.perf_counter() + WAIT_S
        while (
            self._images_waiting() < self._largest
            and self._expected()
            and time.perf_counter() < deadline
        ):
            await asyncio.sleep(POLL_S)

    def _images_waiting(self) -> int:
        return sum(len(pending.pixels) for pending in self._queue)

    def _take(self) -> list[_Pending]:
        """Remove whole requests from the queue, up to the largest batch but at least one; requests
        that were cancelled are dropped."""
        batch, images = list[_Pending](), 0
        while self._queue and (not batch or images + len(self._queue[0].pixels) <= self._largest):
            pending = self._queue.popleft()
            if not pending.answer.done():
                batch.append(pending)
                images += len(pending.pixels)
        if not self._queue:
            self._arrival.clear()
        return batch

    async def _answer(self, batch: list[_Pending]) -> None:
        if not batch:
            return
        began = time.perf_counter()
        pixels = np.concatenate([pending.pixels for pending in batch])
        loop = asyncio.get_running_loop()
        try:
            probabilities = await loop.run_in_executor(self._thread, self._engine, pixels)
        except Exception as error:  # of the network: every request of the batch fails with it
            for pending in batch:
                if not pending.answer.done():
                    pending.answer.set_exception(error)
            return
        network_s, start = time.perf_counter() - began, 0
        for pending in batch:
            rows = probabilities[start : start + len(pending.pixels)]
            start += len(pending.pixels)
            if not pending.answer.done():
                answer = Answer(rows, began - pending.since, network_s, len(pixels))
                pending.answer.set_result(answer)
