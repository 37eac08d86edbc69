"""What the doctor measures: signals, layers, activations in the graph, labels and their probe."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchmarks.doctor.faults import Case
from torch import Tensor, nn

from alexnet import diagnose
from alexnet.diagnosis import measure_signals
from alexnet.models import ResponseNormLayer
from conftest import patterns
from patients import case as case
from patients import said


def signal_of(x: Tensor) -> float:
    """How much the image matters in what a layer makes, here of the images themselves."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2))
    return measure_signals(net, x, torch.arange(len(x)) % 2, F.cross_entropy).layers[0].signal


def test_the_signal_is_what_tells_images_apart() -> None:
    """1 - cosine over all pairs, also where it is tiny, and 0 for zeros."""
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    rows = F.normalize(x.flatten(1).double(), dim=1)
    cosines = [float(rows[i] @ rows[j]) for i in range(7) for j in range(i)]
    assert signal_of(x) == pytest.approx(1 - sum(cosines) / len(cosines), rel=1e-5)
    same = torch.ones(5, 1000) + 1e-4 * torch.randn(5, 1000)
    assert 5e-9 < signal_of(same) < 2e-8
    assert signal_of(torch.zeros(4, 5)) == 0


def pairs(*layers: nn.Module) -> int:
    """Layers of weights with nothing but linear ones between them and the next."""
    net, x = nn.Sequential(*layers), torch.randn(2, 4, 9, 9)
    return len(measure_signals(net, x, torch.arange(2), lambda logits, labels: logits.sum()).linear)


class ByHand(nn.Module):
    """SiLU from a product, as people write it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Residual(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


def conv(kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, padding=kernel // 2)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([conv(), nn.ReLU(), conv()], 0),
        ([conv(), conv()], 1),
        ([conv(), nn.BatchNorm2d(4), nn.Dropout(), conv()], 1),
        ([conv(), nn.MaxPool2d(2), conv()], 1),
        ([conv(), ResponseNormLayer(), conv()], 1),
        ([conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), ResponseNormLayer(), conv()], 0),
        ([conv(), nn.GELU(), conv(), nn.Tanh(), conv(), nn.LeakyReLU(), conv()], 0),
        ([conv(), nn.PReLU(), conv(), nn.Hardswish(), conv(), nn.SELU(), conv()], 0),
        ([conv(), ByHand(), conv()], 0),
        ([conv(1), conv(1)], 0),
        ([conv(), Residual(nn.Sequential(nn.ReLU(), conv())), nn.ReLU(), conv()], 0),
        ([nn.Flatten(), nn.Linear(324, 8), nn.Linear(8, 8)], 1),
        ([nn.Flatten(), nn.Linear(324, 8), nn.ReLU(), nn.Linear(8, 8)], 0),
    ],
    ids=lambda x: "-".join(type(m).__name__ for m in x) if isinstance(x, list) else str(x),
)
def test_activations_are_found_in_the_graph(layers: list[nn.Module], expected: int) -> None:
    torch.manual_seed(0)
    assert pairs(*layers) == expected


def test_what_a_layer_does() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([0.0, -100.0, 500.0]))
    x = torch.rand(8, 1, 4, 4) + 0.1
    found = measure_signals(net, x, torch.arange(8) % 2, F.cross_entropy)
    layers = {layer.name: layer for layer in found.layers}
    assert [layer.kind for layer in found.layers] == [type(m).__name__ for m in net]
    assert layers["1"].dead == pytest.approx(1 / 3)
    assert layers["1"].zeros == pytest.approx(1 / 3)
    assert layers["1"].follows == pytest.approx(1, rel=1e-3)
    assert layers["1"].arrives == layers["0"].signal
    assert layers["1"].responds is not None
    assert layers["2"].responds is not None
    assert layers["2"].responds < layers["1"].responds
    assert layers["0"].gain == pytest.approx(layers["0"].rms / float(x.square().mean().sqrt()))
    assert all(layer.gradient >= 0 for layer in found.layers)
    assert layers["5"].gradient > 0
    with torch.no_grad():
        assert found.loss == pytest.approx(float(F.cross_entropy(net(x), torch.arange(8) % 2)))


Batches = list[tuple[Tensor, Tensor]]


def batched(x: Tensor, y: Tensor, size: int = 32) -> Batches:
    return list(zip(x.split(size), y.split(size), strict=True))


def look(train: Batches, val: Batches | None = None, classes: int = 10) -> dict[str, Any]:
    """What the doctor says of images and labels alone, before any step."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(train[0][0][0].numel(), classes))
    return diagnose(net, train, val_loader=val, steps=0)


def test_labels_by_chance_have_full_entropy() -> None:
    """Beside that of shuffled batches: 32 labels of 10 classes are never quite even."""
    x, y = torch.randn(640, 1, 4, 4), torch.arange(640) % 10
    mixed = y[torch.randperm(640, generator=torch.Generator().manual_seed(1))]
    assert look(batched(x, mixed)).figures.order == pytest.approx(1, rel=0.03)
    ordered = look(batched(x, y.sort().values))
    assert ordered.figures.order < 0.3
    assert "class-order" in said(ordered)


def test_the_probe_finds_what_there_is(case: Case) -> None:
    told = look(case.batches(), case.val_batches())
    assert told.figures.probe.accuracy > 0.9
    assert said(told) == []
    shifted = [(x, (y + 1) % 10) for x, y in case.val_batches()]
    assert said(look(case.batches(), shifted)) == ["splits-shifted"]
    untold = look([(x, y[torch.randperm(len(y))]) for x, y in case.batches()])
    assert untold.figures.probe.accuracy < 0.2
    assert said(untold) == ["labels-unrelated"]
    assert look(case.batches()[:2]).figures.probe is None  # too few to tell


def test_the_probe_sets_no_prize_on_the_commonest_class() -> None:
    """97 images of 100 are of one class: naming it always is worth one half."""
    y = (torch.arange(1500) % 33 == 0).long()
    noise = torch.randn(1500, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    told = look([(noise + 3 * y[:, None, None, None], y)], classes=2)
    assert told.figures.probe.accuracy > 0.9
    assert "labels-unrelated" not in said(told)
    untold = look([(noise, y)], classes=2)
    assert untold.figures.probe.accuracy < 0.5 + 3 * 0.04  # standard errors of 46 images
    assert "labels-unrelated" in said(untold)


def test_a_shuffle_by_seed_0_does_not_meet_the_folds() -> None:
    """Classes in turn, shuffled by seed 0: folds by that seed would each have half the classes."""
    images, labels = patterns(600)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0)).numpy()
    x, y = torch.from_numpy(images[order])[:, None].float(), torch.from_numpy(labels[order]).long()
    assert look([(x, y)]).figures.probe.accuracy > 0.9
