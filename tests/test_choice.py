"""A training without a recipe: what is chosen for which data, and that it can be edited.

Speeds are given, never measured, but for one run from end to end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import alexnet
from alexnet.choice import DataSummary, choose_recipe
from alexnet.data import list_images, open_dataset
from alexnet.errors import DataError, UsageError
from alexnet.models import build_model
from alexnet.recipe import RECIPES, Recipe, find_recipe, write_recipe
from alexnet.training import measure_pace
from conftest import read_events, without_report
from given_steps import time_decoding
from shell import Cli, one_object
from shell import cli as cli

QUICK = ("--epochs", 1, "--precision", "fp32", "-j", 0, "--no-doctor")


def seen(counts: tuple[int, ...] = (400, 400), side: int = 300, **more: Any) -> DataSummary:
    names = tuple(f"class-{i}" for i in range(len(counts)))
    channels = more.pop("channels", 3)
    return DataSummary("photos", "folder", names, counts, (side, side, side), channels, **more)


def chosen(data: DataSummary, rate: float = 100.0, **more: Any) -> Recipe:
    """What is chosen where 64 pixels train at `rate` images/s, and others by their pixels."""
    return choice(data, rate, **more).recipe


def choice(data: DataSummary, rate: float = 100.0, **more: Any) -> Any:
    return choose_recipe(data, lambda recipe: rate * (64 / recipe.crop) ** 2, **more)


def test_faster_machines_and_more_time_see_more_pixels() -> None:
    crops = [chosen(seen(), rate).crop for rate in (1, 10, 100, 1000)]
    assert crops == sorted(crops)
    assert (crops[0], crops[-1]) == (32, 128)
    longer = [chosen(seen(), 30, minutes=m).crop for m in (1, 20, 400)]
    assert longer == sorted(longer)
    assert len(set(longer)) > 1


def test_224_pixels_are_for_many_photos() -> None:
    """Few are learned better, and sooner, at 128."""
    few, many = choice(seen((9_999, 10_000)), 1e6), choice(seen((10_000, 10_000)), 1e6)
    assert (few.recipe.crop, many.recipe.crop) == (128, 224)
    assert few.reasons[1].endswith("224 pixels are for 20,000 images or more")
    assert many.reasons[1].endswith("the most that is tried")


def test_patches_of_128_pixels_come_before_48() -> None:
    """They are quicker, and see more."""
    crops = [chosen(seen(side=side), 2 * 1.6**i).crop for side in (127, 128) for i in range(12)]
    assert sorted(set(crops[:12])) == [32, 48, 64]
    assert sorted(set(crops[12:])) == [32, 128]
    found = next(r for i in range(12) if (r := chosen(seen(side=128), 2 * 1.6**i)).crop == 128)
    assert (found.model, found.whiten, found.freeze) == ("patch-128", True, ("conv1",))


def test_small_photos_are_not_enlarged() -> None:
    assert chosen(seen(side=130), 1e6).crop == 128
    assert chosen(seen(side=50), 1e6).crop == 48
    assert "the images have no more" in choice(seen(side=130), 1e6).reasons[1]


def test_epochs_fit_the_time() -> None:
    data = seen((4000,) * 10)
    for minutes in (2.0, 5.0, 20.0):
        recipe = chosen(data, 100, minutes=minutes)
        n = 40_000 * (1 - recipe.test_fraction) * (1 - recipe.val_fraction)
        rate = 100 * (64 / recipe.crop) ** 2
        assert recipe.epochs * n / rate <= 60 * minutes
    said = choice(data, 100, minutes=2).reasons[3]
    assert "minutes=" in said, "a budget that holds too little says how much would do"


def test_slower_machines_are_not_timed_beyond_reason() -> None:
    asked: list[int] = []

    def pace(recipe: Recipe) -> float:
        asked.append(recipe.crop)
        return 0.5

    choose_recipe(seen(), pace)
    assert asked == [32]


def test_own_fields_stay() -> None:
    recipe = chosen(seen(), 1e5, fields={"epochs": 3, "size": 72, "crop": 64, "lr": 0.5})
    assert (recipe.epochs, recipe.size, recipe.crop, recipe.lr) == (3, 72, 64, 0.5)
    assert chosen(seen(), 1, fields={"crop": 128}).crop == 128, "64 pixels cannot hold it"
    assert "as asked" in choice(seen(), fields={"steps": 10}).reasons[3]
    with pytest.raises(UsageError, match="crop"):
        chosen(seen(), fields={"crop": 500})


@pytest.mark.parametrize(("counts", "batch"), [((3, 3), 2), ((100, 100), 16), ((4000, 4000), 32)])
def test_batches_fit_small_sets(counts: tuple[int, ...], batch: int) -> None:
    assert chosen(seen(counts), 1).batch_size == batch


def test_small_sets_end_early_and_say_how_sure_they_are() -> None:
    found = choice(seen((100, 100)))
    assert found.recipe.early_stop >= 5
    assert found.recipe.epochs > chosen(seen((4000, 4000))).epochs
    assert "on 32 images a figure is sure to 17 points" in found.reasons[4]


def test_uneven_classes_are_named() -> None:
    assert "class_weights='balanced'" in choice(seen((900, 100))).reasons[4]
    assert "class_weights" not in choice(seen((900, 500))).reasons[4]
    asked = choice(seen((900, 100)), fields={"class_weights": "balanced"})
    assert "each class is even" in asked.reasons[4]


def test_a_class_too_small_to_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"'class-1' has 2 image\(s\).*add 1 or more"):
        chosen(seen((30, 2)))
    assert chosen(seen((30, 2), held=("test",))).batch_size
    with pytest.raises(DataError, match="train and validation"):
        chosen(seen((30, 1), held=("test",)))


def test_grey_images_are_not_mirrored() -> None:
    recipe = chosen(seen(side=32, channels=1))
    assert (recipe.channels, recipe.flip, recipe.crop) == (1, False, 32)
    assert chosen(seen(side=20)).size == 28
    for rate in (1, 30, 1e3, 1e6):  # at every resolution
        recipe = chosen(seen(channels=1), rate)
        assert (recipe.channels, recipe.flip, recipe.area, recipe.views) == (1, False, 1.0, 1)
    assert [chosen(seen(), fields={"flip": flip}).views for flip in (True, False)] == [2, 1]
    assert "no mirrors" in choice(seen(side=32, channels=1)).reasons[2]


def test_known_sets_keep_their_recipes() -> None:
    for kind, side, name in (("digits", 28, "digits"), ("cifar10", 32, "cifar10")):
        data = DataSummary(kind, kind, ("a", "b"), (25_000, 25_000), (side,) * 3, 3, held=("test",))
        found = chosen(data, 1e4)
        assert found == RECIPES[name]().replace(eval_every=found.eval_every)
    assert chosen(data, 10, minutes=10).epochs < RECIPES["cifar10"]().epochs


def test_packed_sets_are_taken_at_their_size() -> None:
    for side, crop in ((256, 224), (144, 124), (110, 96), (72, 63), (32, 32)):
        for channels in (1, 3):
            data = DataSummary("p", "packed", ("a", "b"), (500, 500), (side,) * 3, channels)
            found = chosen(data, 1)
            assert (found.size, found.crop, found.channels) == (side, crop, channels)
            build_model(found.model, 2, channels=channels, size=crop)


def test_given_weights_are_fine_tuned() -> None:
    brought = {"model": "alexnet-32", "channels": 3, "size": 72, "crop": 64, "normalize": "std"}
    found = choice(seen(), inherited=brought)
    assert (found.recipe.model, found.recipe.crop) == ("alexnet-32", 64)
    assert found.recipe.part_lr == ("fc8=10",)
    assert found.recipe.lr < chosen(seen()).lr
    assert found.reasons[1].endswith(
        "as the given weights have it; all learn, fc8 10 times as fast"
    )
    own = {"freeze": ("conv1..conv3", "conv5"), "part_lr": ("fc7=2", "fc8=0@3")}
    said = choice(seen(), inherited=brought, fields=own).reasons[1]
    assert said.endswith(
        "; conv1..conv3 and conv5 stay as given, fc7 2 times as fast, "
        "fc8 0 times as fast from epoch 3"
    )
    file = chosen(seen(), inherited={"model": "alexnet-2014"})
    assert (file.crop, file.size) == (224, 256)


@given(
    st.lists(st.integers(3, 5000), min_size=2, max_size=20),
    st.integers(8, 3000),
    st.sampled_from((1, 3)),
    st.floats(0.01, 1e6),
    st.floats(0.01, 1e4),
)
def test_any_data_gets_a_recipe(
    counts: list[int], side: int, channels: int, rate: float, minutes: float
) -> None:
    found = choice(seen(tuple(counts), side, channels=channels), rate, minutes=minutes)
    assert len(found.reasons) == 5
    assert all(reason and "\n" not in reason for reason in found.reasons)
    assert found.recipe.batch_size <= sum(counts)
    assert find_recipe("photos").replace(**found.recipe.to_dict()) == found.recipe


def test_what_is_made_from_images_is_for_the_recipes_own_network() -> None:
    """Another network learns its first layer, as do given weights, unless that is asked for."""
    own = find_recipe("photos")
    assert own.whiten
    assert own.freeze == ("conv1",)
    other = own.adapted({"model": "alexnet-28"})
    assert (other.whiten, other.freeze, other.model) == (False, (), "alexnet-28")
    assert own.adapted({"lr": 0.1}) == own.replace(lr=0.1)
    assert own.adapted({}, weights=True) == own.replace(whiten=False, freeze=())
    asked = own.adapted({"model": "alexnet-28", "whiten": True}, weights=True)
    assert (asked.whiten, asked.freeze) == (True, ())
    assert chosen(seen(), fields={"model": "alexnet-28"}).whiten is False
    assert chosen(seen(), 10).whiten is True


def test_bad_minutes() -> None:
    for minutes in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="minutes="):
            choice(seen(), minutes=minutes)


def test_idx_files_are_taken_for_the_sets_that_they_may_be() -> None:
    names = tuple("0123456789")
    few = DataSummary("d", "idx", names, (60,) * 10, (28,) * 3, 1, held=("test",))
    recipe = chosen(few)
    assert (recipe.name, recipe.model, recipe.flip) == ("images-28", "fast-32", False)
    many = replace(few, counts=(6000,) * 10)
    assert chosen(many).name == "mnist"
    assert chosen(replace(many, classes=(*names[:9], "Sneaker"))).name == "fashion-mnist"


# Real files, of a training that is refused once it has said what was chosen.


def reasons(cli: Cli, data: Path) -> list[str]:
    argv = ("--data", data, "--run", data.parent / "refused", *QUICK, "--warmup-epochs", 99)
    status, _, err = cli("train", *argv)
    assert status == 2
    assert "warmup_epochs 99" in err[-1]
    return [line for line in err if line.startswith(("data: ", "network: ", "augmentation: "))]


def test_what_mixed_photos_are(tmp_path: Path, cli: Cli) -> None:
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    for i, shape in enumerate(((70, 50), (90, 200, 3), (60, 60, 3))):
        for label in ("ä b", "c"):
            (photos / label).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(photos / label / f"{i}.png")
    assert reasons(cli, photos)[0] == (
        f"data: {photos}: 6 images, 2 classes of 3, shorter side 50 to 90 (median 60) pixels, "
        "grey and colour"
    )
    (photos / "c" / "0.png").write_bytes(b"no image")
    status, _, err = cli("train", "--data", photos, "--run", tmp_path / "run", *QUICK)
    assert (status, len(err)) == (2, 1)
    assert f"{photos / 'c' / '0.png'}: not an image" in err[0]
    assert not (tmp_path / "run").exists()


def test_what_idx_files_are(idx_folder: Path, cli: Cli) -> None:
    data, network, augmentation = reasons(cli, idx_folder)
    assert data.endswith(
        ": 600 images in the part to train on, 10 classes of 60, shorter side 28 pixels, grey"
    )
    assert network.startswith("network: fast-32 at 28 pixels, ")
    assert "no mirrors" in augmentation


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pace_is_of_real_steps_and_changes_nothing(precision: str) -> None:
    torch.manual_seed(7)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(7)
    recipe = RECIPES["digits"]().replace(batch_size=4, precision=precision)
    assert measure_pace(recipe, 3) > 0
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == threads


def test_slow_moments_are_no_pace() -> None:
    recipe, each = RECIPES["digits"](), iter([9.0, 0.5, 4.0, 0.6, 7.0, 8.0, 9.0])
    assert measure_pace(recipe, 3, lambda *_: lambda: next(each)) == 32 / 0.5
    assert measure_pace(recipe, 3, lambda *_: lambda: 60.0) == 32 / 60, "not for ever"


def test_slow_moments_are_no_reading_time(tree: Path) -> None:
    """Of two images each one's best of three rounds counts; one round where reading takes long."""
    files = list_images(tree).take(np.arange(2))
    took = [0.09, 0.02, 0.01, 0.08, 0.07, 0.06]
    ticks, now = [0.0], 0.0
    for i, seconds in enumerate(took):
        ticks += [now, now := now + seconds]
        ticks += [now] if i % 2 else []  # is there time for another round?
    each = iter(ticks)
    assert time_decoding(files, 32, clock=lambda: next(each)) == pytest.approx((0.01 + 0.02) / 2)
    each = iter([0.0, 0.0, 9.0, 9.0, 18.0, 18.0])
    assert time_decoding(files, 32, clock=lambda: next(each)) == 9.0


