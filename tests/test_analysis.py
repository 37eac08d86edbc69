"""What is computed of a trained network, against definitions written out."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.analysis import (
    Mistakes,
    class_agreement,
    colour_scores,
    confused_pairs,
    count_answers,
    doubtful_labels,
    fit_linear_probe,
    gather_features,
    grad_cam,
    integrated_gradients,
    last_hidden,
    linear_cka,
    measure_calibration,
    most_excited,
    nearest_neighbours,
    occlusion,
    receptive_field,
    surest_mistakes,
    tower_scores,
    towers_of,
    write_features,
)
from alexnet.data import Preprocess, Split, Statistics, open_dataset
from alexnet.errors import DataError, UsageError
from alexnet.lab.benches import peak_bytes
from alexnet.models import Net, build_model, model_spec
from alexnet.recipe import Recipe
from conftest import patterns, write_idx


def test_colour_is_what_is_not_grey() -> None:
    grey = torch.randn(1, 1, 5, 5).expand(1, 3, 5, 5)
    opponent = torch.cat([grey[:, :1], -grey[:, :1], 0 * grey[:, :1]], 1)
    noise = torch.randn(1, 3, 400, 400)
    kernels = torch.cat([grey, opponent, 0 * grey])
    assert colour_scores(kernels).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert colour_scores(noise).item() == pytest.approx(2 / 3, abs=0.01)
    assert colour_scores(7 * kernels).tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    with pytest.raises(UsageError, match=r"\(4, 1, 3, 3\), but a colour score needs"):
        colour_scores(torch.zeros(4, 1, 3, 3))


def test_towers_weigh_kernels_by_their_energy() -> None:
    grey = torch.ones(1, 3, 2, 2)
    colour = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    first, second = tower_scores(torch.cat([grey, grey, 1e-3 * grey, colour]), 2)
    assert (first.kernels, second.kernels) == (range(2), range(2, 4))
    assert (first.colour, second.colour) == pytest.approx((0, 1), abs=1e-4)
    with pytest.raises(UsageError, match="4 kernels do not divide into 3 towers"):
        tower_scores(torch.cat([grey] * 4), 3)


@pytest.mark.parametrize(("name", "towers"), [("alexnet-2012", 2), ("alexnet-2014", 1)])
def test_towers_are_the_groups_of_the_second_layer(name: str, towers: int) -> None:
    with torch.device("meta"):
        assert towers_of(build_model(name)) == towers


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_is_exact_whatever_the_blocks(metric: Any) -> None:
    random = np.random.default_rng(0)
    # Far from the origin, where sums of squares in float32 lose the small differences.
    far = 1000 if metric == "euclidean" else 0
    keys = (far + random.normal(size=(300, 20))).astype(np.float32)
    queries = (far + random.normal(size=(40, 20))).astype(np.float32)
    wide, some = keys.astype(float), queries.astype(float)
    if metric == "euclidean":
        true = np.sqrt(((some[:, None] - wide) ** 2).sum(2))
    else:
        norms = np.linalg.norm(some, axis=1)[:, None] * np.linalg.norm(wide, axis=1)
        true = 1 - some @ wide.T / norms
    expected = np.argsort(true, axis=1)[:, :6]
    for size in ({}, {"block_bytes": 4 * 20 * 7}):
        distances, ids = nearest_neighbours(queries, keys, 6, metric, **size)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(distances, np.take_along_axis(true, ids, 1), atol=1e-9)


def test_equal_keys_come_in_their_order() -> None:
    keys = np.zeros((30, 4), np.float32)
    keys[7] = 1
    _, ids = nearest_neighbours(np.ones((1, 4), np.float32), keys, 1)
    assert ids.tolist() == [[7]]
    distances, _ = nearest_neighbours(np.zeros((1, 4), np.float32), keys, 2, "cosine")
    assert distances.tolist() == [[1, 1]]  # a row of zeros points nowhere


def test_neighbours_that_cannot_be() -> None:
    keys = np.zeros((3, 4), np.float32)
    with pytest.raises(DataError, match="6 neighbours of 3 images: ask for 1 to 3"):
        nearest_neighbours(keys, keys, 6)
    with pytest.raises(UsageError, match="metric 'manhattan' is unknown: use euclidean or cosine"):
        nearest_neighbours(keys, keys, 1, "manhattan")  # type: ignore[arg-type]
    keys[1, 1] = np.nan
    with pytest.raises(DataError, match="not a finite number"):
        nearest_neighbours(keys[:1], keys, 1)


def test_agreement_counts_classes() -> None:
    ids = np.array([[0, 1], [2, 3], [1, 2], [3, 0]])
    found = class_agreement(ids, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert (found.n, found.k) == (4, 2)
    assert (found.first, found.share) == (0.75, 6 / 8)
    low, high = found.first_ci95
    assert low < 0.75 < high


def small_net() -> Net:
    torch.manual_seed(0)
    return build_model("alexnet-28", 10).eval()


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Preprocess]:
    images, labels = patterns(130)
    split = Split("test", labels.astype(np.int64), images[..., None], 28, 1)
    return split, Preprocess(28, 28, 1, Statistics((40.0,), (50.0,), ()))


def test_features_are_the_parts_outputs_in_order(
    digits: tuple[Split, Preprocess], tmp_path: Path
) -> None:
    split, preprocess = digits
    model = small_net()
    x = preprocess.views(torch.from_numpy(split.read(np.arange(130))), 1)[0]
    with torch.no_grad():
        _, expected = model.activations(x, ["pool1", "relu7"])
    for part in ("pool1", "relu7"):
        out = tmp_path / f"{part}.npy"
        shape = write_features(out, model, split, preprocess, part)
        found = np.load(out, mmap_mode="r")
        assert shape == found.shape == tuple(expected[part].shape)
        np.testing.assert_allclose(found, expected[part], atol=1e-5)
    pooled = gather_features(model, split, preprocess, ["pool1"], most=32 * 7 * 7)
    means = torch.nn.functional.avg_pool2d(expected["pool1"], 2).flatten(1)
    np.testing.assert_allclose(pooled["pool1"], means, atol=1e-5)
    with pytest.raises(UsageError, match="no part 'fc9': there are conv1"):
        write_features(tmp_path / "no.npy", model, split, preprocess, "fc9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool1.npy", "relu7.npy"]


@pytest.mark.parametrize(
    ("name", "part"), [("alexnet-2012", "relu7"), ("cifar-alexnet", "bn8"), ("alexnet-28", "relu7")]
)
def test_the_last_hidden_part(name: str, part: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    assert last_hidden(model) == part


def test_calibration_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.55, 0.45]])
    found = measure_calibration(p, np.array([0, 1, 1, 0]), bins=2, least=1)
    # 0.55 and 0.7 are in the lower half of the images, 0.8 and 0.9 in the upper.
    assert [(b.n, b.low, b.high, b.right) for b in found.bins] == [
        (2, 0.55, 0.7, 1.0), (2, 0.8, 0.9, 0.5),
    ]  # fmt: skip
    assert found.ece == pytest.approx((2 * 0.375 + 2 * 0.35) / 4)
    assert (found.accuracy, found.mean_said) == pytest.approx((0.75, 0.7375))


def drawn_answers(n: int, seed: int, off: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 2), labels (n,): what is said is right as often as that, less `off`."""
    random = np.random.default_rng(seed)
    sure = random.uniform(0.6, 1.0, n)
    right = random.random(n) < sure - off
    return np.stack([sure, 1 - sure], 1), np.where(right, 0, 1)


