"""Response norm in chunks that stay in a core's cache, and the plain one beside it.

Tensors are (N, C, H, W) and dense: contiguous or channels-last. Both ways give the same numbers but
for the order of sums: relative 1e-5 in float32 (a test).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.support.region import over_pieces, pieces_at_least

Window = Literal["channels", "map"]

CHUNK = 300_000  # numbers worked on at a time: few enough to stay in a core's cache
AWAY = 2**24  # numbers worked on at a time on another device, where starting work costs more
LEAST = 2**15  # numbers in a chunk, below which calls would cost more than the work


@dataclass(frozen=True)
class Neighbours:
    """Which numbers are summed: n channels within a group, or n x n places of a map."""

    n: int
    groups: int
    window: Window


def plain_norm(x: Tensor, neighbours: Neighbours, alpha: float, beta: float, k: float) -> Tensor:
    """The norm in ordinary operations: which `chunked_norm` equals. Shapes: (N, C, H, W)."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    squares = wide * wide
    if neighbours.window == "map":
        total = F.avg_pool2d(squares, neighbours.n, 1, neighbours.n // 2) * neighbours.n**2
    else:
        total = _shifted_sum(squares, neighbours.n, neighbours.groups)
    return (wide / _power(k + alpha * total, beta)).to(x.dtype)


def _shifted_sum(squares: Tensor, n: int, groups: int) -> Tensor:
    images, channels, *sides = squares.shape
    channels //= groups
    by_group = squares.reshape(images, groups, channels, *sides)
    padded = F.pad(by_group, (0, 0, 0, 0, n // 2, (n - 1) // 2))
    total = padded[:, :, :channels]
    for shift in range(1, n):
        total = total + padded[:, :, shift : shift + channels]
    return total.flatten(1, 2)


def _power(s: Tensor, beta: float) -> Tensor:
    """s^beta; the usual 0.75 by two square roots, which take a tenth of the time of pow."""
    if beta == 0.75:
        root = s.sqrt()
        return root * root.sqrt()
    return s**beta


def chunked_norm(
    x: Tensor, neighbours: Neighbours, alpha: float, beta: float, k: float, chunk: int | None
) -> Tensor:
    """The same by chunks; `chunk` is the most numbers worked on at a time."""
    return _Chunked.apply(x, neighbours, alpha, beta, k, chunk)  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class ChunkLayout:
    """How a chunk lies in a flat buffer: its `shape`, ends of the window's axes padded with zeros.

    Neighbours along a window's axis are `units[axis]` numbers apart. Since what comes before a
    row is the padding of the row before it, each step is one operation over a flat run of memory,
    and a window that leaves its map or group adds nothing. `padded` are the window's axes in
    `shape`; `cut` gives a tensor's chunks as views with the axes of `shape`.
    """

    shape: tuple[int, ...]
    units: tuple[int, ...]
    padded: tuple[int, ...]
    cut: Callable[[Tensor], Iterator[Tensor]]


def channels_layout(x: Tensor, n: int, groups: int, most: int) -> ChunkLayout:
    """For windows of n channels within groups; about `most` numbers a chunk."""
    images, channels, height, width = x.shape
    channels //= groups
    wide, places = channels + n // 2, height * width
    if _channels_last(x):
        step = min(max(most // wide, 1), images * groups * places)

        def cut_places(t: Tensor) -> Iterator[Tensor]:
            yield from torch.split(t.permute(0, 2, 3, 1).reshape(-1, channels), step)

        return ChunkLayout((step, wide), (1,), (1,), cut_places)
    columns = math.ceil(places / math.ceil(places * wide / most))
    rows = min(max(most // (wide * columns), 1), images * groups)

    def cut_columns(t: Tensor) -> Iterator[Tensor]:
        for some in torch.split(t.reshape(-1, channels, places).transpose(0, 1), rows, 1):
            yield from torch.split(some, columns, 2)

    return ChunkLayout((wide, rows, columns), (rows * columns,), (0,), cut_columns)


def maps_layout(x: Tensor, n: int, most: int) -> ChunkLayout:
    """For windows of n x n places of a map; about `most` numbers a chunk."""
    images, channels, height, width = x.shape
    high, wide = height + n // 2, width + n // 2
    if _channels_last(x):
        deep = min(max(most // (high * wide), 1), channels)
        rows = min(max(most // (high * wide * deep), 1), images)

        def cut_depths(t: Tensor) -> Iterator[Tensor]:
            for some in torch.split(t.permute(0, 2, 3, 1), rows):
                yield from torch.split(some, deep, 3)

        return ChunkLayout((rows, high, wide, deep), (deep, wide * deep), (2, 1), cut_depths)
    rows = min(max(most // (high * wide), 1), images * channels)

    def cut_maps(t: Tensor) -> Iterator[Tensor]:
        yield from torch.split(t.flatten(0, 1), rows)

    return ChunkLayout((rows, high, wide), (1, wide), (2, 1), cut_maps)


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous()  # of the two layouts that a tensor may come in


class _Chunked(torch.autograd.Function):
    """Forward and backward, a chunk at a time, on a processor one that a core's cache holds.

    With s = k + alpha * sum a^2 and h = g / s^beta:
    b = a / s^beta, da = h - 2 alpha beta a * sum' (a h / s), where sum' looks the other way.
    Only a is kept for the backward pass; s is worked out again, which is cheaper than memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        neighbours: Neighbours,
        alpha: float,
        beta: float,
        k: float,
        chunk: int | None,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = neighbours, alpha, beta, k, chunk
        x = _dense(x)
        out = torch.empty_like(x)
        layout = _lay_out(x, neighbours, chunk)

        def make_worker() -> Callable[[tuple[Tensor, Tensor]], None]:
            work = _Work(layout, x, neighbours.n, alpha, beta, k, backward=False)
            return lambda chunk: work.forward(*chunk)

        over_pieces(list(zip(layout.cut(x), layout.cut(out), strict=True)), make_worker, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        neighbours, alpha, beta, k, chunk = ctx.constants
        if torch.is_grad_enabled():  # somebody wants the gradient of the gradient
            with torch.enable_grad():
                again = plain_norm(x, neighbours, alpha, beta, k)
                (dx,) = torch.autograd.grad(again, x, gradients[0], create_graph=True)
            return dx, None, None, None, None, None
        x, (gradient,) = _dense(x), gradients
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        out = torch.empty_like(x)
        layout = _lay_out(x, neighbours, chunk)

        def make_worker() -> Callable[[tuple[Tensor, Tensor, Tensor]], None]:
            work = _Work(layout, x, neighbours.n, alpha, beta, k, backward=True)
            return lambda chunk: work.backward(*chunk)

        cuts = (layout.cut(t) for t in (x, gradient, out))
        over_pieces(list(zip(*cuts, strict=True)), make_worker, out)
        return out, None, None, None, None, None


def _dense(x: Tensor) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x if last or x.is_contiguous() else x.contiguous()


def _lay_out(x: Tensor, neighbours: Neighbours, chunk: int | None) -> ChunkLayout:
    # Of a few images small chunks: all threads' buffers together take no more memory than torch's
    # operation, and every thread has its share.
    chunk = chunk or (CHUNK if x.device.type == "cpu" else AWAY)
    most = min(chunk, max(x.numel() // pieces_at_least(), LEAST))
    if neighbours.window == "map":
        return maps_layout(x, neighbours.n, most)
    return channels_layout(x, neighbours.n, neighbours.groups, most)


class _Work:
    """Buffers for one chunk. A flat buffer is `ends` zeros, the layout's box, `ends` zeros."""

    def __init__(
        self,
        layout: ChunkLayout,
        like: Tensor,
        n: int,
        alpha: float,
        beta: float,
        k: float,
        *,
        backward: bool,
    ) -> None:
        self.shape, self.units, self.padded = layout.shape, layout.units, layout.padded
        self.n, self.alpha, self.beta = n, alpha, beta
        size, ends = math.prod(self.shape), n // 2 * sum(self.units)
        self.ends, self.middle = ends, slice(ends, ends + size)
        kind = torch.float64 if like.dtype == torch.float64 else torch.float32
        device = like.device
        share = k / n ** len(self.units)  # so many of them are in every window: k
        self.share = torch.full((), share, dtype=kind, device=device)  # without waiting for it
        self.squares = torch.full((size + 2 * ends,), share, dtype=kind, device=device)
        self.halves = [torch.empty_like(self.squares) for _ in range(2 if n > 7 else 1)]
        self.along = [torch.empty_like(self.squares) for _ in self.units[1:]]
        self.s, self.u = (torch.empty(size, dtype=kind, device=device) for _ in range(2))
        self.a = torch.zeros(size, dtype=kind, device=device)
        if backward:
            self.g, self.t = torch.zeros_like(self.a), torch.zeros_like(self.squares)

    def forward(self, a: Tensor, b: Tensor) -> None:
        self._place(self.a, a).copy_(a)
        self._scale()
        torch.div(self.a, self.u, out=self.u)
        b.copy_(self._place(self.u, b))

    def backward(self, a: Tensor, g: Tensor, d: Tensor) -> None:
        self._place(self.a, a).copy_(a)
        self._place(self.g, g).copy_(g)
        self._scale()
        torch.div(self.g, self.u, out=self.u)
        t = torch.mul(self.a, self.u, out=self.t[self.middle]).div_(self.s)
        for axis in self.padded:  # next to what is not a number, the padding is none either
            t.view(self.shape).narrow(axis, self.shape[axis] - self.n // 2, self.n // 2).zero_()
        self._window(self.t, (self.n - 1) // 2, out=self.s)
        self.u.addcmul_(self.a, self.s, value=-2 * self.alpha * self.beta)
        d.copy_(self._place(self.u, d))

    def _scale(self) -> None:
        """s = k + alpha sum a^2 and u = s^beta."""
        squares = self.squares[self.middle]
        torch.addcmul(self.share, self.a, self.a, value=self.alpha, out=squares)
        self._window(self.squares, self.n // 2, out=self.s)
        if self.beta == 0.75:
            root = self.halves[0][self.middle]
            torch.sqrt(self.s, out=root)
            torch.sqrt(root, out=self.u).mul_(root)
        else:
            torch.pow(self.s, self.beta, out=self.u)

    def _window(self, numbers: Tensor, before: int, out: Tensor) -> None:
        """out[i] = the sum of n numbers along each axis, from `before` of them before i."""
        start = numbers[self.ends - before * sum(self.units) :]
        left = (self.n - 1) * sum(self.units)
        for unit, target in zip(self.units, [*self.along, out], strict=True):
            left -= (self.n - 1) * unit
            self._run(start, unit, target[: len(out) + left])
            start = target

    def _run(self, start: Tensor, unit: int, out: Tensor) -> None:
        """out[i] = start[i] + start[i + unit] + ..., n of them, by doubling."""
        total, width = start, 1
        for place, bit in enumerate(bits := f"{self.n:b}"[1:]):
            wider = 2 * width + int(bit)
            length = len(out) + (self.n - wider) * unit
            last = place == len(bits) - 1
            target = out if last else self.halves[place % 2][:length]
            torch.add(total[:length], total[width * unit :][:length], out=target)
            if bit == "1":
                target.add_(start[2 * width * unit :][:length])
            total, width = target, wider
        if self.n == 1:
            out.copy_(start[: len(out)])

    def _place(self, flat: Tensor, like: Tensor) -> Tensor:
        """Where a chunk's numbers are in a flat buffer, padding left out."""
        return flat.view(self.shape)[tuple(slice(side) for side in like.shape)]
