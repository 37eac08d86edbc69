"""Detection of untrained weights: files with random or half-trained weights circulate.

The largest singular value of an (m, n) matrix of independent random weights is near
std * (sqrt(m) + sqrt(n)); training makes it larger. Large filters of the first layer become smooth:
neighbouring weights correlate, which random ones do not.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alexnet.models.net import Net
from alexnet.records import LayerWeights, WeightsVerdict

OUTLIER = 1.02  # new networks measure at most 1.00; after 350 steps they measure 1.03 to 1.37
SMOOTH = 0.3  # 11x11 filters: -0.02 in a new network, 0.21 after 300 steps of the paper's recipe
MIN_SIDE = 16  # rows and columns of a matrix that is large enough for its singular value to tell
ITERATIONS = 20  # of the power iteration


def detect_untrained(model: Net) -> WeightsVerdict:
    """Judge weights as "trained", "half-trained", "random" or "constant", with the reason and
    statistics of each layer."""
    layers = [_weight_statistics(name, model.part(name)) for name in model.layers]
    verdict, why = _verdict(layers)
    return WeightsVerdict(verdict=verdict, why=why, layers=layers)


def _verdict(layers: Sequence[LayerWeights]) -> tuple[str, str]:
    constant = [layer.name for layer in layers if layer.std == 0]
    if constant:
        return "constant", f"all weights of {', '.join(constant)} are one number"
    outliers = {layer.name: layer.outlier for layer in layers if layer.outlier is not None}
    random = [name for name, outlier in outliers.items() if outlier < OUTLIER]
    smooth = layers[0].smooth
    if outliers and len(random) == len(outliers):
        return "random", (
            "no layer differs from random weights (the largest singular value is at most "
            f"{max(outliers.values()):.2f} times that of random weights; training raises it above "
            f"{OUTLIER})"
        )
    if smooth is not None and smooth < SMOOTH:
        return "half-trained", (
            f"the filters of {layers[0].name} are not smooth: neighbouring weights correlate by "
            f"{smooth:.2f}; random ones by 0, and trained ones by more than {SMOOTH}"
        )
    if 2 * len(random) > len(outliers):
        return "half-trained", f"{', '.join(random)} do not differ from random weights"
    return "trained", "the layers differ from random weights; only a test tells the accuracy"


def _weight_statistics(name: str, part: nn.Module) -> LayerWeights:
    weight, groups = part.weight, getattr(part, "groups", 1)
    assert isinstance(weight, Tensor)
    weight = weight.detach().float()
    std, norm = float(weight.std()), float(weight.norm())
    outlier = smooth = None
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    if std > 0 and min(matrices.shape[1:]) >= MIN_SIDE:
        outlier = max(_outlier(matrix) for matrix in matrices)
    if weight.dim() == 4 and weight.shape[-1] >= 7:
        centred = weight - weight.mean((2, 3), keepdim=True)
        products = centred[..., 1:] * centred[..., :-1]
        smooth = float(products.mean() / (centred**2).mean().clamp(1e-30))
    return LayerWeights(name=name, std=std, norm=norm, outlier=outlier, smooth=smooth)


def _outlier(matrix: Tensor) -> float:
    """The largest singular value, by power iteration, divided by that of random weights."""
    matrix = matrix - matrix.mean()
    v = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0))
    for _ in range(ITERATIONS):
        v = matrix.T @ (matrix @ v)
        v = v / v.norm().clamp(1e-30)
    rows, columns = matrix.shape
    of_random = float(matrix.std()) * (math.sqrt(rows) + math.sqrt(columns))
    return float((matrix @ v).norm()) / max(of_random, 1e-30)
