"""Whether weights were trained: files with random or half-trained weights circulate.

Of independent draws, however scaled, the largest singular value of a matrix (m, n) is near
std * (sqrt(m) + sqrt(n)); whatever is learnt stands out of that. And large first filters become
smooth: neighbouring weights are alike, which those of draws are not.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alexnet.models.net import Net
from alexnet.runs.records import LayerWeights, WeightsVerdict

OUTLIER = 1.02  # fresh networks measure at most 1.00, after 350 steps 1.03 to 1.37
SMOOTH = 0.3  # 11x11 filters: fresh -0.02, after 300 steps of the paper's recipe 0.21
SMALL = 16  # rows or columns below which a matrix says nothing
ITERATIONS = 20


def detect_untrained(model: Net) -> WeightsVerdict:
    """Says "trained", "half-trained", "random" or "constant", why, and what each layer shows."""
    layers = [_weight_statistics(name, model.part(name)) for name in model.layers]
    verdict, why = _verdict(layers)
    return WeightsVerdict(verdict=verdict, why=why, layers=layers)


def _verdict(layers: Sequence[LayerWeights]) -> tuple[str, str]:
    flat = [layer.name for layer in layers if layer.std == 0]
    if flat:
        return "constant", f"all weights of {', '.join(flat)} are one number"
    known = [layer for layer in layers if layer.outlier is not None]
    drawn = [layer.name for layer in known if layer.outlier is not None and layer.outlier < OUTLIER]
    first = layers[0].smooth
    if known and len(drawn) == len(known):
        most = max(layer.outlier or 0 for layer in known)
        return "random", (
            f"no layer differs from independent draws (largest singular value {most:.2f} times "
            f"theirs at most; learning takes it above {OUTLIER})"
        )
    if first is not None and first < SMOOTH:
        return "half-trained", (
            f"the filters of {layers[0].name} are not smooth: neighbouring weights correlate by "
            f"{first:.2f}; draws by 0, and trained ones by more than {SMOOTH}"
        )
    if 2 * len(drawn) > len(known):
        return "half-trained", f"{', '.join(drawn)} do not differ from independent draws"
    return "trained", "the layers differ from independent draws; how well, accuracy tells"


def _weight_statistics(name: str, part: nn.Module) -> LayerWeights:
    weight, groups = part.weight, getattr(part, "groups", 1)
    assert isinstance(weight, Tensor)
    weight = weight.detach().float()
    std, norm = float(weight.std()), float(weight.norm())
    outlier = smooth = None
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    if std > 0 and min(matrices.shape[1:]) >= SMALL:
        outlier = max(_outlier(matrix) for matrix in matrices)
    if weight.dim() == 4 and weight.shape[-1] >= 7:
        level = weight - weight.mean((2, 3), keepdim=True)
        smooth = float((level[..., 1:] * level[..., :-1]).mean() / (level**2).mean().clamp(1e-30))
    return LayerWeights(name=name, std=std, norm=norm, outlier=outlier, smooth=smooth)


def _outlier(matrix: Tensor) -> float:
    matrix = matrix - matrix.mean()
    v = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0))
    for _ in range(ITERATIONS):
        v = matrix.T @ (matrix @ v)
        v = v / v.norm().clamp(1e-30)
    rows, columns = matrix.shape
    edge = float(matrix.std()) * (math.sqrt(rows) + math.sqrt(columns))
    return float((matrix @ v).norm()) / max(edge, 1e-30)
