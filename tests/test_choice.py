"""A training without a recipe: what is chosen for which data, and that it can be edited.

Speeds are given, never measured, but for one run from end to end."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import alexnet
import alexnet.training.train as engine
from alexnet import cli
from alexnet.commands import look_at, time_decoding
from alexnet.data.sources import open_source
from alexnet.errors import DataError, UsageError
from alexnet.models.zoo import build_model
from alexnet.recipe import Recipe
from alexnet.recipebook import RECIPES, find_recipe
from alexnet.recipebook.candidates import Look
from alexnet.recipebook.choice import Choice, choose
from alexnet.recipebook.written import read_recipe_file, write_recipe
from alexnet.training.pace import measure_pace
from alexnet.training.train import class_weights
from conftest import without_report

QUICK = ("--epochs", 1, "--precision", "fp32", "-j", 0, "--no-doctor")


def seen(counts: tuple[int, ...] = (400, 400), side: int = 300, **more: Any) -> Look:
    names = tuple(f"class-{i}" for i in range(len(counts)))
    return Look("photos", "folder", names, counts, (side, side, side), more.pop("channels", 3),
                **more)  # fmt: skip


def chosen(look: Look, rate: float = 100.0, **more: Any) -> Recipe:
    """What is chosen where 64 pixels train at `rate` images/s, and others by their pixels."""
    return choice(look, rate, **more).recipe


def choice(look: Look, rate: float = 100.0, **more: Any) -> Choice:
    return choose(look, lambda recipe: rate * (64 / recipe.crop) ** 2, **more)


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
    look = seen((4000,) * 10)
    for minutes in (2.0, 5.0, 20.0):
        recipe = chosen(look, 100, minutes=minutes)
        n = 40_000 * (1 - recipe.test_fraction) * (1 - recipe.val_fraction)
        rate = 100 * (64 / recipe.crop) ** 2
        assert recipe.epochs * n / rate <= 60 * minutes
    said = choice(look, 100, minutes=2).reasons[3]
    assert "--minutes" in said, "a budget that holds too little says how much would do"


def test_slower_machines_are_not_timed_beyond_reason() -> None:
    asked: list[int] = []

    def pace(recipe: Recipe) -> float:
        asked.append(recipe.crop)
        return 0.5

    choose(seen(), pace)
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
    assert "--class-weights balanced" in choice(seen((900, 100))).reasons[4]
    assert "--class-weights" not in choice(seen((900, 500))).reasons[4]
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
        look = Look(kind, kind, ("a", "b"), (25_000, 25_000), (side,) * 3, 3, held=("test",))
        found = chosen(look, 1e4)
        assert found == RECIPES[name]().replace(eval_every=found.eval_every)
    assert chosen(look, 10, minutes=10).epochs < RECIPES["cifar10"]().epochs


def test_packed_sets_are_taken_at_their_size() -> None:
    for side, crop in ((256, 224), (144, 124), (110, 96), (72, 63), (32, 32)):
        for channels in (1, 3):
            look = Look("p", "packed", ("a", "b"), (500, 500), (side,) * 3, channels)
            found = chosen(look, 1)
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
        with pytest.raises(UsageError, match="--minutes"):
            choice(seen(), minutes=minutes)


# The look at real files.


def test_a_look_at_mixed_photos(tmp_path: Path) -> None:
    for i, (mode, size) in enumerate((("L", (50, 70)), ("RGB", (200, 90)), ("RGB", (60, 60)))):
        for label in ("ä b", "c"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new(mode, size).save(tmp_path / label / f"{i}.png")
    look = look_at(open_source(tmp_path))
    assert (look.classes, look.counts, look.sides) == (("c", "ä b"), (3, 3), (50, 60, 90))
    assert (look.channels, look.mixed, look.held) == (3, True, ())
    assert "grey and colour" in choice(look).reasons[0]
    (tmp_path / "c" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png: not an image"):
        look_at(open_source(tmp_path))


def test_a_look_at_idx_files(idx_folder: Path) -> None:
    look = look_at(open_source(idx_folder))
    assert (look.images, look.channels, look.held) == (600, 1, ("test",))
    recipe = chosen(look)
    assert (recipe.name, recipe.model, recipe.flip) == ("images-28", "fast-32", False)
    many = replace(look, counts=(6000,) * 10)
    assert chosen(many).name == "mnist"
    assert chosen(replace(many, classes=(*look.classes[:9], "Sneaker"))).name == "fashion-mnist"


def test_pace_is_of_real_steps_and_changes_nothing() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    recipe = RECIPES["digits"]().replace(batch_size=4)
    assert measure_pace(recipe, 3) > 0
    assert torch.rand(1) == expected


def test_slow_moments_are_no_pace() -> None:
    recipe, each = RECIPES["digits"](), iter([9.0, 0.5, 4.0, 0.6, 7.0, 8.0, 9.0])
    assert measure_pace(recipe, 3, lambda *_: lambda: next(each)) == 32 / 0.5
    assert measure_pace(recipe, 3, lambda *_: lambda: 60.0) == 32 / 60, "not for ever"


def test_slow_moments_are_no_reading_time(tree: Path) -> None:
    """Of two images each one's best of three rounds counts; one round where reading takes long."""
    files = sorted(tree.glob("*/*.png"))[:2]
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
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_report(monkeypatch)
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--data", tree, "--minutes", 1, "--run", "a", *QUICK, "--json"]
    assert cli.main([*map(str, argv)]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [line.partition(":")[0] for line in result["choice"]] == [
        "data", "network", "augmentation", "length", "splits",
    ]  # fmt: skip
    assert all(line in err.splitlines() for line in result["choice"])

    file = tmp_path / "mine.toml"
    text = Path(result["recipe_file"]).read_text()
    file.write_text(text.replace("\nseed = 0", "\nseed = 5"))
    assert cli.main(["train", str(file), "--run", "b", "--no-doctor", "--json"]) == 0
    again = json.loads(Path("b/recipe.json").read_text())["recipe"]
    first = json.loads(Path("a/recipe.json").read_text())["recipe"]
    assert again == {**first, "seed": 5, "data": str(tree)}
    capsys.readouterr()

    tuned = ["train", "--data", tree, "--init", "a", "--run", "c", *QUICK]
    assert cli.main([*map(str, tuned)]) == 0
    err = capsys.readouterr().err
    assert "as the given weights have it" in err
    assert "tensors taken" in err


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
    file.write_bytes(write_recipe(Recipe(about=whole, data=whole)).encode())
    assert read_recipe_file(file).about == whole


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"lr = ", "no TOML"),
        (b"\xff\xfe", "no TOML"),
        (b"lr = 'high'", "lr is 'high'"),
        (b"epoch = 1", "did you mean 'epochs'"),
        (b"a = " + b"[" * 3000, "no TOML"),
        (b"#" * (2 << 20), "bytes"),
        (None, "no such file"),
    ],
)
def test_bad_recipe_files_are_one_line(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["train", str(file)]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert str(file) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("digits",), ("--resume",), ()])
def test_minutes_are_for_a_choice(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *words, "--minutes", "5"]) == 2
    assert "--minutes" in capsys.readouterr().err


