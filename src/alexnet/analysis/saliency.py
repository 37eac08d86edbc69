"""Saliency: where in an image the evidence for a class is, by three methods.

Each takes one input (1, C, H, W), normalised as the network gets it, and returns a map (H, W). The
reference without evidence is an input of zeros, which is the mean of the training images.
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
    """Fall of the class's probability where a square of the image is covered.

    A pixel has the mean over all squares that cover it. By default a square's side is a quarter of
    the image's, and squares are a quarter of their side apart.
    Source: Zeiler and Fergus 2014, section 4.2.
    """
    size = x.shape[-1]
    side = side or max(size // 4, 1)
    stride = stride or max(side // 4, 1)
    if not 1 <= side <= size or stride < 1:
        raise UsageError(
            f"a square of {side} pixels in steps of {stride}: give a side of 1 to {size} pixels, "
            "and steps of 1 or more"
        )
    uncovered = model(x).softmax(1)[0, label]
    # Squares extend beyond the edges, so that pixels there are covered as often as the others.
    starts = range(stride - side, size, stride)
    places = [(top, left) for top in starts for left in starts]
    fall_sum, covers = (torch.zeros(size, size, device=x.device) for _ in range(2))
    for first in range(0, len(places), BATCH):
        batch = places[first : first + BATCH]
        inputs = x.repeat(len(batch), 1, 1, 1)
        boxes = []
        for i, (top, left) in enumerate(batch):
            box = (slice(max(top, 0), top + side), slice(max(left, 0), left + side))
            inputs[i][(slice(None), *box)] = 0
            boxes.append(box)
        falls = uncovered - model(inputs).softmax(1)[:, label]
        for box, fall in zip(boxes, falls, strict=True):
            fall_sum[box] += fall
            covers[box] += 1
    mean_fall: Tensor = (fall_sum / covers).cpu()
    return mean_fall


def grad_cam(model: Net, x: Tensor, label: int, part: str) -> Tensor:
    """Sum of a part's maps, each weighted by the mean gradient of the class's logit.

    Negative values are set to 0, and the map is enlarged to the image.
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    logits, outputs = model.activations(x, [part])
    if outputs[part].dim() != 4:
        raise UsageError(
            f"{part} has no feature maps: grad-cam needs a part before the first fully connected "
            "layer"
        )
    return class_map(logits[0, label], outputs[part], x.shape[-1])


def class_map(logit: Tensor, maps: Tensor, side: int) -> Tensor:
    """Grad-CAM (side, side) from the feature maps (1, C, h, w) that a logit was computed from."""
    (gradient,) = torch.autograd.grad(logit, maps)
    weights = gradient.mean((2, 3), keepdim=True)
    weighted = (weights * maps).sum(1, keepdim=True).relu().detach().float()
    enlarged = F.interpolate(weighted, (side, side), mode="bilinear", align_corners=False)
    return enlarged[0, 0].cpu()


def last_maps(model: Net) -> str:
    """Name of the last convolution's activation, such as relu5: the usual part for grad-cam."""
    names = list(model.parts)
    last = [name for name in model.layers if name.startswith(("conv", "local"))][-1]
    next_layer = model.layers[model.layers.index(last) + 1]
    stage = names[names.index(last) : names.index(next_layer)]
    return next((name for name in stage if name.startswith("relu")), last)


def integrated_gradients(model: Net, x: Tensor, label: int, steps: int = 64) -> Tensor:
    """Mean gradient of the class's logit on the straight line from 0 to the image, times the image.

    Channels are summed. The sum of the map is the difference of the logits at both ends.
    Source: Sundararajan et al. 2017, equation 3, by the midpoint rule.
    """
    total = torch.zeros_like(x)
    for first in range(0, steps, BATCH):
        count = min(BATCH, steps - first)
        fractions = (torch.arange(first, first + count, device=x.device) + 0.5) / steps
        inputs = (fractions.view(-1, 1, 1, 1) * x).requires_grad_()
        (gradient,) = torch.autograd.grad(model(inputs)[:, label].sum(), inputs)
        total += gradient.sum(0, keepdim=True)
    return (total / steps * x).sum(1)[0].detach().cpu()