@pytest.mark.parametrize(
    ("n", "bins"), [(36, 1), (59, 1), (60, 2), (100, 3), (450, 15), (9000, 15)]
)
def test_bins_of_calibration_have_thirty_images(n: int, bins: int) -> None:
    found = measure_calibration(*drawn_answers(n, 0))
    assert len(found.bins) == bins
    assert min(b.n for b in found.bins) >= 30
    assert sum(b.n for b in found.bins) == n


def test_equal_probabilities_are_one_bin() -> None:
    """A dead network says the same of every image: bins of them would differ by chance alone."""
    p = np.full((900, 2), [0.7, 0.3])
    assert len(measure_calibration(p, np.arange(900) % 2).bins) == 1


@pytest.mark.parametrize(("n", "off"), [(36, 0.0), (300, 0.0), (300, 0.15), (2000, 0.05)])
def test_intervals_of_calibration_hold(n: int, off: float) -> None:
    """Of networks that are off by so much, the interval has it in most of a hundred draws; a
    network that is not off is seldom called more than chance."""
    held, beyond = 0, 0
    for seed in range(100):
        found = measure_calibration(*drawn_answers(n, seed, off))
        low, high = found.ece_ci95
        held += low <= off <= high
        beyond += low > 0
        assert found.ece_by_chance_ci95[0] <= found.ece_by_chance <= found.ece_by_chance_ci95[1]
    assert found == measure_calibration(*drawn_answers(n, seed, off))
    assert held >= 88
    if not off:
        assert beyond <= 8
    elif n * off > 40:
        assert beyond >= 70


