"""Local response normalisation: b = a / (k + alpha * sum of a^2)^beta.

Source: paper, section 3.3. The sum runs over n neighbouring channels at the same place or, in
cuda-convnet's other kind, over an n x n square of the same channel. N images, C channels.
"""

from typing import Any, get_args

from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.fast.norm import Neighbours, Window, chunked_norm, plain_norm
from alexnet.models.fast.tracing import is_traced, is_transformed
from alexnet.support.argument_checks import quote_value
from alexnet.support.plain import is_plain


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
    if not isinstance(x, Tensor):
        raise UsageError(f"x is {quote_value(x)}; it takes a Tensor")
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
    neighbours = Neighbours(n, groups, window)
    if is_traced() or is_transformed() or is_plain():
        # Plain operations, which compilers, exporters and torch.func see through.
        return plain_norm(x, neighbours, alpha, beta, k)
    if not x.numel():
        return x.clone()
    return chunked_norm(x, neighbours, alpha, beta, k, chunk)


class ResponseNormLayer(nn.Module):
    """`response_norm` with its constants, as a module."""

    def __init__(self, **constants: Any) -> None:
        super().__init__()
        self.constants = constants

    def forward(self, x: Tensor) -> Tensor:
        return response_norm(x, **self.constants)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.constants.items())
