"""Copies of a picture whose bytes differ: what is found, and that no cut separates them."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import alexnet
from alexnet.data import reopen_dataset
from alexnet.recipe import find_recipe
from alexnet.records import DataCard
from conftest import without_pictures
from shell import QUICK, Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli

SIZE = (150, 120)


def photo(seed: int) -> Image.Image:
    """Something like a photo: smooth light, a few things with edges, and grain."""
    random = np.random.default_rng(seed)
    light = random.integers(0, 256, (6, 7, 3), np.uint8)
    image = Image.fromarray(light).resize(SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        corners = random.integers(0, 150, (4, 2))
        draw.polygon(
            [tuple(c) for c in corners.tolist()], tuple(random.integers(0, 256, 3).tolist())
        )
    grain = random.normal(0, 4, (SIZE[1], SIZE[0], 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def half(image: Image.Image) -> Image.Image:
    return image.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    return image.point([min(255, round(1.1 * v + 8)) for v in range(256)] * 3)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((3, 2, SIZE[0] - 3, SIZE[1] - 2))


# How a copy is made: what becomes of the pixels, the ending of its name, how it is saved.
WAYS: dict[str, tuple[Callable[[Image.Image], Image.Image], str, dict[str, Any]]] = {
    "saved anew": (lambda i: i, "jpg", {"quality": 35}),
    "another format": (lambda i: i, "webp", {"quality": 80}),
    "without loss": (lambda i: i, "png", {}),
    "smaller": (half, "jpg", {"quality": 80}),
    "mirrored": (lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "jpg", {"quality": 80}),
    "turned": (lambda i: i.transpose(Image.Transpose.ROTATE_90), "jpg", {"quality": 80}),
    "grey": (lambda i: i.convert("L"), "jpg", {"quality": 80}),
    "brighter": (brighter, "jpg", {"quality": 80}),
    "cut": (cropped, "jpg", {"quality": 80}),
}


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def save_copy(image: Image.Image, folder: Path, name: str, way: str) -> Path:
    change, ending, options = WAYS[way]
    save(change(image), path := folder / f"{name}.{ending}", **options)
    return path


def checked(cli: Cli, path: Path) -> tuple[int, dict[str, Any]]:
    status, out, _ = cli("data", "check", path, "--json")
    report = one_object(out)
    return status, {
        key: [[str(Path(p).relative_to(path)) for p in group] for group in report[key]]
        for key in ("near_copies", "near_across", "near_two_classes", "duplicates", "across")
    }


# what is found


def test_check_lists_copies(cli: Cli, tmp_path: Path) -> None:
    """Each of another photo, made in another way."""
    expected = []
    for i, way in enumerate(WAYS):
        save(photo(i), tmp_path / f"set/cat/{i}.jpg", quality=92)
        copy = save_copy(photo(i), tmp_path / "set/cat", f"copy-{i}", way)
        expected.append([f"cat/{i}.jpg", f"cat/{copy.name}"])
    for i in range(len(WAYS), len(WAYS) + 4):
        save(photo(i), tmp_path / f"set/cat/{i}.jpg", quality=92)
    status, found = checked(cli, tmp_path / "set")
    assert status == 0
    assert sorted(map(sorted, found["near_copies"])) == expected
    assert not found["duplicates"]
    assert not found["near_two_classes"]


def test_check_says_where_copies_lie(cli: Cli, tmp_path: Path) -> None:
    for i, place in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        save(photo(i), tmp_path / f"set/{place}/{i}.png")
    save_copy(photo(0), tmp_path / "set/val/cat", "copy", "mirrored")
    save_copy(photo(1), tmp_path / "set/train/cat", "copy", "smaller")
    shutil.copy(tmp_path / "set/val/dog/3.png", tmp_path / "set/val/dog/again.png")
    status, found = checked(cli, tmp_path / "set")
    assert status == 0
    assert found == {
        "near_copies": [["train/cat/copy.jpg", "train/dog/1.png"]],
        "near_across": [["train/cat/0.png", "val/cat/copy.jpg"]],
        "near_two_classes": [["train/cat/copy.jpg", "train/dog/1.png"]],
        "duplicates": [["val/dog/3.png", "val/dog/again.png"]],
        "across": [],
    }
    _, out, _ = cli("data", "check", tmp_path / "set")
    assert "2 pictures are there more than once, in 4 files" in out
    assert "copies of a picture in two splits: " in out


def flat(i: int) -> Image.Image:
    return Image.new(
        "RGB", (100, 100), tuple(np.random.default_rng(i).integers(0, 256, 3).tolist())
    )


def almost_flat(i: int) -> Image.Image:
    noise = np.random.default_rng(i).normal(120, 3, (100, 100, 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def gradient(i: int) -> Image.Image:
    random = np.random.default_rng(i)
    low, high = sorted(random.uniform(0, 255, 2))
    line = np.linspace(low, high, 100) + random.normal(0, 1, (100, 100))
    return Image.fromarray(line.clip(0, 255).astype(np.uint8))


def digit(i: int) -> Image.Image:
    """As of a seven-segment display, its place and stroke a little different each time."""
    random = np.random.default_rng(i)
    image = Image.new("L", (96, 96), 0)
    draw = ImageDraw.Draw(image)
    x, y, wide, high, stroke = (random.integers(a, b) for a, b in
                                ((20, 36), (12, 22), (26, 36), (26, 34), (4, 9)))  # fmt: skip
    lines = ((0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 1, 1), (0, 1, 1, 1), (0, 1, 0, 2), (1, 1, 1, 2),
             (0, 2, 1, 2))  # fmt: skip
    drawn = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111",
             "1010010", "1111111", "1111011")[i % 10]  # fmt: skip
    for (a, b, c, d), on in zip(lines, drawn, strict=True):
        if on == "1":
            ends = (x + a * wide, y + b * high, x + c * wide, y + d * high)
            draw.line([float(e) for e in ends], 255, int(stroke))
    return image


def icon(i: int) -> Image.Image:
    """One disc in the middle; nothing but the colours differs."""
    colours = np.random.default_rng(i).integers(0, 256, (2, 3)).tolist()
    image = Image.new("RGB", (96, 96), tuple(colours[0]))
    ImageDraw.Draw(image).ellipse((24, 24, 72, 72), tuple(colours[1]))
    return image


def page(i: int) -> Image.Image:
    """Lines of words, as a page of text has them."""
    random = np.random.default_rng(i)
    image = Image.new("L", (240, 320), 255)
    draw = ImageDraw.Draw(image)
    for top in range(16, 300, 12):
        left = 16
        while left < 210:
            width = int(random.integers(6, 34))
            draw.rectangle(
                (left, top, min(left + width, 224), top + 5), int(random.integers(0, 90))
            )
            left += width + 5
    return image


def burst(i: int) -> Image.Image:
    """One scene; what moves in it is elsewhere in every picture."""
    image = photo(1)
    x, y = np.random.default_rng(i).integers(5, 85, 2).tolist()
    image.paste(photo(2).resize((42, 42)), (x, y))
    return image


@pytest.mark.parametrize("kind", [flat, almost_flat, gradient, digit, icon, page, burst])
def test_what_looks_alike_is_no_copy(
    cli: Cli, tmp_path: Path, kind: Callable[[int], Image.Image]
) -> None:
    for i in range(40):
        save(kind(i), tmp_path / f"set/a/{i}.png")
    _, found = checked(cli, tmp_path / "set")
    assert found["near_copies"] == []


def test_of_what_is_flat_the_same_bytes_are_copies(cli: Cli, tmp_path: Path) -> None:
    save(flat(1), tmp_path / "set/a/1.png")
    save(flat(1), tmp_path / "set/a/2.png")
    save(flat(1), tmp_path / "set/a/3.bmp")
    _, found = checked(cli, tmp_path / "set")
    assert found["duplicates"] == [["a/1.png", "a/2.png"]]
    assert found["near_copies"] == []


# how a folder is cut


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


FIELDS: dict[str, Any] = {
    "steps": 1, "batch_size": 8, "channels": 3, "doctor": "off", "precision": "fp32", "workers": 2,
    "size": 32, "crop": 28, "shift": 0, "rotate": 0.0, "scale": 0.0,
}  # fmt: skip
FIELDS_OF_A_RECIPE = {key: value for key, value in FIELDS.items() if key != "doctor"}
FLAGS = ["--no-doctor", *QUICK, "--channels", "3", "--size", "32", "--crop", "28"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[set[str]]]:
    """A folder of two classes with copies, and which files those are. Read only."""
    folder = tmp_path_factory.mktemp("copies") / "photos"
    groups = []
    ways = iter([*WAYS][:8] * 2)
    for at, label in enumerate(("cat", "dog")):
        for i in range(14):
            save(photo(100 * at + i), folder / label / f"{i:02}.jpg", quality=92)
        for i in range(5):
            group = {f"{label}/{i:02}.jpg"}
            for twice in range(1 + (i == 0)):
                copy = save_copy(photo(100 * at + i), folder / label, f"z{i}{twice}", next(ways))
                group.add(f"{label}/{copy.name}")
            groups.append(group)
    shutil.copy(folder / "dog/13.jpg", folder / "dog/same.jpg")
    groups.append({"dog/13.jpg", "dog/same.jpg"})
    shutil.copy(folder / "cat/13.jpg", folder / "dog/other.jpg")
    groups.append({"cat/13.jpg", "dog/other.jpg"})
    return folder, groups


def splits_of(run: Path) -> dict[str, list[str]]:
    """The files of each split, as `inspect RUN features` lists them."""
    found = {}
    for split in ("train", "val", "test"):
        out = run.parent / f"{run.name}-{split}.npy"
        alexnet.inspect(run, "features", split=split, out=out)
        with out.with_suffix(".csv").open() as file:
            found[split] = [row["image"] for row in csv.DictReader(file)]
    return found


@pytest.mark.parametrize("seed", range(2))
def test_a_cut_separates_no_copies(
    photos: tuple[Path, list[set[str]]], tmp_path: Path, seed: int
) -> None:
    folder, groups = photos
    run = tmp_path / "run"
    alexnet.train("digits", data=folder, run=run, split_seed=seed, **FIELDS)
    splits = splits_of(run)
    named = sorted(name for names in splits.values() for name in names)
    assert named == sorted(str(f.relative_to(folder)) for f in folder.rglob("*.*"))
    for group in groups:
        holding = [split for split, names in splits.items() if group & set(names)]
        assert len(holding) == 1, group
    assert set(splits["train"]) >= groups[-1]  # of two classes
    for names in splits.values():
        assert {name.split("/")[0] for name in names} == {"cat", "dog"}
    of = {split: len(names) for split, names in splits.items()}
    assert (of["test"], of["val"]) == (8, 4)
    recorded = json.loads((run / "recipe.json").read_text())["data"]["groups"]
    assert sorted(map(sorted, recorded)) == sorted(map(sorted, groups))


def test_train_says_how_many_it_kept_together(
    cli: Cli, photos: tuple[Path, list[set[str]]], tmp_path: Path
) -> None:
    folder, groups = photos
    status, _, lines = cli("train", "digits", "--data", folder, "--run", tmp_path / "run", *FLAGS)
    assert status == 0
    count = sum(map(len, groups))
    [line] = [line for line in lines if "copies of others" in line]
    assert f"{count} photos are copies of others" in line
    assert f"{len(groups)} groups kept in one split each; `alexnet data check` lists them" in line


def test_the_record_of_a_run_is_what_it_is_cut_by(
    cli: Cli, photos: tuple[Path, list[set[str]]], tmp_path: Path
) -> None:
    """Continued, tested where it was moved to, and by the record of 0.1.0, which has no groups."""
    folder = shutil.copytree(photos[0], tmp_path / "photos")
    run = tmp_path / "run"
    alexnet.train("digits", data=folder, run=run, **FIELDS)
    before, splits = alexnet.test(run), splits_of(run)
    status, _, lines = cli("train", "--resume", "--run", run)
    assert status == 0
    assert not [line for line in lines if "copies" in line]
    moved = folder.rename(tmp_path / "elsewhere")
    after = alexnet.test(run, data=moved)
    assert (before.n, before.loss) == (after.n, after.loss)
    moved.rename(folder)
    saved = json.loads((run / "recipe.json").read_text())
    del saved["data"]["groups"]
    (run / "recipe.json").write_text(json.dumps(saved))
    (run / "image-digests.safetensors").unlink()
    assert splits_of(run)["test"] != splits["test"]
    # The same names, and other pictures everywhere: nothing is kept together.
    for i, file in enumerate(sorted(folder.rglob("*.*"))):
        save(photo(1000 + i), file)
    other = tmp_path / "other"
    alexnet.train("digits", data=folder, run=other, **FIELDS)
    assert splits_of(run) == splits_of(other)
    assert json.loads((other / "recipe.json").read_text())["data"]["groups"] == []


def test_groups_that_no_run_writes_are_refused(
    cli: Cli, photos: tuple[Path, list[set[str]]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    alexnet.train("digits", data=photos[0], run=run, **FIELDS)
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"]["groups"] = [["cat/01.jpg", {}]]
    (run / "recipe.json").write_text(json.dumps(saved))
    status, _, lines = cli("test", run)
    assert status != 0
    assert "data.groups[0][1] is {}, expected text or a whole number" in lines[-1]


def test_parts_that_share_pictures_are_told_of_and_left(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for at, part in enumerate(("train", "val", "test")):
        for i in range(8):
            save(photo(100 * at + i), folder / part / ("cat", "dog")[i % 2] / f"{i}.jpg")
    save_copy(photo(0), folder / "test/cat", "copy", "mirrored")
    save_copy(photo(1), folder / "test/dog", "copy", "smaller")
    save_copy(photo(1), folder / "val/dog", "copy", "grey")
    run = tmp_path / "run"
    status, _, lines = cli("train", "digits", "--data", folder, "--run", run, *FLAGS)
    assert status == 0
    told = [line for line in lines if "copies of training images" in line]
    assert [line.split(" look ")[0].split("warning: ")[1] for line in told] == [
        "2 images of test", "1 images of val",
    ]  # fmt: skip
    assert {split: len(names) for split, names in splits_of(run).items()} == {
        "train": 8, "val": 9, "test": 10,
    }  # fmt: skip


def test_a_class_of_one_scene_is_cut_and_said(cli: Cli, tmp_path: Path) -> None:
    """Frames of a film that hardly differ: no class goes to one split as a whole."""
    random = np.random.default_rng(0)
    for i in range(14):
        frame = np.asarray(photo(1)) + random.normal(0, 3, (SIZE[1], SIZE[0], 3))
        save(Image.fromarray(frame.clip(0, 255).astype(np.uint8)), tmp_path / f"set/film/{i}.png")
        save(photo(50 + i), tmp_path / f"set/other/{i}.png")
    run = tmp_path / "run"
    status, _, lines = cli("train", "digits", "--data", tmp_path / "set", "--run", run, *FLAGS)
    assert status == 0
    assert [line for line in lines if "most images of film are so alike" in line]
    assert {name[:4] for name in splits_of(run)["test"]} == {"film", "othe"}


def test_a_packed_set_is_cut_so_too(photos: tuple[Path, list[set[str]]], tmp_path: Path) -> None:
    folder, groups = photos
    alexnet.data_pack(folder, out=tmp_path / "packed", size=64)
    run = tmp_path / "run"
    alexnet.train("digits", data=tmp_path / "packed", run=run, **{**FIELDS, "size": 64, "crop": 60})
    splits = splits_of(run)
    together = [g for g in groups if sum(bool(g & set(n)) for n in splits.values()) == 1]
    assert len(together) >= len(groups) - 1  # what is cut off at the edges may make two of one


def test_digests_alone_find_copies_of_what_was_learnt_from(cli: Cli, tmp_path: Path) -> None:
    """Mirrored and turned; and of other photos, and of one with nothing in it, none."""
    for i in range(30):
        save(photo(i), tmp_path / f"photos/{'ab'[i % 2]}/{i:02}.png")
    run = tmp_path / "run"
    alexnet.train("digits", data=tmp_path / "photos", run=run, **FIELDS)
    held = sum(json.loads((run / "recipe.json").read_text())["data"]["counts"].values())
    turns = {"mirrored": Image.Transpose.FLIP_LEFT_RIGHT, "turned": Image.Transpose.ROTATE_90}
    for name, turn in turns.items():
        for i in range(30):
            save(photo(i).transpose(turn), tmp_path / f"{name}/{'ab'[i % 2]}/{i}.png")
    for i in range(30, 50):
        save(photo(i), tmp_path / f"others/{'ab'[i % 2]}/{i}.png")
    save(flat(1), tmp_path / "others/a/flat.png")
    for data, near in (("mirrored", held), ("turned", held), ("others", 0)):
        status, out, _ = cli("test", run, "--data", tmp_path / data, "--json")
        assert status == 0
        assert (one_object(out)["seen"], one_object(out)["near_seen"]) == (0, near), data


SIZES = (3, 5, 9, 14, 27)  # images of classes


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> DataCard:
    """What a run on classes of SIZES says of its data."""
    place = tmp_path_factory.mktemp("sizes")
    for size in SIZES:
        for i in range(size):
            save(Image.new("L", (8, 8), 40 * SIZES.index(size) + i), place / f"data/{size}/{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        alexnet.train("digits", data=place / "data", run=place / "run", **FIELDS)
    found: dict[str, Any] = json.loads((place / "run/recipe.json").read_text())["data"]
    return replace(DataCard.from_json(found, "recipe.json"), run=str(place / "run"))


@given(
    marks=st.lists(st.integers(-1, 9), min_size=sum(SIZES), max_size=sum(SIZES)),
    test=st.floats(0.05, 0.4),
    val=st.floats(0.05, 0.4),
    seed=st.integers(0, 99),
)
def test_whole_groups_are_taken(
    described: DataCard, marks: list[int], test: float, val: float, seed: int
) -> None:
    """Equal marks of a class are a group where they are 0 to 4, other images stand alone; those
    marked -1 are one group of all classes, for train alone."""
    names = [f"{size}/{i}.png" for size in SIZES for i in range(size)]
    by_mark: dict[tuple[str, int], list[str]] = {}
    for name, mark in zip(names, marks, strict=True):
        if mark < 5:
            by_mark.setdefault((name.split("/")[0] if mark >= 0 else "", mark), []).append(name)
    groups = [group for group in by_mark.values() if len(group) > 1]
    recipe = find_recipe("digits").replace(
        **{**FIELDS_OF_A_RECIPE, "split_seed": seed, "test_fraction": test, "val_fraction": val}
    )
    dataset = reopen_dataset(recipe, replace(described, groups=groups))
    where = {name: split for split in ("train", "val", "test") for name in dataset.names(split)}
    assert where.keys() == set(names)
    for group in groups:
        splits = {where[name] for name in group}
        assert len(splits) == 1, group
        if len({name.split("/")[0] for name in group}) > 1:
            assert splits == {"train"}
    group_of = {name: at for at, group in enumerate(groups) for name in group}
    for size in SIZES:
        own = [f"{size}/{i}.png" for i in range(size)]
        units = {split: set[object]() for split in ("train", "val", "test")}
        for name in own:
            units[where[name]].add(group_of.get(name, name))
        n = {split: sum(where[name] == split for name in own) for split in units}
        asked = min(max(round(test * size), 1), size - 1)
        assert n["train"], "each has images to learn from"
        if group_of.keys().isdisjoint(own):
            rest = size - asked
            assert (n["test"], n["val"]) == (asked, min(max(round(val * rest), 1), rest - 1))
        elif sum(map(len, units.values())) >= 3:
            assert min(n.values()) >= 1, "and others to be tested on"
        if len(units["test"]) > 1:
            assert n["test"] <= asked