# Class weights.


def test_balanced_weights_make_every_class_count_the_same() -> None:
    counts = np.array([90, 10, 50])
    assert class_weights(Recipe(), counts, torch.device("cpu")) is None
    weights = class_weights(Recipe(class_weights="balanced"), counts, torch.device("cpu"))
    assert weights is not None
    torch.testing.assert_close(weights * torch.tensor(counts), torch.full((3,), 50.0))


def test_class_weights_reach_the_loss(
    tree: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of a run is given them, and with them counts a class by its weight alone."""
    without_report(monkeypatch)
    losses, real = [], engine.train_step

    def spy(*args: Any) -> torch.Tensor:
        net, _, batch, _, recipe, preprocess, _, weight, *_ = args
        x = engine.augment(batch.images, batch.ids, batch.epoch, recipe, preprocess)
        with torch.no_grad():
            each = F.cross_entropy(copy.deepcopy(net)(x), batch.labels, reduction="none")
        share = torch.ones(len(each)) if weight is None else weight[batch.labels]
        losses.append((real(*args).item(), (each * share).sum().item() / share.sum().item()))
        assert (weight is None) == (recipe.class_weights == "none")
        return torch.tensor(losses[-1][0])

    monkeypatch.setattr(engine, "train_step", spy)
    uneven = shutil.copytree(tree, tmp_path / "uneven")
    for file in sorted((uneven / "class-1").iterdir())[4:]:
        file.unlink()
    fields = {**tiny, "steps": 3, "batch_size": 8, "channels": 3, "dropout": 0, "doctor": "off"}
    for kind in ("none", "balanced"):
        alexnet.train("digits", data=uneven, run=tmp_path / kind, class_weights=kind, **fields)
    assert len(losses) == 6
    assert losses[0] != pytest.approx(losses[3], rel=1e-3), "the same batch counts otherwise"
    for loss, expected in losses:
        assert loss == pytest.approx(expected, rel=1e-4)
