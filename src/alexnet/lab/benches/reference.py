"""References of speed: plain PyTorch, and the machine's own limits."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.models import Net, ResponseNormLayer
from alexnet.models.fast import Product, Steps, StridedConv
from alexnet.recipe import Recipe
from alexnet.runtime import bf16_pace, precisions
from alexnet.training import build_net

SQUARE = {"cpu": 2048, "cuda": 8192}  # sides of the matrices that the limit is measured with
READ = {"cpu": 2**29, "cuda": 2**32}  # bytes that are read to measure memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}

Way = Callable[[], int]
"""Does something with some images, and returns how many."""


def plain_net(recipe: Recipe, classes: int) -> Net:
    """The recipe's network of torch's own parts: fp32, contiguous, its norm and convolution."""
    net = build_net(recipe.replace(precision="fp32", channels_last=False), classes)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ResponseNormLayer):
                setattr(module, name, _TheirNorm(child.constants))
            if isinstance(child, StridedConv):
                child.in_blocks = False
    return net


class _TheirNorm(nn.Module):
    """torch's own norm with the same window; it knows no towers."""

    def __init__(self, constants: dict[str, Any]) -> None:
        super().__init__()
        c = {"n": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "divide": False} | constants
        self.inside = c.get("window") == "map"
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        n, alpha = self.c["n"], self.c["alpha"]
        if self.inside:
            squares = F.avg_pool2d(x * x, n, 1, n // 2) * (1 if self.c["divide"] else n * n)
            return x / (self.c["k"] + alpha * squares) ** self.c["beta"]  # type: ignore[no-any-return]
        times = 1 if self.c["divide"] else n
        return F.local_response_norm(x, n, alpha * times, self.c["beta"], self.c["k"])


def synchronize(x: Tensor) -> None:
    """Waits for the device."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def emulated(device: torch.device) -> list[str]:
    """What is not measured since this processor has nothing for it."""
    if "bf16" in precisions(device):
        return []
    pace = bf16_pace(device)
    return [f"bf16: its products take {pace:,.0f} times as long as fp32 on this processor"]


def matrix_limit(kind: torch.dtype, device: torch.device) -> float:
    """The most operations a second that a square matrix multiply reaches here; of int8 one of
    integers to float32."""
    side = SQUARE[device.type]
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    if kind == torch.int8:
        layer = nn.Linear(side, side, bias=False)
        multiply: Any = Product(layer, a.shape, Steps(1.0, 0), torch.float32, relu=False)
        a = a.clamp(0).byte()
    else:
        a, multiply = a.to(kind), partial(torch.matmul, other=b.to(kind))
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(4):
            multiply(a)
        synchronize(a)
        best = max(best, 4 * 2 * side**3 / (time.perf_counter() - began))
    return best


def matrix_limits(
    kinds: Iterable[str], device: torch.device, before: Mapping[str, float] | None = None
) -> dict[str, float]:
    """`matrix_limit` of each precision, or what was found `before`, where that is more: measured at
    both ends of a bench, since other work on the machine can only lower it."""
    before = before or {}
    return {k: max(matrix_limit(DTYPES[k], device), before.get(k, 0.0)) for k in kinds}


def read_limit(device: torch.device) -> float:
    """The most bytes a second that memory is read with here: numbers are added up."""
    numbers = torch.ones(READ[device.type] // 4, device=device)
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        numbers.sum()
        synchronize(numbers)
        best = max(best, 4 * len(numbers) / (time.perf_counter() - began))
    return best
