"""Where in an image the evidence for a class is, by three methods.

Each takes one input (1, C, H, W) as the network sees it and gives a map (H, W). The absence of
evidence is 0 everywhere: after normalisation that is the training images' mean.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.errors import UsageError
from alexnet.models.net import Net

Method = Literal["occlusion", "grad-cam", "integrated-gradients"]
METHODS: tuple[Method, ...] = ("occlusion", "grad-cam", "integrated-gradients")

BATCH = 32  # inputs in a forward pass


@torch.inference_mode()
def occlusion(model: Net, x: Tensor, label: int, side: int = 0, stride: int = 0) -> Tensor:
    """How much the class's probability falls where a square is covered, on average over the squares
    that cover a pixel. Defaults: a quarter of the image, in steps of a quarter of the square.

    Source: Zeiler and Fergus 2014, section 4.2.
    """
    size = x.shape[-1]
    side = side or max(size // 4, 1)
    stride = stride or max(side // 4, 1)
    if not 1 <= side <= size or stride < 1:
        raise UsageError(f"a square of {side} pixels, steps of {stride}: 1 to {size} pixels a side")
    whole = model(x).softmax(1)[0, label]
    # Squares reach over the edge, so that what lies there is covered as often as the middle.
    starts = range(stride - side, size, stride)
    places = [(top, left) for top in starts for left in starts]
    fall, covered = (torch.zeros(size, size, device=x.device) for _ in range(2))
    for first in range(0, len(places), BATCH):
        some = places[first : first + BATCH]
        inputs = x.repeat(len(some), 1, 1, 1)
        boxes = []
        for i, (top, left) in enumerate(some):
            box = (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
            inputs[i][(slice(None), *box)] = 0
            boxes.append(box)
        drops = whole - model(inputs).softmax(1)[:, label]
        for box, drop in zip(boxes, drops, strict=True):
            fall[box] += drop
            covered[box] += 1
    found: Tensor = (fall / covered).cpu()
    return found


def grad_cam(model: Net, x: Tensor, label: int, part: str) -> Tensor:
    """The part's maps, each weighed by the mean gradient of the class's logit, what is below 0 cut
    off, enlarged to the image.

    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    logits, kept = model.activations(x, [part])
    if kept[part].dim() != 4:
        raise UsageError(f"{part} has no maps: grad-cam needs a part before the first fc layer")
    return class_map(logits[0, label], kept[part], x.shape[-1])


def class_map(logit: Tensor, maps: Tensor, side: int) -> Tensor:
    """Grad-CAM of the maps (1, C, h, w) that a logit was computed from: (side, side)."""
    (gradient,) = torch.autograd.grad(logit, maps)
    weights = gradient.mean((2, 3), keepdim=True)
    found = (weights * maps).sum(1, keepdim=True).relu().detach().float()
    shown = F.interpolate(found, (side, side), mode="bilinear", align_corners=False)
    return shown[0, 0].cpu()


def last_maps(model: Net) -> str:
    """The last convolution's activation, which grad-cam is usually asked of: relu5."""
    names = list(model.parts)
    last = [n for n in model.layers if n.startswith(("conv", "local"))][-1]
    after = model.layers[model.layers.index(last) + 1]
    stage = names[names.index(last) : names.index(after)]
    return next((n for n in stage if n.startswith("relu")), last)


def integrated_gradients(model: Net, x: Tensor, label: int, steps: int = 64) -> Tensor:
    """The gradient of the class's logit along the straight way from 0 to the image, times the
    image, summed over channels; the map's sum is the difference of the two logits.

    Source: Sundararajan et al. 2017, equation 3, by the midpoint rule.
    """
    total = torch.zeros_like(x)
    for first in range(0, steps, BATCH):
        count = min(BATCH, steps - first)
        shares = (torch.arange(first, first + count, device=x.device) + 0.5) / steps
        inputs = (shares.view(-1, 1, 1, 1) * x).requires_grad_()
        (gradient,) = torch.autograd.grad(model(inputs)[:, label].sum(), inputs)
        total += gradient.sum(0, keepdim=True)
    return (total / steps * x).sum(1)[0].detach().cpu()
