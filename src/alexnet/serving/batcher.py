"""Images of many requests through the network together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""What computes a server's answers: stored images to probabilities, uint8 (N, size, size, C) ->
float32 (N, K), by the network of a run, in int8, or on another runtime."""

WAIT_S = 0.003  # for images that are being decoded, so that they come along
STEP_S = 0.0005


@dataclass
class Answer:
    """Probabilities (N, K) of one request's images, and where its time went, in seconds."""

    probabilities: NDArray[np.float32]
    waited_s: float
    network_s: float
    batch: int


@dataclass
class _Asked:
    pixels: NDArray[np.uint8]
    answer: "asyncio.Future[Answer]"
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Takes whatever has come while the batch before was in the network, `largest` images at most;
    one batch at a time.

    An image that comes alone is not held up: only where `expected()` says that others are being
    decoded are they waited for, three milliseconds at most. `thread` is the network's own.
    """

    def __init__(
        self,
        engine: Engine,
        expected: Callable[[], int],
        largest: int,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._engine, self._expected, self._largest = engine, expected, largest
        self._asked: deque[_Asked] = deque()
        self._come = asyncio.Event()
        self._thread = thread

    async def __call__(self, pixels: NDArray[np.uint8]) -> Answer:
        """Probabilities of decoded images, uint8 (N, size, size, C)."""
        asked = _Asked(pixels, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._come.set()
        return await asked.answer

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self._come.wait()
            await self._gather()
            await self._answer(self._take())

    async def _gather(self) -> None:
        until = time.perf_counter() + WAIT_S
        while self._waiting() < self._largest and self._expected() and time.perf_counter() < until:
            await asyncio.sleep(STEP_S)

    def _waiting(self) -> int:
        return sum(len(asked.pixels) for asked in self._asked)

    def _take(self) -> list[_Asked]:
        """Whole requests up to the largest batch, but at least one; nobody waits for an answer that
        was given up."""
        taken, images = list[_Asked](), 0
        while self._asked and (not taken or images + len(self._asked[0].pixels) <= self._largest):
            asked = self._asked.popleft()
            if not asked.answer.done():
                taken.append(asked)
                images += len(asked.pixels)
        if not self._asked:
            self._come.clear()
        return taken

    async def _answer(self, taken: list[_Asked]) -> None:
        if not taken:
            return
        began = time.perf_counter()
        pixels = np.concatenate([asked.pixels for asked in taken])
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._engine, pixels)
        except Exception as error:  # of the network: each who asked is to hear of it
            for asked in taken:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            return
        spent, start = time.perf_counter() - began, 0
        for asked in taken:
            part = found[start : start + len(asked.pixels)]
            start += len(asked.pixels)
            if not asked.answer.done():
                answer = Answer(part, began - asked.since, spent, len(pixels))
                asked.answer.set_result(answer)
