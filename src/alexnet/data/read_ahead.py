"""Reads ahead in threads: any work in order, or the pixels of coming batches.

A processor that trains has no core to spare, and beside busy processes a reading thread may get no
core for long. So a batch is read in pieces: the consumer of a batch reads the pieces that no thread
has begun, on all of torch's threads, and repeats those that a thread does not finish in time.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.splits import Split, Unread
from alexnet.support.region import over_pieces
from alexnet.support.signals import report_thread_exit

T = TypeVar("T")

PIECE_BYTES = 1 << 20  # of pixels: a few milliseconds of decoding
LEAST_S = 0.001  # that readers are waited for who are at a piece of what is needed now
IMPATIENT = 8  # blocks that are not waited for at all after one whose readers came too late


def read_ahead(read: Callable[[int], T], keys: range, workers: int) -> Iterator[T]:
    """read(key) for each key, in order, computed by `workers` threads at most two each ahead."""
    if workers == 0:
        yield from map(read, keys)
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="reader")
    try:
        for key in keys:
            waiting.append(pool.submit(report_thread_exit(read), key))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class PixelsAhead:
    """Reads blocks of a split, each asked for by `take` in its turn, ahead by `workers` threads.

    `blocks` are the indices of each block, (M,); at most two for a thread are begun. Without
    threads each is read when it is asked for. A context: its end stops the threads.
    """

    def __init__(self, split: Split, blocks: Iterable[NDArray[np.intp]], workers: int) -> None:
        self._split, self._blocks, self._most = split, iter(blocks), 2 * workers
        self._waiting: deque[_Block] = deque()
        self._patience = _Patience()
        self._pool = None
        if workers:
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="reader")

    def take(self, ids: NDArray[np.intp]) -> tuple[NDArray[np.uint8], Unread]:
        """Pixels and `Unread` of the next block, as `Split.try_read` gives them. `ids` are those
        that are wanted by now: where they are others than foretold, they are read anew."""
        block = self._waiting.popleft() if self._waiting else self._begin()
        while len(self._waiting) < self._most and (begun := self._begin()) is not None:
            self._waiting.append(begun)
        if block is None or not np.array_equal(block.ids, ids):
            if block is not None:
                block.stop()
            block = _Block(self._split, ids, self._patience)
        block.finish()
        return block.pixels, dict(sorted(block.unread.items()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for block in self._waiting:
            block.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> "_Block | None":
        """Sets a thread to the next block; None where there is no further one."""
        if (ids := next(self._blocks, None)) is None:
            return None
        block = _Block(self._split, ids, self._patience)
        if self._pool is not None:
            self._pool.submit(block.read_ahead)
        return block


class _Patience:
    """How long a reader that is at a piece is waited for: twice what a piece takes of a processor,
    which says nothing of how long the reader has none."""

    def __init__(self) -> None:
        self._piece_s, self._hurried = 0.0, 0

    def note(self, piece_s: float) -> None:
        self._piece_s = piece_s

    def seconds(self) -> float:
        if self._hurried:
            self._hurried -= 1
            return 0.0
        return max(2 * self._piece_s, LEAST_S)

    def lose(self) -> None:
        """After a wait in vain."""
        self._hurried = IMPATIENT


class _Block:
    """The images of one batch: `pixels` fill up a piece at a time, by any number of threads."""

    def __init__(self, split: Split, ids: NDArray[np.intp], patience: _Patience) -> None:
        self._split, self.ids, self._patience = split, ids, patience
        shape = (split.size, split.size, split.channels)
        self.pixels = np.empty((len(ids), *shape), np.uint8)
        self.unread: Unread = {}
        step = max(PIECE_BYTES // max(math.prod(shape), 1), 1)
        # Both are changed by operations that no other thread can cut in two.
        self._left = deque(slice(i, i + step) for i in range(0, len(ids), step))
        self._open = {piece.start: piece for piece in self._left}
        self._error: BaseException | None = None
        self._done = threading.Event()

    def read_ahead(self) -> None:
        """What a reader does: one piece after the other until none is left."""
        try:
            while (piece := self._next()) is not None:
                report_thread_exit(self._read)(piece)
        except Exception as error:  # for who takes the block
            self._error = error
            self._done.set()

    def finish(self) -> None:
        """Reads what is left, and waits for readers that are at a piece, but not for long."""
        rest = list(iter(self._next, None))
        over_pieces(rest, lambda: self._read, torch.from_numpy(self.pixels))
        if self._open and (wait := self._patience.seconds()) and not self._done.wait(wait):
            self._patience.lose()
        if self._error is not None:
            raise self._error
        # A reader that comes to its end later writes the same pixels once more.
        late = list(self._open.values())
        over_pieces(late, lambda: self._read, torch.from_numpy(self.pixels))

    def stop(self) -> None:
        """Leaves what no reader has begun."""
        self._left.clear()

    def _next(self) -> slice | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _read(self, piece: slice) -> None:
        began = time.thread_time()
        _, unread = self._split.try_read(self.ids[piece], self.pixels[piece])
        self._patience.note(time.thread_time() - began)
        self.unread.update(unread)
        self._open.pop(piece.start, None)
        if not self._open:
            self._done.set()
