"""The parts of training, each against plain arithmetic, and that it learns."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet import commands
from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment
from alexnet.data.dataset import open_dataset
from alexnet.data.loader import read_ahead, read_batch, steps_per_epoch
from alexnet.data.slices import Slice
from alexnet.data.statistics import Statistics
from alexnet.engine.evaluate import evaluate
from alexnet.engine.optim import (
    Lars,
    PaperSGD,
    build_optimizer,
    load_optimizer,
    optimizer_tensors,
)
from alexnet.engine.schedule import Watch, learning_rate
from alexnet.engine.train import train_step
from alexnet.errors import DataError, Diverged, UsageError
from alexnet.metrics import RULES, Tally, topk_hits, wilson
from alexnet.models.zoo import build_model
from alexnet.recipe import Recipe
from conftest import read_events

# Optimisers


def test_paper_sgd_is_the_papers_recurrence() -> None:
    """v <- 0.9 v - decay lr w - lr g; w <- w + v over a drop of lr, in numpy's float64."""
    random = np.random.default_rng(0)
    w, grads = random.normal(size=(7, 5)), random.normal(size=(40, 7, 5))
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    twin = torch.nn.Parameter(torch.from_numpy(w.copy()))
    paper = PaperSGD([parameter], 0.1, 0.9, 5e-4)
    torchs = torch.optim.SGD([twin], 0.1, momentum=0.9, weight_decay=5e-4)
    v, differences = np.zeros_like(w), []
    for step, g in enumerate(grads):
        lr = 0.1 if step < 20 else 0.01
        v = 0.9 * v - 5e-4 * lr * w - lr * g
        w = w + v
        for optimizer, p in ((paper, parameter), (torchs, twin)):
            optimizer.param_groups[0]["lr"] = lr
            p.grad = torch.from_numpy(g.copy())
            optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12)
        differences.append(float((parameter - twin).detach().abs().max()))
    assert max(differences[:20]) < 1e-12  # with one rate the two are the same
    assert differences[20] > 1e-2


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_paper_sgd_in_any_layout(momentum: float, layout: torch.memory_format) -> None:
    """In float32, over rates up, down and 0, with gradients laid out otherwise than the weights,
    and the velocity of the checkpoint is the recurrence's own."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 5, 3, 3, generator=generator).to(memory_format=layout).requires_grad_()
    paper = PaperSGD([weight], 1.0, momentum, 5e-3)
    w, v = weight.detach().double().clone(), torch.zeros(9, 5, 3, 3).double()
    for lr in np.repeat([0.01, 0.001, 0.0, 0.02], 25):
        paper.param_groups[0]["lr"] = float(lr)
        weight.grad = torch.randn(9, 5, 3, 3, generator=generator)
        v = momentum * v - lr * (weight.grad.double() + 5e-3 * w)
        w = w + v
        paper.step()
    torch.testing.assert_close(weight.detach().double(), w, rtol=0, atol=1e-5)
    if momentum:
        kept = paper.state[weight]["velocity"]
        torch.testing.assert_close(kept.double(), v, rtol=0, atol=1e-6)


def test_vectors_are_not_decayed_unless_asked() -> None:
    model = build_model("alexnet-28", 10)
    for decay_biases in (False, True):
        recipe = Recipe(weight_decay=0.5, decay_biases=decay_biases, channels=1)
        decays = {
            id(p): group["weight_decay"]
            for group in build_optimizer(model, recipe).param_groups
            for p in group["params"]
        }
        assert len(decays) == len(list(model.parameters()))
        for name, p in model.named_parameters():
            vector = name.endswith("bias") or name.startswith("bn")
            assert decays[id(p)] == (0.0 if vector and not decay_biases else 0.5), name


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw"])
def test_optimizer_state_travels_by_name(opt: str) -> None:
    def steps(model: Any, optimizer: Any, n: int, seed: int) -> None:
        for i in range(n):
            generator = torch.Generator().manual_seed(seed + i)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    recipe = Recipe(opt=opt, lr=0.01)  # type: ignore[arg-type]
    model, other = build_model("cifar-alexnet", 3), build_model("cifar-alexnet", 3)
    optimizer = build_optimizer(model, recipe)
    steps(model, optimizer, 2, 0)
    saved = {k: v.clone() for k, v in optimizer_tensors(optimizer, model).items()}
    assert any(key.startswith("conv1.weight/") for key in saved)
    other.load_state_dict(model.state_dict())
    again = build_optimizer(other, recipe)
    load_optimizer(again, other, saved)
    steps(model, optimizer, 2, 9)
    steps(other, again, 2, 9)
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


# Schedules


def rates(recipe: Recipe, total: int = 100, per_epoch: int = 10) -> list[float]:
    return [learning_rate(recipe, step, per_epoch, total) for step in range(total)]


def test_constant_and_steps() -> None:
    assert set(rates(Recipe(schedule="constant", lr=0.3))) == {0.3}
    found = rates(Recipe(schedule="steps", lr=1.0, drops=(2.0, 5.5), lr_factor=0.5))
    assert found == [1.0] * 20 + [0.5] * 35 + [0.25] * 45


def test_cosine_with_warm_up() -> None:
    recipe = Recipe(schedule="cosine", lr=2.0, warmup_epochs=1, final_lr=0.1)
    found = rates(recipe)
    np.testing.assert_allclose(found[:10], [0.2 * (i + 1) for i in range(10)])
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * i / 90)) / 2) for i in range(90)]
    np.testing.assert_allclose(found[10:], expected)
    assert learning_rate(recipe, 100, 10, 100) == pytest.approx(0.2)


def test_onecycle_rises_for_three_tenths_and_ends_at_the_bottom() -> None:
    found = rates(Recipe(schedule="onecycle", lr=1.0))
    assert int(np.argmax(found)) in (29, 30)
    assert max(found) == pytest.approx(1.0)
    assert (np.diff(found[:30]) > 0).all()
    assert (np.diff(found[30:]) < 0).all()
    assert found[0] == pytest.approx(1 / 30)
    assert 0 < found[-1] < 1e-3


def test_plateau_drops_three_times_and_stops() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2, lr=1.0)
    watch, seen = Watch(), []
    assert watch.update(0.5, 1.0, 1, recipe) == (True, "")
    for step in range(2, 20):
        best, why = watch.update(0.5, 1.0, step, recipe)
        assert not best
        seen.append(learning_rate(recipe, step, 10, 100, watch.drops))
        if why:
            break
    np.testing.assert_allclose(seen, [1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001])
    assert why == "no improvement after 3 drops of the learning rate"
    assert watch.best_step == 1


def test_watch_knows_the_best() -> None:
    recipe = Recipe(early_stop=2)
    watch = Watch()
    assert watch.update(0.5, 1.0, 1, recipe) == (True, "")
    assert watch.update(0.5, 0.9, 2, recipe) == (True, "")  # as accurate, and surer
    assert watch.update(0.5, 0.9, 3, recipe) == (False, "")
    assert watch.update(0.6, 5.0, 4, recipe) == (True, "")
    assert watch.update(0.4, 0.1, 5, recipe) == (False, "")
    assert watch.update(0.6, 5.0, 6, recipe) == (False, "no improvement in 2 validations")
    assert (watch.best_step, watch.best_top1, watch.best_loss) == (4, 0.6, 5.0)
    assert Watch().update(math.nan, math.nan, 1, recipe)[0] is False


def test_an_improvement_gives_the_plateau_its_patience_back() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2)
    watch = Watch()
    for step, top1 in enumerate((0.1, 0.1, 0.2, 0.2, 0.2)):
        watch.update(top1, 1.0, step, recipe)
    assert watch.drops == 1


# Learning


def test_it_learns(trained: Path) -> None:
    events = [e for e in read_events(trained) if e["event"] == "val"]
    assert events[-1]["top1"] >= 0.95
    assert events[-1]["n"] == 60
    losses = [e["loss_mean"] for e in read_events(trained) if e["event"] == "train"]
    assert losses[-1] < losses[0] / 4


def test_early_stop_ends_a_run(idx_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    fields = tiny | {"steps": 50, "early_stop": 1, "eval_every": 0.05, "lr": 1e-30}
    result = commands.train("digits", data=idx_folder, run=tmp_path / "run", **fields)
    assert "no improvement" in result["finished"]
    assert result["step"] < 50


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_loss_that_is_no_number_ends_the_run(
    save_every: int, idx_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    fields = tiny | {"opt": "sgd", "lr": 1e30, "log_every": 3, "steps": 9}
    fields |= {"save_every": save_every, "batch_size": 8}
    with pytest.raises(Diverged, match=r"loss is (nan|inf).* at step \d.*--lr 1e\+29"):
        commands.train("digits", data=idx_folder, run=tmp_path / "run", **fields)
    assert Diverged("").exit_status == 1


def test_label_smoothing_is_the_formula() -> None:
    """(1 - s) of the target's -log p and s of the mean over all classes, through `train_step`."""
    model = build_model("mnist-alexnet", 10, dropout=0.0)
    recipe = Recipe(channels=1, size=28, crop=28, label_smoothing=0.2, lr=0.1)
    images = torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    split = Slice("train", np.array([3, 1, 0, 7]), images.numpy(), 28, 1)
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
    from alexnet import load

    predictor = load(trained)
    data = open_dataset(predictor.recipe, predictor.data["path"])
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
        assert figures["top1"] == found[0]["top1"]
        assert figures["loss"] == pytest.approx(found[0]["loss"], rel=1e-4, abs=1e-7)