def test_from_a_folder_to_a_run(
    tree: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    monkeypatch.chdir(tmp_path)
    status, out, err = cli("train", "--data", tree, "--minutes", 1, "--run", "a", *QUICK, "--json")
    assert status == 0
    result = one_object(out)
    assert [line.partition(":")[0] for line in result["choice"]] == [
        "data", "network", "augmentation", "length", "splits",
    ]  # fmt: skip
    assert all(line in err for line in result["choice"])

    file = tmp_path / "mine.toml"
    text = Path(result["recipe_file"]).read_text()
    file.write_text(text.replace("\nseed = 0", "\nseed = 5"))
    assert cli("train", file, "--run", "b", "--no-doctor")[0] == 0
    again = json.loads(Path("b/recipe.json").read_text())["recipe"]
    first = json.loads(Path("a/recipe.json").read_text())["recipe"]
    assert again == {**first, "seed": 5, "data": str(tree)}

    status, _, err = cli("train", "--data", tree, "--init", "a", "--run", "c", *QUICK)
    assert status == 0
    assert any("as the given weights have it" in line for line in err)
    assert any("tensors taken" in line for line in err)


# Recipe files.


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    recipe, file = RECIPES[name](), tmp_path / "r.toml"
    file.write_text(write_recipe(recipe, notes=["why\nso"]))
    assert find_recipe(str(file)) == recipe


@given(st.text(max_size=40))
def test_any_words_survive_a_file(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    file = tmp_path_factory.mktemp("r") / "r.toml"
    whole = words.encode("utf-8", "replace").decode()
    file.write_bytes(write_recipe(Recipe(about=whole.replace("\0", ""), data="digits")).encode())
    assert find_recipe(str(file)).about == whole.replace("\0", "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"lr = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"lr = 'high'", "lr is 'high'"),
        (b"epoch = 1", "did you mean 'epochs'"),
        (b"a = " + b"[" * 3000, "not valid TOML"),
        (b"#" * (2 << 20), "bytes"),
        (None, "no such file"),
    ],
)
def test_bad_recipe_files_are_one_line(
    content: bytes | None, why: str, tmp_path: Path, cli: Cli
) -> None:
    file = tmp_path / "bad.toml"
    if content is not None:
        file.write_bytes(content)
    status, _, err = cli("train", file)
    assert (status, len(err)) == (2, 1)
    assert why in err[0]
    assert str(file) in err[0]


