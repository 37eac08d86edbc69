"""The pictures: written whole, of the right size, nothing cut off, odd input survived."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from alexnet import figures
from alexnet.errors import UsageError

LONG = "great white shark, white shark, man-eater, Carcharodon carcharias " * 3
DIGITS = [str(digit) for digit in range(10)]


def check(figure: Figure, out: Path) -> list[str]:
    """Check the file and that every text lies inside the picture; return the texts."""
    width, height = figure.bbox.width, figure.bbox.height
    with Image.open(out) as image:
        image.load()
        assert (image.format, *image.size) == ("PNG", int(width), int(height))
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    axes = [a for a in figure.axes if a.axison]
    tight = [t for t in texts if t in figure.texts or any(t in a.texts for a in axes)]
    boxes = [t.get_window_extent() for t in tight] + [a.get_tightbbox() for a in figure.axes]
    for box in boxes:
        assert box is not None
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    return [t.get_text() for t in texts]


def train(step: int, **more: Any) -> figures.Event:
    loss = 2.3 / step
    values = {"epoch": step / 10, "loss": loss, "loss_mean": loss, "top1": 1 - loss / 3}
    return {"event": "train", "step": step, **values, "top5": None, "lr": 0.1 / step, **more}


def val(step: int, top1: float) -> figures.Event:
    interval = {"top1_ci95": [top1 - 0.02, top1 + 0.01], "top5": None}
    return {"event": "val", "step": step, "epoch": step / 10, "loss": 1.0, "top1": top1, **interval}


@pytest.mark.parametrize("points", [0, 1, 5])
def test_curves(points: int, tmp_path: Path) -> None:
    out = tmp_path / "curves.png"
    tops = [0.5, 0.7, 0.9125, 0.8, 0.6][:points]
    events = [train(step) for step in range(1, 51)]
    events += [val(10 * i + 10, top1) for i, top1 in enumerate(tops)]
    figure = figures.draw_curves(
        {"odd $name$": events, "other": events}, out, "A run with $odd$ name"
    )
    texts = check(figure, out)
    assert r"A run with \$odd\$ name" in texts
    best = {0: "", 1: "\nbest: 50.00 % at epoch 1", 5: "\nbest: 91.25 % at epoch 3"}[points]
    assert {r"odd \$name\$" + best, "other" + best} <= set(texts)
    assert figure.axes[3].get_yscale() == "log"  # 0.1 to 0.002 spans more than 20x
    loss, top5 = figure.axes[0], figure.axes[2]
    assert [len(line.get_xdata(orig=False)) for line in loss.lines] == [50, points] * 2
    assert "nothing measured yet" in [text.get_text() for text in top5.texts]


def test_curves_of_nothing_and_of_a_resumed_run(tmp_path: Path) -> None:
    out = tmp_path / "curves.png"
    assert (
        check(figures.draw_curves({"empty": []}, out, "empty"), out).count("nothing measured yet")
        == 5
    )
    repeated = [train(1), train(2), train(3, lr=0.1), train(2), train(3, lr=0.2)]
    rates = figures.draw_curves({"resumed": repeated}, out, "resumed").axes[3].lines[0].get_ydata()
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.2])


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 48, 3)])
def test_mistakes_surest_first(shape: tuple[int, int, int], tmp_path: Path) -> None:
    out = tmp_path / "mistakes.png"
    images = np.stack([np.full(shape, 10 * i, np.uint8) for i in range(6)])
    labels, predicted = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 2, 2, 1, 0, 0])
    probability = np.array([0.99, 0.5, 0.9, 0.97, 0.6, 0.7])
    classes = ["cat", "$dog$", LONG]
    said = labels, predicted, probability, classes
    figure = figures.draw_mistakes(images, *said, out, "t", limit=3)
    check(figure, out)
    shown = [image for axes in figure.axes for image in axes.get_images()]
    assert [int(np.asarray(image.get_array()).flat[0]) for image in shown] == [30, 50, 40]
    assert figure.axes[0].get_title() == "cat → \\$dog\\$ (97\N{NO-BREAK SPACE}%)"
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_no_mistakes(tmp_path: Path) -> None:
    out, labels = tmp_path / "none.png", np.arange(10)
    images = np.zeros((10, 8, 8, 1), np.uint8)
    figure = figures.draw_mistakes(images, labels, labels, np.ones(10), DIGITS, out, "t")
    assert "no mistakes in 10 images" in check(figure, out)


@pytest.mark.parametrize(
    "classes", [["cat", LONG], DIGITS, [f"class {i} {LONG}" for i in range(13)]]
)
def test_confusion(classes: list[str], tmp_path: Path) -> None:
    out, size = tmp_path / "confusion.png", len(classes)
    matrix = np.eye(size, dtype=int) * 90 + 1
    matrix[0] = 0  # a class without images
    figure = figures.draw_confusion(matrix, classes, out, "Confusion " + LONG)
    texts = check(figure, out)
    assert "91" in texts
    (heat,) = figure.axes[0].findobj(AxesImage)
    assert [float(heat.norm(share)) for share in (0, 0.25, 0.5, 1)] == [0, 0.25, 0.5, 1]
    assert any("share of the images of the true class" in text for text in texts)
    assert len(figure.axes[0].get_xticklabels()) == size


def test_confusion_of_a_thousand_classes(tmp_path: Path) -> None:
    out = tmp_path / "confusion.png"
    matrix = np.eye(1000, dtype=int) * 49
    matrix[10, 900] = 50
    figure = figures.draw_confusion(matrix, [f"n{i}" for i in range(1000)], out, "t")
    check(figure, out)
    axes = figure.axes[0]
    assert axes.get_xticklabels() == []
    assert min(axes.bbox.width, axes.bbox.height) >= 1000  # a pixel for every cell
    (heat,) = axes.findobj(AxesImage)
    colours = heat.to_rgba(heat.get_array())[..., :3]
    assert np.abs(colours[10, 900] - colours[10, 901]).sum() > 0.2  # half of a class is visible


def test_format_follows_the_suffix(tmp_path: Path) -> None:
    figures.draw_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path / "c.svg", "t")
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["c.svg"]
    with pytest.raises(UsageError, match=r"c\.jpg: a picture ends in \.png or \.svg"):
        figures.draw_confusion(np.eye(2, dtype=int), ["a", "b"], tmp_path / "c.jpg", "t")


def test_a_script_the_font_lacks_is_no_error(tmp_path: Path) -> None:
    # Warnings are errors in this test suite, the one about missing glyphs too.
    out = tmp_path / "c.png"
    figures.draw_confusion(np.eye(2, dtype=int), ["犬\x1b", "caf\udce9"], out, "t")
    assert out.exists()


def test_what_the_guard_saw(tmp_path: Path) -> None:
    looks = [
        {"event": "look", "step": s, "epoch": s / 50, "update": 0.01, "dead": {"relu1": s / 1000}}
        for s in (1, 101, 201)
    ]
    assert figures.draw_looks(looks[:1], tmp_path / "l.png", "one look is no curve") is None
    figure = figures.draw_looks(looks, tmp_path / "l.png", "A run")
    assert figure is not None
    assert "relu1" in check(figure, tmp_path / "l.png")
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == pytest.approx([0.1, 10.1, 20.1])


def test_panels_dots_and_distributions(tmp_path: Path) -> None:
    curves = {f"condition {i}": [("a", [2.3, 2.0, 1.0]), ("b", [9.0, 2.3, 2.3])] for i in range(6)}
    panels = figures.draw_panels(curves, tmp_path / "p.png", "Panels", ("ln K", 2.3))
    texts = check(panels, tmp_path / "p.png")
    assert {"condition 5", "ln K", "a", "b", "step", "loss (nats)"} <= set(texts)
    lines = panels.axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines[1:]] == [[2.3, 2.0, 1.0], [9.0, 2.3, 2.3]]

    rows = {"one": [[1e-9], [0.1]], "two": [[1.0], [2.0]]}
    dotted = figures.draw_dots({"x": rows, "y": rows}, tmp_path / "d.png", "Dots", {0})
    check(dotted, tmp_path / "d.png")
    assert [axes.get_xscale() for axes in dotted.axes] == ["log", "linear"]
    assert [t.get_text() for t in dotted.axes[0].get_yticklabels()] == ["one", "two"]

    panel = figures.Panel("gain", {"healthy": [0.0, 1.0], "sick": [100.0]}, (8.0,), True)
    spread = figures.draw_distributions([panel] * 4, tmp_path / "t.png", "Distributions")
    check(spread, tmp_path / "t.png")
    dots = [c.get_offsets()[:, 0].tolist() for c in spread.axes[0].collections]
    assert dots[0][1] == 1.0
    assert 0 < dots[0][0] < 1.0  # zero has no place on a logarithmic axis: at its left edge
    assert dots[1] == [100.0]