# Draws

PINNED_BITS = [2391539541053276776, 11223592508116050971, 13532766175163487890]
PINNED_ORDER = [6, 0, 3, 7, 4, 5, 2, 1]
PINNED_SEED = 3031638231463043932


def test_uniform_is_uniform() -> None:
    n, cells = 100_000, 50
    for seed, epoch, purpose in ((0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 7, 3), (2**62, 9, 8)):
        u = draws.uniform(seed, epoch, np.arange(n), purpose)
        assert (u >= 0).all()
        assert (u < 1).all()
        assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
        assert abs(u.var() - 1 / 12) < 0.001
        counts = np.bincount((u * cells).astype(int), minlength=cells)
        chi2 = ((counts - n / cells) ** 2 / (n / cells)).sum()
        assert abs(chi2 - (cells - 1)) < 5 * math.sqrt(2 * (cells - 1))
        assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5 / math.sqrt(n)


def test_keys_do_not_share_draws() -> None:
    ids = np.arange(20_000)
    streams = [
        draws.uniform(seed, epoch, ids, purpose)
        for seed, epoch, purpose in itertools.product((0, 1), (0, 1), (0, 1))
    ]
    for a, b in itertools.combinations(streams, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(ids))


def test_draws_are_pinned() -> None:
    """These numbers are in every recorded result and checkpoint: they may never change."""
    found = draws.bits(0, 0, np.arange(3), draws.ORDER).tolist()
    assert found == PINNED_BITS
    assert draws.permutation(3, 2, 8).tolist() == PINNED_ORDER
    assert draws.net_seed(5, 17) == PINNED_SEED
    names = ("ORDER", "CROP_Y", "CROP_X", "FLIP", "ANGLE", "ZOOM_Y", "ZOOM_X", "CUT_Y", "CUT_X")
    assert [getattr(draws, name) for name in (*names, "SPLIT", "NET", "INIT")] == list(range(12))