def test_confusions_mistakes_and_labels_that_look_wrong() -> None:
    assert confused_pairs(np.array([[9, 2, 0], [5, 9, 0], [0, 1, 9]]), 2) == [(1, 0, 5), (0, 1, 2)]
    assert confused_pairs(np.eye(3, dtype=int)) == []
    random = np.random.default_rng(0)
    true = random.integers(0, 4, 400)
    p = np.full((400, 4), 0.05)
    p[np.arange(400), true] = 0.85
    labels = true.copy()
    wrong = np.array([3, 50, 200])
    labels[wrong] = (true[wrong] + 1) % 4
    assert sorted(surest_mistakes(p, labels)) == wrong.tolist()
    assert sorted(doubtful_labels(p, labels)) == wrong.tolist()
    assert not len(doubtful_labels(p, true))


def test_mistakes_are_kept_while_images_go_by() -> None:
    """The same, in the same order, as of all probabilities at once; ties are by place."""
    random = np.random.default_rng(0)
    p = random.integers(1, 5, (200, 4)).astype(np.float32)
    p /= p.sum(1, keepdims=True)
    labels = random.integers(0, 4, 200)
    mistakes = Mistakes(24)
    for first in range(0, 200, 30):
        mistakes.add(first, p[first : first + 30], labels[first : first + 30])
    all_of_them = surest_mistakes(p, labels)
    assert mistakes.ids.tolist() == all_of_them[:24].tolist()
    assert mistakes.count == len(all_of_them)
    assert mistakes.predicted.tolist() == p[all_of_them[:24]].argmax(1).tolist()
    assert mistakes.confidence.tolist() == p[all_of_them[:24]].max(1).tolist()


def test_a_test_and_features_hold_no_split(tmp_path: Path) -> None:
    """60,000 images, 47 MB, pass through both in little memory of their own."""
    count, recipe = 60_000, Recipe(size=28, crop=28, channels=1, eval_batch=500)
    write_idx(tmp_path, "train", *patterns(100))
    for name, header, data in (
        ("images-idx3", (count, 28, 28), np.random.default_rng(0).bytes(count * 784)),
        ("labels-idx1", (count,), bytes(i % 10 for i in range(count))),
    ):
        head = struct.pack(f">4B{len(header)}I", 0, 0, 8, len(header), *header)
        with gzip.open(tmp_path / f"t10k-{name}-ubyte.gz", "wb", 1) as file:
            file.write(head + data)
    preprocess = Preprocess(28, 28, 1, Statistics((0.0,) * 3, (1.0,) * 3, ()))
    net = Net(model_spec("mnist-alexnet", 10, (1, 28, 28))[-1:], (1, 28, 28))
    seen = Mistakes(24)

    def test() -> None:
        split = open_dataset(recipe, tmp_path).split("test")
        labels = split.labels
        tally = count_answers(
            net, split, preprocess, recipe, 10, 1,
            lambda first, p: seen.add(first, p, labels[first : first + len(p)]),
        )  # fmt: skip
        assert tally.n == count

    def write() -> None:
        split = open_dataset(recipe, tmp_path).split("test")
        part = next(iter(net.parts))
        assert write_features(tmp_path / "f.npy", net, split, preprocess, part)[0] == count

    for work in (test, write):
        peak = peak_bytes(work)
        if peak is None:
            pytest.skip("this system does not say how much memory a process holds")
        assert peak < 20 << 20, work
    assert seen.count > 0


def only_a_corner() -> tuple[Net, torch.Tensor]:
    """A network that sees the image's bright upper left corner and nothing else, and an image."""
    model = small_net()
    x = torch.zeros(1, 1, 28, 28)
    x[..., 4:10, 4:10] = 3.0
    return model, x


@pytest.mark.parametrize("method", ["occlusion", "grad-cam", "integrated-gradients"])
def test_evidence_lies_where_the_image_is(method: str) -> None:
    model, x = only_a_corner()
    label = int(model(x).argmax())
    if method == "occlusion":
        found = occlusion(model, x, label)
        far = found[20:, 20:]
        assert found.abs().argmax() // 28 < 14
        assert far.abs().max() < 1e-6  # nothing is covered there that is not 0 already
    elif method == "grad-cam":
        found = grad_cam(model, x, label, "relu2")
        assert found.min() >= 0
        with pytest.raises(UsageError, match="relu6 has no feature maps"):
            grad_cam(model, x, label, "relu6")
    else:
        found = integrated_gradients(model, x, label, 256)
        with torch.no_grad():
            gap = model(x)[0, label] - model(torch.zeros_like(x))[0, label]
        assert found.sum().item() == pytest.approx(float(gap), rel=0.02, abs=2e-3)
        assert found[12:, 12:].abs().max() == 0
    assert found.shape == (28, 28)


