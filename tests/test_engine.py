"""Training and evaluation: that it learns, when it ends, and the loss against plain arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import alexnet
from alexnet.data import Preprocess, Split, Statistics, open_dataset, read_batch
from alexnet.errors import Diverged
from alexnet.models import build_model
from alexnet.recipe import Recipe
from alexnet.training import build_optimizer, evaluate, train_step
from conftest import read_events
from crops import photos

pytestmark = pytest.mark.usefixtures("no_page")


def test_it_learns(trained: Path) -> None:
    events = [e for e in read_events(trained) if e["event"] == "val"]
    assert events[-1]["top1"] >= 0.95
    assert events[-1]["n"] == 60
    losses = [e["loss_mean"] for e in read_events(trained) if e["event"] == "train"]
    assert losses[-1] < losses[0] / 4


def test_early_stop_ends_a_run(idx_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    fields = tiny | {"steps": 50, "early_stop": 1, "eval_every": 0.05, "lr": 1e-30}
    result = alexnet.train("digits", data=idx_folder, run=tmp_path / "run", **fields)
    assert "no improvement" in result.finished
    assert result.step < 50


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_loss_that_is_no_number_ends_the_run(
    save_every: int, idx_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    fields = tiny | {"opt": "sgd", "lr": 1e30, "log_every": 3, "steps": 9}
    fields |= {"save_every": save_every, "batch_size": 8}
    with pytest.raises(Diverged, match=r"loss is (nan|inf).* at step \d.*lr=1e\+29"):
        alexnet.train("digits", data=idx_folder, run=tmp_path / "run", **fields)
    assert Diverged("").exit_status == 1


def test_label_smoothing_is_the_formula() -> None:
    """(1 - s) of the target's -log p and s of the mean over all classes, through `train_step`."""
    model = build_model("mnist-alexnet", 10, dropout=0.0)
    recipe = Recipe(channels=1, size=28, crop=28, label_smoothing=0.2, lr=0.1)
    images = torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    split = Split("train", np.array([3, 1, 0, 7]), images.numpy(), 28, 1)
    batch = read_batch(split, recipe.replace(batch_size=4), 0)
    preprocess = Preprocess(28, 28, 1, Statistics((10.0,), (50.0,), ()))
    with torch.no_grad():
        x = (batch.images.permute(0, 3, 1, 2).float() - 10) / 50
        log_p = model(x).double().log_softmax(1)
    right = log_p.gather(1, batch.labels[:, None]).mean()
    expected = -(0.8 * right + 0.2 * log_p.mean())
    sums = torch.zeros(4, dtype=torch.float64)
    optimizer = build_optimizer(model, recipe)
    loss = train_step(model, optimizer, batch, 0.1, recipe, preprocess, sums)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert sums[0] == 4
    assert float(sums[1]) == pytest.approx(4 * float(loss), rel=1e-6)


def test_evaluation_counts_every_image_once(trained: Path) -> None:
    """Any batch size, one view or ten: the same n; and the model's mode is put back."""
    predictor = alexnet.load(trained)
    data = open_dataset(predictor.recipe, predictor.data.path)
    found = []
    for batch, workers in ((7, 0), (60, 2), (1000, 1)):
        seen: list[int] = []
        tally = evaluate(
            predictor.model.train(),
            data.val,
            predictor.preprocess,
            10,
            batch=batch,
            workers=workers,
            each=lambda first, p, seen=seen: seen.extend(range(first, first + len(p))),  # type: ignore[misc]
        )
        assert predictor.model.training
        assert seen == list(range(60))
        assert int(tally.confusion.sum()) == tally.n == 60
        found.append(tally.figures())
    for figures in found[1:]:
        assert figures.top1 == found[0].top1
        assert figures.loss == pytest.approx(found[0].loss, rel=1e-4, abs=1e-7)


def test_views_are_averaged_after_the_softmax() -> None:
    model = build_model("cifar-alexnet", 10, size=16).eval()
    preprocess = Preprocess(20, 16, 3, Statistics((128.0,) * 3, (60.0,) * 3, ()))
    images = photos(6, 20)
    split = Split("test", np.array([0, 1, 2, 3, 4, 5]), images.numpy(), 20, 3)
    kept: list[torch.Tensor] = []
    tally = evaluate(
        model,
        split,
        preprocess,
        10,
        views=10,
        batch=25,
        workers=0,
        each=lambda _, p: kept.append(p),
    )
    with torch.no_grad():
        expected = torch.stack([model(v).softmax(1) for v in preprocess.views(images, 10)]).mean(0)
    torch.testing.assert_close(torch.cat(kept), expected, rtol=1e-4, atol=1e-6)
    loss = F.nll_loss(expected.log(), torch.arange(6))
    assert tally.figures().loss == pytest.approx(float(loss), rel=1e-4)
