"""Local response normalisation, exact and fast: b = a / (k + alpha * sum of a^2)^beta.

Source: paper, section 3.3. The sum runs over n neighbouring channels at the same place or, in
cuda-convnet's other kind, over an n x n square of the same channel. N images, C channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.chunks import ChunkLayout, channels_layout, maps_layout
from alexnet.region import over_pieces, pieces_at_least

Window = Literal["channels", "map"]

CHUNK = 300_000  # numbers worked on at a time: few enough to stay in a core's cache
AWAY = 2**24  # numbers worked on at a time on another device, where starting work costs more
LEAST = 2**15  # numbers in a chunk, below which calls would cost more than the work


@dataclass(frozen=True)
class Around:
    """Which neighbours are summed: n channels within a group, or n x n places of a map."""

    n: int
    groups: int
    window: Window


def response_norm(
    x: Tensor,
    n: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    *,
    divide: bool = False,
    window: Window = "channels",
    groups: int = 1,
    chunk: int | None = None,
) -> Tensor:
    """Local response normalisation. Shapes: (N, C, H, W) -> the same, in x's type and layout.

    `alpha` multiplies the sum as it stands, as in the paper's equation and TensorFlow; with
    `divide` it is first divided by the numbers in a window, as in torch, Caffe and the 2012 code.
    `window` is n channels, or n x n of the same map; it is clipped at the edges. With `groups` a
    window ends where a group of C / groups channels does: the paper's towers. 16-bit numbers are
    computed in float32. An even n reaches one further down than up, as in torch. `chunk` is the
    most numbers that are worked on at a time, without it as many as suit the device; the result is
    the same.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(f"response_norm takes floats (N, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if window not in get_args(Window):
        raise UsageError(
            f"response_norm: window {window!r} is none of {', '.join(get_args(Window))}"
        )
    whole = isinstance(n, int) and isinstance(groups, int)
    if not whole or min(n, groups) < 1 or x.shape[1] % groups or (window == "map" and n % 2 == 0):
        raise UsageError(
            f"response_norm: n {n} (odd within a map) and groups {groups} do not fit "
            f"{x.shape[1]} channels"
        )
    alpha = alpha / (n if window == "channels" else n * n) if divide else alpha
    around = Around(n, groups, window)
    if is_traced() or _is_transformed():
        # Plain operations, which compilers, exporters and torch.func see through.
        return _plain(x, around, alpha, beta, k)
    if not x.numel():
        return x.clone()
    return _Chunked.apply(x, around, alpha, beta, k, chunk)  # type: ignore[no-any-return,no-untyped-call]


class ResponseNormLayer(nn.Module):
    """`response_norm` with its constants, as a module."""

    def __init__(self, **constants: Any) -> None:
        super().__init__()
        self.constants = constants

    def forward(self, x: Tensor) -> Tensor:
        return response_norm(x, **self.constants)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.constants.items())


def _plain(x: Tensor, around: Around, alpha: float, beta: float, k: float) -> Tensor:
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    squares = wide * wide
    if around.window == "map":
        total = F.avg_pool2d(squares, around.n, 1, around.n // 2) * around.n**2
    else:
        total = _shifted_sum(squares, around.n, around.groups)
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
        around: Around,
        alpha: float,
        beta: float,
        k: float,
        chunk: int | None,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = around, alpha, beta, k, chunk
        x = _dense(x)
        out = torch.empty_like(x)
        layout = _lay_out(x, around, chunk)

        def make_worker() -> Callable[[tuple[Tensor, Tensor]], None]:
            work = _Work(layout, x, around.n, alpha, beta, k, backward=False)
            return lambda chunk: work.forward(*chunk)

        over_pieces(list(zip(layout.cut(x), layout.cut(out), strict=True)), make_worker, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        around, alpha, beta, k, chunk = ctx.constants
        if torch.is_grad_enabled():  # somebody wants the gradient of the gradient
            with torch.enable_grad():
                again = _plain(x, around, alpha, beta, k)
                (dx,) = torch.autograd.grad(again, x, gradients[0], create_graph=True)
            return dx, None, None, None, None, None
        x, (gradient,) = _dense(x), gradients
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        out = torch.empty_like(x)
        layout = _lay_out(x, around, chunk)

        def make_worker() -> Callable[[tuple[Tensor, Tensor, Tensor]], None]:
            work = _Work(layout, x, around.n, alpha, beta, k, backward=True)
            return lambda chunk: work.backward(*chunk)

        cuts = (layout.cut(t) for t in (x, gradient, out))
        over_pieces(list(zip(*cuts, strict=True)), make_worker, out)
        return out, None, None, None, None, None


def is_traced() -> bool:
    """Whether a compiler or exporter is watching: it wants plain operations."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _is_transformed() -> bool:
    """Whether torch.func (vmap, grad, jacobians) is at work, which wants plain operations too."""
    return bool(torch._C._are_functorch_transforms_active())


def _dense(x: Tensor) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x if last or x.is_contiguous() else x.contiguous()


def _lay_out(x: Tensor, around: Around, chunk: int | None) -> ChunkLayout:
    # Of a few images small chunks: all threads' buffers together take no more memory than torch's
    # operation, and every thread has its share.
    chunk = chunk or (CHUNK if x.device.type == "cpu" else AWAY)
    most = min(chunk, max(x.numel() // pieces_at_least(), LEAST))
    if around.window == "map":
        return maps_layout(x, around.n, most)
    return channels_layout(x, around.n, around.groups, most)


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
