"""Explanations of a classification: evidence map, active filters, nearest training images."""

import base64
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet.analysis.maps import strongest
from alexnet.analysis.saliency import class_map, last_maps
from alexnet.predictor import Predictor
from alexnet.runtime import autocast
from alexnet.serving.index import Index

FILTERS, NEIGHBOURS = 8, 6
MAX_PNG = 64  # pixels a side; larger pictures are sent as JPEG
EVIDENCE_RGB = (213, 94, 0)  # differs from grey also for colour-blind eyes


class Explainer:
    """Explains one stored image, uint8 (size, size, C), at a time; pictures are data URLs.

    Evidence is Grad-CAM at the last convolution, for the class `label` or the likeliest one.
    Filters are those of the first layer with the largest activations. Neighbours are None without
    an index.
    """

    def __init__(self, predictor: Predictor, index: Index | None = None) -> None:
        self._predictor, self._index = predictor, index
        model = predictor.model
        self._evidence_part = last_maps(model)
        self._filter_part = next(name for name in model.parts if name.startswith("relu"))
        weight = model.part(model.layers[0]).get_parameter("weight").detach().float().cpu()
        is_picture = weight.shape[1] in (1, 3) and weight.dim() == 4
        self._kernels = [kernel_picture(kernel) for kernel in weight] if is_picture else []

    def __call__(self, pixels: NDArray[np.uint8], label: int | None) -> dict[str, Any]:
        p, index = self._predictor, self._index
        device = next(p.model.parameters()).device
        x = p.preprocess.views(torch.from_numpy(pixels[None]).to(device), 1)[0]
        parts = [self._evidence_part, self._filter_part] + ([index.part] if index else [])
        with autocast(device, index.precision if index else p.precision):
            logits, outputs = p.model.activations(x, parts)
        label = int(logits[0].argmax()) if label is None else label
        evidence = class_map(logits[0, label], outputs[self._evidence_part], p.preprocess.crop)
        neighbours = None
        if index is not None:
            features = outputs[index.part].detach().float().cpu().flatten().numpy()
            neighbours = [
                self._neighbour(index, row, distance)
                for row, distance in index.near(features, NEIGHBOURS)
            ]
        edge = (p.preprocess.size - p.preprocess.crop) // 2
        end = edge + p.preprocess.crop
        return {
            "class": p.classes[label],
            "index": label,
            "input": to_data_url(pixels[edge:end, edge:end]),
            "evidence": self._draw_evidence(evidence),
            "filters": self._top_filters(outputs[self._filter_part][0].detach().float().cpu()),
            "neighbors": neighbours,
            "indexed": len(index.names) if index else 0,
        }

    def _draw_evidence(self, evidence: Tensor) -> dict[str, Any]:
        """Draw the evidence map as a transparent picture, and locate its maximum."""
        peak = float(evidence.max())
        alpha = (evidence / peak if peak > 0 else evidence).clamp(0, 1).mul(255).byte().numpy()
        colour = np.broadcast_to(np.array(EVIDENCE_RGB, np.uint8), (*alpha.shape, 3))
        row, column = divmod(int(evidence.argmax()), evidence.shape[1])
        return {
            "method": "grad-cam",
            "part": self._evidence_part,
            "picture": to_data_url(np.dstack([colour, alpha])),
            "row": (row + 0.5) / len(evidence) if peak > 0 else None,
            "column": (column + 0.5) / len(evidence) if peak > 0 else None,
        }

    def _top_filters(self, maps: Tensor) -> list[dict[str, Any]]:
        """Return the filters with the largest activations, with kernels and activation maps."""
        scale = max(float(maps.max()), 1e-12)
        return [
            {
                "channel": channel,
                "of": self._filter_part,
                "peak": float(maps[channel].max()),
                "kernel": self._kernels[channel] if self._kernels else None,
                "map": to_data_url(
                    (maps[channel, ..., None] / scale).clamp(0, 1).mul(255).byte().numpy()
                ),
            }
            for channel in strongest(maps)[:FILTERS]
        ]

    def _neighbour(self, index: Index, row: int, distance: float) -> dict[str, Any]:
        stored = index.images.read(np.array([row]))[0]
        return {
            "image": index.names[row].encode(errors="replace").decode(),
            "class": self._predictor.classes[index.images.labels[row]],
            "distance": distance,
            "picture": to_data_url(stored),
        }


def kernel_picture(kernel: Tensor) -> str:
    """Draw a kernel (1 or 3, k, k), scaled by its largest weight; grey is 0."""
    scaled = 0.5 + kernel.permute(1, 2, 0) / (2 * kernel.abs().max().clamp(min=1e-12))
    return to_data_url(scaled.mul(255).round().byte().numpy())


def to_data_url(pixels: NDArray[np.uint8]) -> str:
    """Encode pixels (H, W, 1, 3 or 4) as a data URL; JPEG if large and not transparent."""
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    kind = "jpeg" if max(image.size) > MAX_PNG and image.mode != "RGBA" else "png"
    out = io.BytesIO()
    image.save(out, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