def test_splitmix_is_splitmix() -> None:
    """The chain written with Python's unbounded integers."""
    mask = 2**64 - 1

    def slow(*words: int) -> int:
        state = 0
        for word in words:
            state = (state + word * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & mask
            state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
            state = ((state ^ state >> 27) * 0x94D049BB133111EB) & mask
            state ^= state >> 31
        return state

    for key in ((0, 0, 0, 0), (7, 3, 123456, 4), (2**63 - 1, 10**9, 5, 11)):
        assert int(draws.bits(key[0], key[1], key[2], key[3])) == slow(*key)


def test_permutation_shuffles() -> None:
    order = draws.permutation(0, 0, 500)
    assert sorted(order) == list(range(500))
    assert (order == np.arange(500)).sum() < 10
    for other in (draws.permutation(0, 1, 500), draws.permutation(1, 0, 500)):
        assert sorted(other) == list(range(500))
        assert (order == other).sum() < 10
    assert (draws.permutation(0, 0, 500) == order).all()


def numbered(n: int) -> Slice:
    pixels = np.repeat(np.arange(n, dtype=np.uint8), 4).reshape(n, 2, 2, 1)
    return Slice("train", np.arange(n), pixels, 2, 1)


def test_an_epoch_shows_each_image_at_most_once_and_each_epoch_another_order() -> None:
    recipe, split = Recipe(batch_size=6, size=2, crop=2, channels=1), numbered(20)
    assert steps_per_epoch(20, 6) == 3
    epochs = []
    for epoch in range(3):
        batches = [read_batch(split, recipe, step) for step in range(3 * epoch, 3 * epoch + 3)]
        assert {b.epoch for b in batches} == {epoch}
        ids = np.concatenate([b.ids for b in batches])
        assert len(set(ids)) == 18
        for b in batches:
            assert (b.images[:, 0, 0, 0].numpy() == b.ids).all()
            assert (b.labels.numpy() == b.ids).all()
        epochs.append(ids.tolist())
    assert epochs[0] != epochs[1] != epochs[2]
    with pytest.raises(DataError, match="--batch-size 20"):
        steps_per_epoch(20, 21)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_read_ahead_keeps_the_order_and_raises(workers: int) -> None:
    assert list(read_ahead(lambda i: i * i, range(50), workers)) == [i * i for i in range(50)]

    def fail(i: int) -> int:
        if i == 7:
            raise DataError("seven")
        return i

    seen: list[int] = []
    with pytest.raises(DataError, match="seven"):
        seen.extend(read_ahead(fail, range(50), workers))
    assert seen == list(range(7))


# Augmentation


def untouched(size: int, crop: int, channels: int = 3) -> Preprocess:
    """Preprocessing that leaves the numbers as they are."""
    nothing = Statistics((0.0,) * channels, (1.0,) * channels, ())
    return Preprocess(size, crop, channels, nothing)


def photos(n: int, size: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (n, size, size, channels), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("size", "crop", "shift"), [(9, 9, 0), (9, 6, 0), (9, 9, 2), (9, 7, 3)])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_shift_and_flip_against_a_loop(size: int, crop: int, shift: int, flip: bool) -> None:
    recipe = Recipe(size=size, crop=crop, shift=shift, flip=flip, seed=3)
    n, epoch = 40, 5
    images, ids = photos(n, size), np.arange(100, 100 + n)
    found = augment(images, ids, epoch, recipe, untouched(size, crop))
    span = size + 2 * shift - crop + 1
    places, mirrors = set(), 0
    for i in range(n):
        key = np.array([ids[i]])
        top = int(draws.uniform(3, epoch, key, draws.CROP_Y)[0] * span)
        left = int(draws.uniform(3, epoch, key, draws.CROP_X)[0] * span)
        mirrored = flip and draws.uniform(3, epoch, key, draws.FLIP)[0] < 0.5
        expected = np.zeros((3, crop, crop), np.float32)
        for y, x in itertools.product(range(crop), repeat=2):
            row, column = top + y - shift, left + x - shift
            if 0 <= row < size and 0 <= column < size:
                place = crop - 1 - x if mirrored else x
                expected[:, y, place] = images[i, row, column]
        np.testing.assert_array_equal(found[i].numpy(), expected)
        places.add((top, left))
        mirrors += bool(mirrored)
    assert len(places) > 1 or span == 1
    assert 5 < mirrors < 35 or not flip


def test_cutout_hides_a_square_in_the_mean_colour() -> None:
    recipe, images = Recipe(size=12, crop=12, cutout=4, seed=1), photos(60, 12)
    colours = Statistics((-1.0, -2.0, -3.0), (2.0, 2.0, 2.0), ())
    preprocess = Preprocess(12, 12, 3, colours)
    whole = augment(images, np.arange(60), 0, recipe.replace(cutout=0), preprocess)
    found = augment(images, np.arange(60), 0, recipe, preprocess)
    sizes = set()
    for i in range(60):
        hidden = found[i, 0] == 0  # which no pixel is: they are 1 and more, the mean is below 0
        rows, columns = hidden.any(1), hidden.any(0)
        assert hidden.sum() == rows.sum() * columns.sum() > 0
        assert (found[i][:, hidden] == 0).all()
        assert torch.equal(found[i][:, ~hidden], whole[i][:, ~hidden])
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert max(sizes) == (4, 4)


def test_rotation_and_scale_stay_within_their_bounds() -> None:
    """A dot right of the centre turns by at most the angle, both ways; a zoom moves it outwards."""
    image = torch.zeros(200, 41, 41, 1, dtype=torch.uint8)
    image[:, 19:22, 34:37] = 255
    ids, line = np.arange(200), torch.arange(41) - 20.0

    def centre(**fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = Recipe(size=41, crop=41, channels=1, **fields)
        x = augment(image, ids, 0, recipe, untouched(41, 41, 1))[:, 0]
        return (x.sum(1) * line).sum(1) / x.sum((1, 2)), (x.sum(2) * line).sum(1) / x.sum((1, 2))

    x, y = centre(rotate=20.0)
    angles = torch.rad2deg(torch.atan2(y, x))
    assert 17 < float(angles.max()) < 20.5
    assert -20.5 < float(angles.min()) < -17
    torch.testing.assert_close((x**2 + y**2).sqrt(), torch.full((200,), 15.0), rtol=0.02, atol=0)
    x, y = centre(scale=0.2)
    assert 12 < float(x.min()) < 13
    assert 17.5 < float(x.max()) < 19
    assert float(y.abs().max()) < 0.2


def test_augmentation_depends_on_the_image_and_the_epoch_and_not_on_the_batch() -> None:
    recipe = Recipe(size=12, crop=10, shift=2, flip=True, rotate=10.0, scale=0.1, cutout=3)
    images, ids = photos(8, 12), np.arange(8)
    whole = augment(images, ids, 4, recipe, untouched(12, 10))
    part = augment(images[[5, 2]], ids[[5, 2]], 4, recipe, untouched(12, 10))
    torch.testing.assert_close(part, whole[[5, 2]], rtol=1e-6, atol=1e-4)
    assert not torch.equal(augment(images, ids, 5, recipe, untouched(12, 10)), whole)
    other = recipe.replace(seed=1)
    assert not torch.equal(augment(images, ids, 4, other, untouched(12, 10)), whole)


def test_views_are_separate_crops() -> None:
    preprocess = Preprocess(9, 6, 3, Statistics((100.0, 110.0, 120.0), (50.0, 60.0, 70.0), ()))
    images = photos(4, 9)
    x = (images.permute(0, 3, 1, 2).float() - torch.tensor([100.0, 110, 120])[:, None, None]) / (
        torch.tensor([50.0, 60, 70])[:, None, None]
    )
    corners = [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)]
    crops = [x[:, :, top : top + 6, left : left + 6] for top, left in corners]
    ten = preprocess.views(images, 10)
    assert ten.shape == (10, 4, 3, 6, 6)
    for i, crop in enumerate(crops):
        torch.testing.assert_close(ten[i], crop, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ten[5 + i], crop.flip(3), rtol=1e-6, atol=1e-6)
    assert torch.equal(preprocess.views(images, 5), ten[:5])
    assert torch.equal(preprocess.views(images, 1), ten[:1])
    with pytest.raises(UsageError, match="--views 1"):
        untouched(6, 6).views(images, 5)


def test_views_are_averaged_after_the_softmax() -> None:
    model = build_model("cifar-alexnet", 10, size=16).eval()
    preprocess = Preprocess(20, 16, 3, Statistics((128.0,) * 3, (60.0,) * 3, ()))
    images = photos(6, 20)
    split = Slice("test", np.array([0, 1, 2, 3, 4, 5]), images.numpy(), 20, 3)
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
    assert tally.figures()["loss"] == pytest.approx(float(loss), rel=1e-4)


# Metrics


def test_topk_under_ties_is_the_count_over_all_orders() -> None:
    """Every order in which a sort might leave the classes, for scores full of ties."""
    random = np.random.default_rng(0)
    for classes, k in ((4, 1), (5, 2), (5, 5), (3, 5)):
        scores = random.integers(0, 3, (12, classes))
        labels = random.integers(0, classes, 12)
        found = topk_hits(torch.from_numpy(scores).float(), torch.from_numpy(labels), k)
        for row, label, hits in zip(scores, labels, found, strict=True):
            orders = [
                sorted(range(classes), key=lambda c, row=row, order=order: (-row[c], order[c]))
                for order in itertools.permutations(range(classes))
            ]
            inside = [label in order[:k] for order in orders]
            expected = (any(inside), all(inside), float(np.mean(inside)))
            np.testing.assert_allclose(hits.numpy(), np.array(expected, float), atol=1e-6)


def test_scores_that_are_no_number_are_misses() -> None:
    scores = torch.eye(3, 8)
    scores[0, 5] = math.nan
    scores[1, 6] = math.inf
    hits = topk_hits(scores, torch.arange(3), 5)
    assert hits.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert topk_hits(torch.full((2, 8), math.nan), torch.tensor([0, 1]), 8).sum() == 0


def test_wilson_against_known_values() -> None:
    """Newcombe 1998, table I: the score interval without continuity correction."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        np.testing.assert_allclose(wilson(hits, n), (low, high), atol=5e-5)
    np.testing.assert_allclose(wilson(0, 20), (0, 0.1611), atol=5e-5)
    np.testing.assert_allclose(wilson(29, 29), (0.8830, 1), atol=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def tally_of(scores: torch.Tensor, labels: torch.Tensor) -> Tally:
    tally = Tally(scores.shape[1])
    losses = F.cross_entropy(scores, labels, reduction="none")
    for part in range(0, len(labels), 7):
        rows = slice(part, part + 7)
        tally.add(scores[rows], labels[rows], losses[rows])
    return tally


def test_tally_sums_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 8, (50,), generator=generator)
    tally = tally_of(scores, labels)
    figures = tally.figures()
    assert figures["n"] == 50
    assert figures["loss"] == pytest.approx(float(F.cross_entropy(scores, labels)), rel=1e-6)
    order = scores.argsort(1, descending=True)
    top5 = float((order[:, :5] == labels[:, None]).any(1).double().mean())
    assert figures["top1"] == pytest.approx(float((order[:, 0] == labels).double().mean()))
    assert figures["top5"] == pytest.approx(top5)
    for rule in RULES:
        assert figures[f"top5_{rule}"] == pytest.approx(top5)
    assert figures["top1_ci95"] == list(wilson(figures["top1"] * 50, 50))
    for label, (right, n) in enumerate(tally.per_class()):
        assert n == int((labels == label).sum())
        assert right == int(((order[:, 0] == label) & (labels == label)).sum())
    for true, said in itertools.product(range(8), repeat=2):
        count = int(((labels == true) & (order[:, 0] == said)).sum())
        assert int(tally.confusion[true, said]) == count
    assert tally.tie_warning() is None


@pytest.mark.parametrize(("classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top5_of_five_classes_is_nothing(classes: int, has_top5: bool) -> None:
    figures = tally_of(torch.randn(10, classes), torch.arange(10) % classes).figures()
    assert (figures["top5"] is not None) == has_top5
    assert ("top5_ci95" in figures) == has_top5


def test_a_dead_network_is_warned_of() -> None:
    tally = tally_of(torch.zeros(20, 10), torch.arange(20) % 10)
    figures = tally.figures()
    assert figures["top1_optimistic"] == figures["top5_optimistic"] == 1
    assert figures["top1_pessimistic"] == figures["top5_pessimistic"] == 0
    assert figures["top1"] == pytest.approx(0.1)
    assert figures["top5"] == pytest.approx(0.5)
    warning = tally.tie_warning()
    assert warning is not None
    assert "100.00 % with ties as hits, 0.00 % as misses, 10.00 % expected" in warning


# Large batches


def test_a_rate_is_scaled_to_the_batch() -> None:
    recipe = Recipe(lr=0.02, lr_batch=256, batch_size=1024, schedule="constant")
    assert learning_rate(recipe, 0, 10, 100) == pytest.approx(0.08)
    assert learning_rate(recipe.replace(lr_batch=0), 0, 10, 100) == 0.02


def test_poly_falls_with_the_square_of_what_is_left() -> None:
    recipe = Recipe(lr=1.0, schedule="poly", warmup_epochs=1)
    rates = [learning_rate(recipe, step, 10, 110) for step in (4, 9, 10, 60, 109)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.25, 1e-4])


def test_lars_is_its_equation() -> None:
    """Algorithm 1 in numpy, ten steps; the bias by the plain rule."""
    torch.manual_seed(0)
    w, b = (torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(4)))
    groups = [
        {"params": [w], "weight_decay": 0.1},
        {"params": [b], "weight_decay": 0.0},
    ]
    optimizer = Lars(groups, 0.5, 0.9, 0.0, 0.01)
    own, velocity = w.detach().double().numpy().copy(), np.zeros((4, 3))
    bias, slow = b.detach().double().numpy().copy(), np.zeros(4)
    for step in range(10):
        w.grad, b.grad = torch.randn(4, 3) * 10.0 ** (step % 3), torch.ones(4)
        g = w.grad.double().numpy().copy()
        optimizer.step()
        size, slope = np.linalg.norm(own), np.linalg.norm(g)
        local = 0.01 * size / (slope + 0.1 * size)
        velocity = 0.9 * velocity - 0.5 * local * (g + 0.1 * own)
        own = own + velocity
        slow = 0.9 * slow - 0.5
        bias = bias + slow
        assert np.allclose(w.detach().numpy(), own, rtol=1e-5)
        assert np.allclose(b.detach().numpy(), bias, rtol=1e-5)


def test_lars_moves_weights_of_zero_and_survives_no_gradient() -> None:
    w = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = Lars([{"params": [w], "weight_decay": 0.1}], 0.5, 0.9, 0.0, 0.01)
    for gradient in (torch.ones(2, 2), torch.zeros(2, 2)):
        w.grad = gradient
        optimizer.step()
        assert w.isfinite().all()
    assert w.abs().sum() > 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trust": 0.001, "opt": "adam"}, "trust 0.001 .LARS. is of --opt sgd"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate 9 cuts a batch of 8 images"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_large_batch_fields_that_contradict(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe(**fields)
