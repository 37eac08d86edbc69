"""Response norm against its definition: loops in float64, and the gradient's formula."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.errors import UsageError
from alexnet.models import ResponseNormLayer, response_norm

CHUNK = 300_000  # numbers worked on at a time, unless asked otherwise
LAYOUTS = {False: torch.contiguous_format, True: torch.channels_last}


def window(i: int, channels: int, n: int, groups: int) -> slice:
    """The channels that channel i is divided by: n // 2 below to (n - 1) // 2 above, clipped."""
    size = channels // groups
    first = i // size * size
    return slice(max(first, i - n // 2), min(first + size - 1, i + (n - 1) // 2) + 1)


def defined(
    a: np.ndarray, g: np.ndarray, n: int, alpha: float, beta: float, k: float, groups: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """b, and the gradient g^T db/da."""
    channels = a.shape[1]
    windows = [window(i, channels, n, groups) for i in range(channels)]
    s = np.stack([k + alpha * (a[:, w] ** 2).sum(1) for w in windows], 1)
    gradient = g / s**beta
    for j in range(channels):
        for i in range(channels):
            if windows[i].start <= j < windows[i].stop:
                t = g[:, i] * a[:, i] / s[:, i] ** (beta + 1)
                gradient[:, j] -= 2 * alpha * beta * a[:, j] * t
    return a / s**beta, gradient


def by_squares(a: np.ndarray, n: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """b where the window is n x n places of one map."""
    b = np.empty_like(a)
    for i, j in itertools.product(range(a.shape[2]), range(a.shape[3])):
        square = a[..., max(0, i - n // 2) : i + n // 2 + 1, max(0, j - n // 2) : j + n // 2 + 1]
        b[..., i, j] = a[..., i, j] / (k + alpha * (square**2).sum((2, 3))) ** beta
    return b


def drawn(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def wide(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def error(found: Tensor, expected: np.ndarray) -> float:
    """Relative to the largest."""
    return float(np.abs(wide(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("chunk", [50, 700, 300_000])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_the_definition_and_its_gradient(n: int, groups: int, chunk: int, last: bool) -> None:
    x = drawn(3, 12, 5, 7, scale=8).contiguous(memory_format=LAYOUTS[last]).requires_grad_()
    for beta, gradient_last in itertools.product((0.75, 1.3), (False, True)):
        g = drawn(3, 12, 5, 7, seed=1).contiguous(memory_format=LAYOUTS[gradient_last])
        b = response_norm(x, n, 0.02, beta, 1.5, groups=groups, chunk=chunk)
        (gradient,) = torch.autograd.grad(b, x, g)
        expected, slope = defined(wide(x), wide(g), n, 0.02, beta, 1.5, groups)
        assert (np.abs(wide(b) - expected) < 1e-6 * np.abs(expected)).all()
        assert error(gradient, slope) < 1e-6
        assert b.stride() == gradient.stride() == x.stride()


class Only(TorchDispatchMode):
    """Refuses whatever is not on one device, copies between two included."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.calls = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls += 1
        for one in torch.utils._pytree.tree_leaves((args, kwargs, found)):
            assert not isinstance(one, Tensor) or one.device.type == self.device, func
        return found


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("window", ["channels", "map"])
def test_another_devices_chunks_stay_there(window: Any, last: bool) -> None:
    """torch's `meta` device in the place of a GPU: nothing goes through the processor's memory,
    and the chunks are large ones."""
    x = torch.randn(128, 96, 55, 55, device="meta").contiguous(memory_format=LAYOUTS[last])
    with Only("meta") as watched:
        b = response_norm(x.requires_grad_(), window=window)
        (gradient,) = torch.autograd.grad(b, x, torch.ones_like(b))
    assert b.stride() == gradient.stride() == x.stride()
    assert watched.calls < 1000  # views included; of chunks for a cache there are a hundred


def test_chunks_are_as_large_as_was_asked() -> None:
    x = drawn(3, 12, 5, 7)
    calls = []
    for chunk in (None, 700, 50):
        with Only("cpu") as watched:
            response_norm(x, chunk=chunk)
        calls.append(watched.calls)
    assert calls[0] < calls[1] < calls[2]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 3, 2), (1, 4, 1, 9), (2, 6, 1, 1)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    for layout in LAYOUTS.values():
        x = drawn(*shape, scale=3).contiguous(memory_format=layout).requires_grad_()
        b = response_norm(x, 5, 0.1, 0.75, 1.0, chunk=7)
        (gradient,) = torch.autograd.grad(b.sum(), x)
        expected, slope = defined(wide(x), np.ones(shape), 5, 0.1, 0.75, 1.0)
        assert error(b, expected) < 1e-6
        # one number's gradient is a difference that nearly cancels: absolute, beside g = 1
        assert np.abs(wide(gradient) - slope).max() < 1e-6


def test_real_widths_with_the_papers_constants() -> None:
    """The maps of conv1: 96 channels of 55 x 55, more than one chunk of them, as two towers."""
    x = drawn(2, 96, 55, 55, scale=60).requires_grad_()
    g = drawn(2, 96, 55, 55, seed=1)
    b = response_norm(x, groups=2)
    (gradient,) = torch.autograd.grad(b, x, g)
    expected, slope = defined(wide(x), wide(g), 5, 1e-4, 0.75, 2.0, 2)
    assert x.numel() > CHUNK
    assert error(b, expected) < 1e-6
    assert error(gradient, slope) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("divide", [True, False])
def test_both_alphas_by_torchs_own(n: int, divide: bool) -> None:
    x, g = drawn(2, 10, 4, 3, scale=9).requires_grad_(), drawn(2, 10, 4, 3, seed=1)
    alpha = 0.03 if divide else 0.03 * n
    theirs = F.local_response_norm(x, n, alpha, 0.6, 1.2)
    ours = response_norm(x, n, 0.03, 0.6, 1.2, divide=divide)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    slopes = [torch.autograd.grad(b, x, g)[0] for b in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("chunk", [20, 150, 300_000])
@pytest.mark.parametrize(("n", "divide"), [(1, False), (3, True), (5, False), (7, True)])
def test_within_a_map(n: int, divide: bool, chunk: int, last: bool) -> None:
    x = drawn(2, 3, 6, 4, scale=4).contiguous(memory_format=LAYOUTS[last]).requires_grad_()
    expected = by_squares(wide(x), n, 0.2 / n**2 if divide else 0.2, 0.75, 1.5)
    found = response_norm(x, n, 0.2, 0.75, 1.5, window="map", divide=divide, chunk=chunk)
    assert error(found, expected) < 1e-6
    g = drawn(2, 3, 6, 4, seed=1).contiguous(memory_format=LAYOUTS[not last])
    (gradient,) = torch.autograd.grad(found, x, g)
    assert found.stride() == gradient.stride() == x.stride()
    double = x.detach().double().requires_grad_()
    squares = F.avg_pool2d(double**2, n, 1, n // 2, divisor_override=1 if not divide else None)
    (slope,) = torch.autograd.grad(double / (1.5 + 0.2 * squares) ** 0.75, double, g.double())
    assert error(gradient, wide(slope)) < 1e-6


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
def test_gradients_within_a_map(last: bool) -> None:
    x = drawn(1, 2, 4, 3, scale=2).double().contiguous(memory_format=LAYOUTS[last])
    x.requires_grad_()

    def run(x: Tensor) -> Tensor:
        return response_norm(x, 3, 0.2, 0.75, 1.5, window="map", divide=True, chunk=25)

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_16_bit_numbers_are_rounded_once(kind: torch.dtype) -> None:
    x = drawn(3, 12, 5, 7, scale=8).to(kind).requires_grad_()
    g = drawn(3, 12, 5, 7, seed=1).to(kind)
    b = response_norm(x, 5, 0.02, 0.75, 1.5, groups=2)
    (gradient,) = torch.autograd.grad(b, x, g)
    assert b.dtype == gradient.dtype == kind
    half = torch.finfo(kind).eps / 2
    for found, expected in zip(
        (b, gradient), defined(wide(x), wide(g), 5, 0.02, 0.75, 1.5, 2), strict=True
    ):
        room = half * np.abs(expected) + 1e-6 * np.abs(expected).max()
        assert (np.abs(wide(found) - expected) <= room).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_16_bit_numbers_within_a_map(kind: torch.dtype) -> None:
    x = drawn(2, 3, 6, 4, scale=8).to(kind)
    b = response_norm(x, 3, 0.02, 0.75, 1.5, window="map")
    expected = by_squares(wide(x), 3, 0.02, 0.75, 1.5)
    assert b.dtype == kind
    room = torch.finfo(kind).eps / 2 * np.abs(expected) + 1e-6 * np.abs(expected).max()
    assert (np.abs(wide(b) - expected) <= room).all()


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("n", [3, 4])
def test_gradients_of_gradients(n: int, last: bool) -> None:
    x = drawn(2, 6, 2, 1, scale=2).double().contiguous(memory_format=LAYOUTS[last])
    x.requires_grad_()

    def run(x: Tensor) -> Tensor:
        return response_norm(x, n, 0.3, 0.75, 1.5, groups=2, chunk=10)

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::2],
        lambda x: x[..., 1:, 2:],
        lambda x: x.transpose(2, 3),
        lambda x: x[:1].expand(3, -1, -1, -1),
    ],
    ids=["channels", "crop", "transposed", "expanded"],
)
def test_views_are_read_right(view: Callable[[Tensor], Tensor]) -> None:
    whole = drawn(3, 8, 5, 6, scale=8).requires_grad_()
    x = view(whole)
    g = drawn(*x.shape, seed=1)
    b = response_norm(x, 5, 0.02, 0.75, 1.5)
    (gradient,) = torch.autograd.grad(b, x, g)
    expected, slope = defined(wide(x), wide(g), 5, 0.02, 0.75, 1.5)
    assert not x.is_contiguous()
    assert error(b, expected) < 1e-6
    assert error(gradient, slope) < 1e-6


CONSTANTS = [
    {"groups": 2},
    {"n": 4, "alpha": 0.02, "beta": 1.3, "divide": True},
    {"n": 3, "alpha": 0.02, "window": "map"},
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("constants", CONSTANTS)
def test_compiled_it_gives_the_same(constants: dict[str, object], backend: str) -> None:
    torch.compiler.reset()
    x = drawn(2, 12, 5, 7, scale=60).requires_grad_()
    g = drawn(2, 12, 5, 7, seed=1)
    layer = ResponseNormLayer(**constants)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    eager, traced = layer(x), compiled(x)
    assert error(traced, wide(eager)) < 1e-6
    slopes = [torch.autograd.grad(b, x, g)[0] for b in (eager, traced)]
    assert error(slopes[0], wide(slopes[1])) < 1e-6


@pytest.mark.parametrize("constants", CONSTANTS)
def test_exported_it_gives_the_same(constants: dict[str, object]) -> None:
    x = drawn(2, 12, 5, 7, scale=60)
    layer = ResponseNormLayer(**constants)
    program = torch.export.export(layer, (x,))
    # made of plain operations, which an exporter to another format can translate
    assert all(str(node.target).startswith("aten.") for node in calls(program))
    assert error(program.module()(x), wide(layer(x))) < 1e-6


def calls(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    assert nodes
    return nodes


@pytest.mark.parametrize(
    ("x", "constants"),
    [
        (torch.ones(1, 4, 3, 3), {"n": 4, "window": "map"}),
        (torch.ones(1, 4, 3, 3), {"groups": 3}),
        (torch.ones(1, 4, 3, 3), {"groups": 0}),
        (torch.ones(1, 4, 3, 3), {"n": 0}),
        (torch.ones(1, 4, 3, 3), {"n": 2.5}),
        (torch.ones(1, 4, 3, 3), {"groups": 2.0}),
        (torch.ones(4, 3, 3), {}),
        (torch.ones(1, 4, 3, 3, dtype=torch.int32), {}),
        (torch.ones(1, 4, 3, 3), {"window": "maps"}),
    ],
    ids=[
        "even-map",
        "groups",
        "no-groups",
        "no-window",
        "half-n",
        "float-groups",
        "3-d",
        "integers",
        "misspelt",
    ],
)
def test_refusals(x: Tensor, constants: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="response_norm"):
        response_norm(x, **constants)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["channels", "map"])
def test_zeros_stay_zero(kind: Any) -> None:
    x = torch.zeros(2, 6, 4, 4, requires_grad=True)
    b = response_norm(x, 5, 1e-4, 0.75, 2.0, window=kind)
    (gradient,) = torch.autograd.grad(b.sum(), x)
    assert not b.any()
    torch.testing.assert_close(gradient, torch.full_like(x, 2**-0.75))


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("kind", ["channels", "map"])
@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_not_a_number_stays_among_its_neighbours(
    groups: int, kind: Any, last: bool
) -> None:
    """In the gradient it reaches two windows far, and no other image, map, tower or place."""
    x = drawn(3, 8, 6, 5).contiguous(memory_format=LAYOUTS[last])
    whole = x.clone().requires_grad_()
    x[1, 3, 5, 4] = float("nan")  # a last channel of the first tower, a last row and column
    x.requires_grad_()
    b, clean = (response_norm(t, 5, groups=groups, window=kind) for t in (x, whole))
    (gradient,), (expected,) = (
        torch.autograd.grad(o.sum(), t) for o, t in ((b, x), (clean, whole))
    )
    reached = torch.zeros_like(x, dtype=torch.bool)
    if kind == "map":
        reached[1, 3, 1:, :] = True
    else:
        reached[1, : 4 if groups == 2 else 8, 5, 4] = True
    assert gradient[~reached].isfinite().all()
    torch.testing.assert_close(gradient[~reached], expected[~reached], rtol=0, atol=0)
    assert gradient[1, 3, 5, 4].isnan()


@pytest.mark.parametrize("constants", CONSTANTS)
def test_torchs_function_transforms_see_through(constants: dict[str, Any]) -> None:
    """Gradients of single images by vmap and grad, as they are one by one."""
    x = drawn(3, 12, 4, 3, scale=60)

    def total(image: Tensor) -> Tensor:
        return response_norm(image[None], **constants).square().sum()

    each = torch.func.vmap(torch.func.grad(total))(x)
    for image, found in zip(x, each, strict=True):
        image = image.clone().requires_grad_()
        (expected,) = torch.autograd.grad(total(image), image)
        assert error(found, wide(expected)) < 1e-6


@pytest.mark.parametrize("kind", ["channels", "map"])
@pytest.mark.parametrize("shape", [(0, 6, 4, 4), (2, 6, 0, 4), (2, 0, 4, 4)])
def test_no_images_give_no_images(shape: tuple[int, ...], kind: Any) -> None:
    x = torch.empty(shape, requires_grad=True)
    b = response_norm(x, window=kind)
    (gradient,) = torch.autograd.grad(b.sum(), x)
    assert b.shape == gradient.shape == shape


def test_the_layer_says_what_it_does() -> None:
    assert repr(ResponseNormLayer(n=9, groups=2)) == "ResponseNormLayer(n=9, groups=2)"


def allocated(run: Callable[[], object], file: Path) -> tuple[int, int]:
    """Bytes at the peak of a run, and those still held after it."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        run()
    profile.export_chrome_trace(str(file))
    events = [e for e in json.loads(file.read_text())["traceEvents"] if e["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    held = np.cumsum([event["args"]["Bytes"] for event in events])
    return int(held.max()), int(held[-1])


def test_memory_is_the_output_the_gradient_and_a_few_chunks(tmp_path: Path) -> None:
    x, g = drawn(8, 96, 55, 55).requires_grad_(), drawn(8, 96, 55, 55, seed=1)
    peak, left = allocated(lambda: response_norm(x).backward(g), tmp_path / "ours")
    x.grad = None
    theirs, _ = allocated(lambda: F.local_response_norm(x, 5).backward(g), tmp_path / "theirs")
    assert left == x.nbytes
    assert peak < 2 * x.nbytes + 10 * 4 * CHUNK
    assert peak < theirs / 2


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "channels-last"])
@pytest.mark.parametrize("kind", ["channels", "map"])
def test_memory_of_one_image_is_no_more_than_torchs(kind: Any, last: bool, tmp_path: Path) -> None:
    """Answers without a gradient too, for which torch holds few copies."""
    x = drawn(1, 96, 55, 55).contiguous(memory_format=LAYOUTS[last])
    g = drawn(1, 96, 55, 55, seed=1)
    assert x.numel() < CHUNK
    runs: list[Callable[[Tensor], Tensor]] = [
        lambda x: response_norm(x, window=kind),
        lambda x: F.local_response_norm(x, 5),
    ]
    answers = [allocated(lambda run=run: run(x), tmp_path / "answer") for run in runs]
    assert answers[0][0] <= answers[1][0]
    x.requires_grad_()
    steps = [allocated(lambda run=run: run(x).backward(g), tmp_path / "step") for run in runs]
    assert steps[0][0] <= steps[1][0]