@pytest.mark.parametrize("words", [("digits",), ("--resume",), ()])
def test_minutes_are_for_a_choice(words: tuple[str, ...], cli: Cli) -> None:
    status, _, err = cli("train", *words, "--minutes", 5)
    assert (status, len(err)) == (2, 1)
    assert "--minutes" in err[0]


# Class weights.


def test_balanced_weights_make_every_class_count_the_same(
    tree: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loss of every step, of which each is of all images here, by the weights before it."""
    without_report(monkeypatch)
    uneven = Path(shutil.copytree(tree, tmp_path / "uneven"))
    for file in sorted((uneven / "class-1").iterdir())[4:]:
        file.unlink()
    fields = {**tiny, "steps": 3, "batch_size": 20, "channels": 3, "size": 32, "crop": 32,
              "model": "cuda-convnet-18", "shift": 0, "dropout": 0, "doctor": "off", "log_every": 1,
              "save_every": 1, "keep": 9}  # fmt: skip
    for kind in ("none", "balanced"):
        run = tmp_path / kind
        alexnet.train("digits", data=uneven, run=run, class_weights=kind, **fields)
        train = open_dataset(alexnet.load(run).recipe, uneven).train
        counts = np.bincount(train.labels)
        assert counts.tolist() == [9, 2, 9]
        weights = np.ones(3) if kind == "none" else 20 / (3 * counts)
        images, share = list(train.read(np.arange(20))), weights[train.labels]
        losses = [e["loss"] for e in read_events(run) if e["event"] == "train"]
        for step, loss in enumerate(losses):
            right = alexnet.load(run, f"step-{step}").predict(images)[np.arange(20), train.labels]
            each = -np.log(right)
            assert loss == pytest.approx((each * share).sum() / share.sum(), rel=1e-4)
        assert bool(losses[-1] == pytest.approx(each.mean(), rel=1e-3)) == (kind == "none")
