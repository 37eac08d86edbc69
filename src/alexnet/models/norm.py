"""Local response normalisation, exact and fast: b = a / (k + alpha * sum of a^2)^beta.

Source: paper, section 3.3. The sum runs over n neighbouring channels at the same place or, in
cuda-convnet's other kind, over an n x n square of the same channel. N images, C channels.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.errors import UsageError

Window = Literal["channels", "map"]

CHUNK = 300_000  # numbers worked on at a time: few enough to stay in a core's cache


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
) -> Tensor:
    """Local response normalisation. Shapes: (N, C, H, W) -> the same, in x's type and layout.

    `alpha` multiplies the sum as it stands, as in the paper's equation and TensorFlow; with
    `divide` it is first divided by the numbers in a window, as in torch, Caffe and the 2012 code.
    `window` is n channels, or n x n of the same map; it is clipped at the edges. With `groups` a
    window ends where a group of C / groups channels does: the paper's towers. 16-bit numbers are
    computed in float32. An even n reaches one further down than up, as in torch.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise UsageError(f"response_norm takes floats (N, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if n < 1 or groups < 1 or x.shape[1] % groups or (window == "map" and n % 2 == 0):
        raise UsageError(
            f"response_norm: n {n} (odd within a map) and groups {groups} do not fit "
            f"{x.shape[1]} channels"
        )
    alpha = alpha / (n if window == "channels" else n * n) if divide else alpha
    if window == "map":
        return _plain(x, alpha, beta, k, lambda sq: F.avg_pool2d(sq, n, 1, n // 2) * (n * n))
    if x.device.type != "cpu" or _is_traced() or not x.numel():
        # Plain operations, which compilers and exporters see through and fuse.
        return _plain(x, alpha, beta, k, lambda sq: _shifted_sum(sq, n, groups))
    return _Across.apply(x, n, alpha, beta, k, groups)  # type: ignore[no-any-return,no-untyped-call]


class ResponseNormLayer(nn.Module):
    """`response_norm` with its constants, as a module."""

    def __init__(self, **constants: Any) -> None:
        super().__init__()
        self.constants = constants

    def forward(self, x: Tensor) -> Tensor:
        return response_norm(x, **self.constants)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.constants.items())


def _plain(
    x: Tensor, alpha: float, beta: float, k: float, total: Callable[[Tensor], Tensor]
) -> Tensor:
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return (wide / _power(k + alpha * total(wide * wide), beta)).to(x.dtype)


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


class _Across(torch.autograd.Function):
    """The sum across channels, forward and backward, a cache-sized chunk at a time.

    With s = k + alpha * sum a^2 and h = g / s^beta:
    b = a / s^beta, da = h - 2 alpha beta a * sum' (a h / s), where sum' looks the other way.
    Only a is kept for the backward pass; s is worked out again, which is cheaper than memory.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, n: int, alpha: float, beta: float, k: float, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = n, alpha, beta, k, groups
        x = _dense(x)
        out = torch.empty_like(x)
        work = _Work(x, n, alpha, beta, k, groups)
        for a, b in work.chunks(x, out):
            work.forward(a, b)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient of the gradient
            n, alpha, beta, k, groups = ctx.constants
            with torch.enable_grad():
                again = _plain(x, alpha, beta, k, lambda sq: _shifted_sum(sq, n, groups))
                (dx,) = torch.autograd.grad(again, x, gradients[0], create_graph=True)
            return dx, None, None, None, None, None
        x, (gradient,) = _dense(x), gradients
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        out = torch.empty_like(x)
        work = _Work(x, *ctx.constants)
        for a, g, d in work.chunks(x, gradient, out):
            work.backward(a, g, d)
        return out, None, None, None, None, None


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _dense(x: Tensor) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x if last or x.is_contiguous() else x.contiguous()


class _Work:
    """Buffers for one chunk, laid out so that a neighbouring channel is `unit` numbers away.

    Every group of channels is followed by zeros, and the first has zeros before it. So each step
    is one operation over a flat run of memory whatever the layout, and a window that leaves its
    group adds nothing. A flat buffer is `ends` zeros, `size` numbers, `ends` zeros.
    """

    def __init__(self, x: Tensor, n: int, alpha: float, beta: float, k: float, groups: int) -> None:
        images, channels, height, width = x.shape
        self.n, self.alpha, self.beta = n, alpha, beta
        self.last = not x.is_contiguous()  # then it is channels-last
        self.channels, self.places = channels // groups, height * width
        wide = self.channels + n // 2
        self.shape: tuple[int, ...]
        if self.last:
            self.shape = (min(max(CHUNK // wide, 1), images * groups * self.places), wide)
            self.unit = 1
        else:
            columns = math.ceil(self.places / math.ceil(self.places * wide / CHUNK))
            rows = min(max(CHUNK // (wide * columns), 1), images * groups)
            self.shape = (wide, rows, columns)
            self.unit = rows * columns
        size, ends = math.prod(self.shape), n // 2 * self.unit
        self.ends, self.middle = ends, slice(ends, ends + size)
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.share = torch.tensor(k / n, dtype=kind)  # n of them are in every window: k
        self.squares = torch.full((size + 2 * ends,), k / n, dtype=kind)
        self.t = torch.zeros_like(self.squares)
        self.halves = [torch.empty_like(self.squares) for _ in range(2)]
        self.s, self.u = (torch.empty(size, dtype=kind) for _ in range(2))
        self.a, self.g = (torch.zeros(size, dtype=kind) for _ in range(2))

    def chunks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Views of a chunk of each: (places, channels), or (channels, images, places)."""
        if self.last:
            flat = [t.permute(0, 2, 3, 1).reshape(-1, self.channels) for t in tensors]
            for i in range(0, len(flat[0]), self.shape[0]):
                yield tuple(t[i : i + self.shape[0]] for t in flat)
            return
        rows, columns = self.shape[1:]
        maps = [t.reshape(-1, self.channels, self.places).transpose(0, 1) for t in tensors]
        for i in range(0, maps[0].shape[1], rows):
            for j in range(0, self.places, columns):
                yield tuple(t[:, i : i + rows, j : j + columns] for t in maps)

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
        torch.mul(self.a, self.u, out=self.t[self.middle]).div_(self.s)
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
        """out[i] = the sum of n numbers, `unit` apart, from `before` of them before i."""
        start = numbers[self.ends - before * self.unit :]
        total, width, unit = start, 1, self.unit
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
        """Where a chunk's numbers are in a flat buffer, zeros left out."""
        box = flat.view(self.shape)
        if self.last:
            return box[: len(like), : self.channels]
        return box[: self.channels, : like.shape[1], : like.shape[2]]