def test_attributions_equal_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr", reason="captum, the oracle, is not installed")
    model, x = only_a_corner()
    with torch.no_grad():
        x += torch.randn(x.shape)
    theirs = captum.IntegratedGradients(model).attribute(
        x, target=3, n_steps=64, method="riemann_middle"
    )
    ours = integrated_gradients(model, x, 3, 64)
    torch.testing.assert_close(ours, theirs[0, 0].float(), atol=1e-5, rtol=1e-3)
    theirs = captum.LayerGradCam(model, model.part("relu2")).attribute(
        x, target=3, relu_attributions=True
    )
    shown = torch.nn.functional.interpolate(theirs, (28, 28), mode="bilinear")[0, 0]
    torch.testing.assert_close(grad_cam(model, x, 3, "relu2"), shown.detach())


def test_a_probe_reads_what_is_linear() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    x = random.normal(size=(600, 20)).astype(np.float32)
    x[np.arange(600), labels] += 6
    found = fit_linear_probe(x[:400], labels[:400], x[400:], labels[400:], 3)
    assert found.top1 > 0.97
    assert (found.n, found.fitted) == (200, 400)
    noise = fit_linear_probe(x[:400, 5:], labels[:400], x[400:, 5:], labels[400:], 3)
    assert noise.top1_ci95[0] < 1 / 3 < noise.top1_ci95[1]
    assert found == fit_linear_probe(x[:400], labels[:400], x[400:], labels[400:], 3)


def test_alike_is_blind_to_turning_and_scale_alone() -> None:
    random = np.random.default_rng(0)
    x, other = random.normal(size=(2, 100, 300))
    turn, _ = np.linalg.qr(random.normal(size=(300, 300)))
    assert linear_cka(x, 5 * x @ turn + 3) == pytest.approx(1, abs=1e-6)
    assert abs(linear_cka(x, other)) < 0.05  # the usual estimator says 0.75 here
    assert 0.2 < linear_cka(x, np.hstack([x, other])) < 0.9


@pytest.mark.parametrize("name", ["alexnet-2012", "alexnet-2012-code", "mnist-alexnet"])
@pytest.mark.parametrize("part", ["pool1", "conv2", "conv3"])
def test_a_patch_holds_what_moves_the_output(name: str, part: str) -> None:
    size, channels = (127, 3) if name.startswith("alexnet") else (28, 1)
    torch.manual_seed(0)
    model = build_model(name, 10, size=size, channels=channels).eval()
    spec = model_spec(name, 10)
    x = torch.randn(1, channels, size, size, requires_grad=True)
    maps = model.activations(x, [part])[1][part]
    side = maps.shape[-1]
    for row, column in ((0, 0), (side // 2, side // 2), (side - 1, 1)):
        (gradient,) = torch.autograd.grad(maps[0, :, row, column].sum(), x, retain_graph=True)
        rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
        top, left, bottom, right = receptive_field(spec, (channels, size, size), part, row, column)
        seen = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        if "pool" in part:  # of a maximum only the winner moves it
            assert top <= seen[0] and left <= seen[1] and bottom >= seen[2] and right >= seen[3]  # noqa: PT018
        else:
            assert tuple(map(int, seen)) == (top, left, bottom, right)
    assert receptive_field(spec, (channels, size, size), model.layers[-1], 0, 0) == (
        0,
        0,
        size,
        size,
    )


def test_the_images_that_excite_a_channel(digits: tuple[Split, Preprocess]) -> None:
    split, preprocess = digits
    model = small_net()
    whole = gather_features(model, split, preprocess, ["conv1"])["conv1"]
    maps = whole.reshape(130, 32, -1)
    found = most_excited(model, split, preprocess, "conv1", 3)
    assert found.shape[0] == 32
    expected = np.argsort(-maps.max(2), axis=0, kind="stable")[:3].T
    np.testing.assert_array_equal(found.images, expected)
    first = maps[found.images[5, 0], 5]
    assert first[found.places[5, 0]] == first.max() == found.values[5, 0]
