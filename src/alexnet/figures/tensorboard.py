"""The pictures and histograms of a network that TensorBoard shows at every validation."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alexnet import figures
from alexnet.data.augment import Preprocess
from alexnet.data.splits import Split
from alexnet.models.net import Net
from alexnet.runs.tensorboard import TensorBoard

SHOWN = 8  # validation images, always the same
SAMPLED = 64  # validation images whose activations make the histograms


class ValidationPictures:
    """Called with the step and the network after each validation: histograms of weights and
    activations, the first filters, predictions; the graph at the first. Draws no random number."""

    def __init__(
        self, board: TensorBoard, val: Split, preprocess: Preprocess, classes: tuple[str, ...]
    ) -> None:
        self._board, self._classes, self._preprocess = board, classes, preprocess
        ids = np.linspace(0, len(val) - 1, min(SAMPLED, len(val))).astype(int)
        self._labels, self._pixels = val.labels[ids], val.read(ids)
        self._graphed = False

    def __call__(self, step: int, model: Net) -> None:
        device = next(model.parameters()).device
        x = self._preprocess.views(torch.from_numpy(self._pixels).to(device), 1)[0]
        if not self._graphed:
            self._board.add_graph(model, x[:1])
            self._graphed = True
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits, kept = model.activations(x, [n for n in model.parts if n[:4] == "relu"])
        model.train(was_training)
        self._board.add_histograms(step, model, kept)
        probabilities = logits.softmax(1).cpu().numpy()
        edge = (self._preprocess.size - self._preprocess.crop) // 2
        side = slice(edge, edge + self._preprocess.crop)
        picked = range(0, len(x), max(len(x) // SHOWN, 1))[:SHOWN]
        shown = [
            figures.Prediction(
                self._pixels[i][side, side],
                self._classes[self._labels[i]],
                [
                    (self._classes[c], float(probabilities[i, c]))
                    for c in np.argsort(-probabilities[i], kind="stable")[:5]
                ],
            )
            for i in picked
        ]
        with tempfile.TemporaryDirectory(prefix="alexnet-board-") as folder:
            out = Path(folder) / "picture.png"
            figures.draw_predictions(shown, out, f"validation at step {step:,}")
            self._add("predictions", out, step)
            weight = model.part(model.layers[0]).get_parameter("weight").detach().float().cpu()
            if weight.dim() == 4:
                kernels = weight.permute(0, 2, 3, 1) if weight.shape[1] == 3 else weight[:, 0]
                note = "each from its largest weight; grey is 0"
                tower = [(f"{len(weight)} kernels", kernels.numpy())]
                figures.draw_filters(tower, out, f"{model.layers[0]} at step {step:,}", note)
                self._add("filters", out, step)

    def _add(self, tag: str, path: Path, step: int) -> None:
        with Image.open(path) as image:
            self._board.add_picture(tag, np.asarray(image.convert("RGB")), step)
