"""Images that are not the run's own: read whole, joined by name, and those it has seen left out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.errors import DataError, UsageError
from conftest import patterns, without_pictures, write_idx, write_tree
from shell import Cli, clean_folder, cli, one_object

__all__ = ["clean_folder", "cli"]
FIELDS: dict[str, Any] = {
    "steps": 3, "batch_size": 8, "size": 32, "crop": 32, "channels": 3, "precision": "fp32",
    "doctor": "off", "workers": 1, "shift": 1, "rotate": 0.0, "scale": 0.0,
}  # fmt: skip


@pytest.fixture
def drawn() -> None:
    """A test that asks for this has its pictures drawn, which takes longer than all else."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        without_pictures(monkeypatch)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ (three classes of 20), run/ trained on it, and new/ (ten of each class)."""
    home = tmp_path_factory.mktemp("home")
    write_tree(home / "photos", each=20)
    write_tree(home / "new", each=10, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        alexnet.train("digits", data=home / "photos", run=home / "run", **FIELDS)
    return home


@pytest.fixture
def new(home: Path, tmp_path: Path) -> Path:
    """A copy of new/ to change."""
    return Path(shutil.copytree(home / "new", tmp_path / "new"))


def measure(cli: Cli, home: Path, *words: object) -> dict[str, Any]:
    status, out, _ = cli("test", home / "run", "--json", *words)
    assert status == 0
    return one_object(out)


def counts(result: dict[str, Any]) -> dict[str, int]:
    return {row["class"]: row["n"] for row in result["per_class"]}


# Never cut


def test_class_folders_are_read_whole(cli: Cli, home: Path) -> None:
    result = measure(cli, home, "--data", home / "new")
    assert (result["n"], result["split"], result["own"], result["seen"]) == (30, "all", False, 0)
    assert set(counts(result).values()) == {10}


def test_the_line_says_which_images_they_are(cli: Cli, home: Path) -> None:
    status, out, said = cli("test", home / "run", "--data", home / "new")
    assert status == 0
    assert f"all of {home / 'new'}: 30 images" in out
    assert any("30 images, all of its class folders" in line for line in said)


@pytest.fixture
def parts(home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    for seed, (part, each) in enumerate((("train", 4), ("val", 3), ("test", 2)), 2):
        write_tree(folder / part, each=each, seed=seed)
    return folder


@pytest.mark.parametrize(
    ("gone", "asked", "taken", "n"),
    [
        ((), None, "test", 6),
        (("test",), None, "val", 9),
        (("test", "val"), None, "all", 12),
        (("train",), None, "test", 6),
        ((), "val", "val", 9),
        ((), "train", "train", 12),
        ((), "all", "all", 27),
    ],
)
def test_a_part_is_read_whole(
    cli: Cli, home: Path, parts: Path, gone: tuple[str, ...], asked: str | None, taken: str, n: int
) -> None:
    for part in gone:
        shutil.rmtree(parts / part)
    words = ["--split", asked] if asked else []
    result = measure(cli, home, "--data", parts, *words)
    assert (result["split"], result["n"]) == (taken, n)


def test_a_part_that_is_not_there_is_refused(cli: Cli, home: Path, parts: Path) -> None:
    shutil.rmtree(parts / "val")
    status, _, said = cli("test", home / "run", "--data", parts, "--split", "val")
    assert (status, len(said)) == (2, 1)
    assert "has train, test" in said[0]
    status, _, said = cli("test", home / "run", "--data", home / "new", "--split", "val")
    assert (status, len(said)) == (2, 1)
    assert "leave --split out" in said[0]
    status, _, said = cli("test", home / "run", "--split", "all")
    assert (status, len(said)) == (2, 1)


# Joined by name


def test_fewer_classes_another_order_one_photo(cli: Cli, home: Path, new: Path) -> None:
    whole = measure(cli, home, "--data", new)
    shutil.rmtree(new / "class-0")
    result = measure(cli, home, "--data", new)
    assert counts(result) == {"class-0": 0, "class-1": 10, "class-2": 10}
    assert result["absent"] == ["class-0"]
    right = {row["class"]: row["right"] for row in whole["per_class"]}
    assert all(row["right"] == right[row["class"]] for row in result["per_class"] if row["n"])
    for file in [*(new / "class-1").iterdir()][1:]:
        file.unlink()
    shutil.rmtree(new / "class-2")
    (new / "class-2").mkdir()  # an empty folder is a class without images
    _, _, said = cli("test", home / "run", "--data", new)
    assert any("2 of 3 classes have no image here: class-0, class-2" in line for line in said)
    assert measure(cli, home, "--data", new)["n"] == 1


def test_an_unknown_class_is_refused_by_name_or_left_out(cli: Cli, home: Path, new: Path) -> None:
    shutil.copytree(new / "class-0", new / "tiger")
    status, _, said = cli("test", home / "run", "--data", new)
    assert (status, len(said)) == (2, 1)
    assert "'tiger'" in said[0]
    assert "--ignore-unknown" in said[0]
    result = measure(cli, home, "--data", new, "--ignore-unknown")
    assert (result["n"], result["ignored"]) == (30, {"tiger": 10})
    for name in ("class-0", "class-1", "class-2"):
        shutil.rmtree(new / name)
    status, _, said = cli("test", home / "run", "--data", new, "--ignore-unknown")
    assert (status, len(said)) == (2, 1)
    assert "tiger" in said[0]


def test_images_without_class_folders_are_refused(cli: Cli, home: Path, new: Path) -> None:
    status, _, said = cli("test", home / "run", "--data", new / "class-0")
    assert (status, len(said)) == (2, 1)
    assert "class folders" in said[0]


def test_numbered_classes_are_in_the_order_of_the_weights(tmp_path: Path) -> None:
    """Folders 0, 1, 10, 2, ... of a network that tells eleven classes apart."""
    images, labels = patterns(33, 11, 32)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / f"photos/c{label:02}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"numbers/{label}").mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.stack([image] * 3, 2))
        picture.save(tmp_path / f"photos/c{label:02}/{i}.png")
        picture.save(tmp_path / f"numbers/{label}/{i}.png")
    run = tmp_path / "run"
    alexnet.train("digits", data=tmp_path / "photos", run=run, **{**FIELDS, "channels": 1})
    file = tmp_path / "weights.safetensors"
    alexnet.export(run, format="safetensors", out=file)
    file.with_name("weights.safetensors.certificate.json").unlink()
    found = alexnet.import_weights(
        file, model="alexnet-28", run=tmp_path / "in", data=tmp_path / "numbers",
        normalize="torchvision", size=32, crop=32,
    )  # fmt: skip
    assert found.n == 33
    assert alexnet.load(tmp_path / "in").classes == tuple(map(str, range(11)))
    again = alexnet.test(tmp_path / "in", data=tmp_path / "numbers")
    assert again.n == 33
    assert [row.n for row in again.per_class] == [3] * 11
    shutil.move(tmp_path / "numbers/3", tmp_path / "numbers/03")
    assert alexnet.test(tmp_path / "in", data=tmp_path / "numbers").loss == again.loss


def test_a_packed_set_and_arrays_are_read_whole(cli: Cli, home: Path, tmp_path: Path) -> None:
    alexnet.data_pack(home / "new", out=tmp_path / "packed", size=32)
    folder, packed = measure(cli, home, "--data", home / "new"), tmp_path / "packed"
    result = measure(cli, home, "--data", packed)
    assert (result["n"], result["loss"]) == (30, folder["loss"])
    alexnet.train(
        "digits", data=write_digits(tmp_path / "idx"), run=tmp_path / "run", steps=1,
        batch_size=8, doctor="off", precision="fp32",
    )  # fmt: skip
    other = write_digits(tmp_path / "other", seed=5)
    for split, n in ((None, 20), ("train", 40), ("all", 60)):
        assert alexnet.test(tmp_path / "run", data=other, split=split).n == n


def write_digits(folder: Path, seed: int = 3) -> Path:
    write_idx(folder, "train", *patterns(40, seed=seed))
    write_idx(folder, "t10k", *patterns(20, seed=seed + 1))
    return folder


# What the run was trained on


def test_a_copy_of_the_training_data_does_not_leak(cli: Cli, home: Path, tmp_path: Path) -> None:
    own = measure(cli, home)
    copy = Path(shutil.copytree(home / "photos", tmp_path / "copy"))
    assert measure(cli, home, "--data", copy)["loss"] == own["loss"]  # moved: its own test split
    min((copy / "class-1").iterdir()).unlink()
    result = measure(cli, home, "--data", copy)
    trained = json.loads((home / "run/recipe.json").read_text())["data"]["counts"]
    assert result["n"] + result["seen"] == 59
    assert sum(trained.values()) - 1 <= result["seen"] <= sum(trained.values())
    assert result["n"] in (own["n"], own["n"] - 1)
    kept = measure(cli, home, "--data", copy, "--with-seen")
    assert (kept["n"], kept["seen"], kept["with_seen"]) == (59, result["seen"], True)
    _, out, said = cli("test", home / "run", "--data", copy, "--with-seen")
    assert f"with {result['seen']} that it was trained or validated on" in out
    _, _, said = cli("test", home / "run", "--data", copy)
    assert any(f"on {result['seen']} of 59 images: left out" in line for line in said)


def test_a_copy_is_known_by_its_picture(cli: Cli, home: Path, tmp_path: Path) -> None:
    """Renamed, saved in another format, packed, in one part of several."""
    copy = tmp_path / "copy"
    for i, file in enumerate(sorted((home / "photos").rglob("*.png"))):
        place = copy / "val" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.save(place / f"renamed-{i}.bmp")
    seen = measure(cli, home, "--data", copy)["seen"]
    assert seen == 60 - measure(cli, home)["n"]
    alexnet.data_pack(copy / "val", out=tmp_path / "packed", size=32)
    assert measure(cli, home, "--data", tmp_path / "packed")["seen"] == seen


def test_copies_saved_anew_are_said(cli: Cli, tmp_path: Path) -> None:
    """Their pixels are others, so they count; but a figure that flatters says so."""
    random = np.random.default_rng(0)
    for i in range(40):
        place = tmp_path / f"photos/class-{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(place / f"{i}.png")
    fields = {**FIELDS, "size": 64, "crop": 64, "model": "fast-32"}
    alexnet.train("photos", data=tmp_path / "photos", run=tmp_path / "run", **fields)
    for file in sorted((tmp_path / "photos").rglob("*.png")):
        place = tmp_path / "anew" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.resize((120, 120)).save(place / f"{file.stem}.jpg", quality=70)
    status, out, said = cli("test", tmp_path / "run", "--data", tmp_path / "anew", "--json")
    result = one_object(out)
    trained = json.loads((tmp_path / "run/recipe.json").read_text())["data"]["counts"]
    assert (status, result["n"], result["seen"]) == (0, 40, 0)
    assert 0.9 * sum(trained.values()) <= result["near_seen"] <= sum(trained.values())
    assert any(f"{result['near_seen']} images of these look like copies" in line for line in said)


def test_photos_that_lie_on_their_side_are_said(cli: Cli, home: Path, tmp_path: Path) -> None:
    """Where a run leaves them so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in sorted((home / "new").rglob("*.png")):
        place = tmp_path / "turned" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.save(place / file.name, exif=exif)
    _, _, said = cli("test", home / "run", "--data", tmp_path / "turned")
    assert any("30 images or more have an EXIF orientation" in line for line in said)


def test_only_seen_images_are_no_test(cli: Cli, home: Path, tmp_path: Path) -> None:
    own = measure(cli, home, "--split", "train")
    assert own["n"] == json.loads((home / "run/recipe.json").read_text())["data"]["counts"]["train"]
    features = tmp_path / "f.npy"
    alexnet.inspect(home / "run", "features", split="train", out=features)
    lines = features.with_suffix(".csv").read_text().splitlines()[1:]
    for line in lines:
        name = line.split(",")[1]
        (tmp_path / "seen" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "photos" / name, tmp_path / "seen" / name)
    status, _, said = cli("test", home / "run", "--data", tmp_path / "seen")
    assert (status, len(said[-1:])) == (2, 1)
    assert "--with-seen" in said[-1]
    assert measure(cli, home, "--data", tmp_path / "seen", "--with-seen")["loss"] == own["loss"]


def test_a_test_part_that_repeats_training_images(cli: Cli, tmp_path: Path) -> None:
    """Also of the run's own data, where somebody else cut it; page and card say so."""
    run = tmp_path / "run"
    write_tree(tmp_path / "data/train", each=12)
    write_tree(tmp_path / "data/test", each=6, seed=1)
    for file in sorted((tmp_path / "data/train/class-0").iterdir())[:4]:
        shutil.copy(file, tmp_path / f"data/test/class-0/again-{file.name}")
    alexnet.train("digits", data=tmp_path / "data", run=run, **FIELDS)
    status, out, said = cli("test", run, "--json")
    result = one_object(out)
    assert (status, result["n"], result["seen"]) == (0, 18, 4)
    assert any("4 of 22 images" in line for line in said)
    certificate = json.loads((run / "certificate.json").read_text())
    assert certificate["metrics"]["test"]["n"] == 18
    assert alexnet.test(run, certificate=True).holds
    page = Path(alexnet.report(run, brief=True).out).read_text()
    assert "18 (4 it learnt from left out" in page
    alexnet.export(run, format="safetensors", out=tmp_path / "hub")
    assert "18 (4 seen in training left out" in (tmp_path / "hub/README.md").read_text()


def test_a_run_without_digests_makes_them_or_says_so(cli: Cli, home: Path, tmp_path: Path) -> None:
    """Of version 0.1.0."""
    run = Path(shutil.copytree(home / "run", tmp_path / "run", symlinks=True))
    (run / "image-digests.safetensors").unlink()
    copy = Path(shutil.copytree(home / "photos", tmp_path / "copy"))
    min((copy / "class-1").iterdir()).unlink()
    expected = measure(cli, home, "--data", copy)
    result = one_object(cli("test", run, "--data", copy, "--json")[1])
    assert (result["n"], result["seen"]) == (expected["n"], expected["seen"])
    (run / "image-digests.safetensors").unlink()
    saved = json.loads((run / "recipe.json").read_text())
    saved["data"]["path"] = str(tmp_path / "gone")
    (run / "recipe.json").write_text(json.dumps(saved))
    status, out, said = cli("test", run, "--data", copy, "--json")
    assert (status, one_object(out)["seen"]) == (0, None)
    assert any("not known" in line for line in said)


def test_damaged_digests_are_refused(cli: Cli, home: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(home / "run", tmp_path / "run", symlinks=True))
    (run / "image-digests.safetensors").write_bytes(b"nonsense")
    status, _, said = cli("test", run, "--data", home / "new")
    assert (status, len(said)) == (2, 1)
    assert "image-digests.safetensors" in said[0]


def test_a_resumed_run_has_the_digests_of_an_uninterrupted_one(home: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(home / "run", tmp_path / "run", symlinks=True))
    (run / "image-digests.safetensors").unlink()
    alexnet.train(run=run, resume=True)  # finished: nothing is read
    assert not (run / "image-digests.safetensors").exists()
    copy = tmp_path / "half"
    with pytest.raises(UsageError, match="steps"):
        alexnet.train(run=run, resume=True, steps=4)
    alexnet.train("digits", data=home / "photos", run=copy, **{**FIELDS, "seed": 9})
    assert (copy / "image-digests.safetensors").read_bytes() == (
        home / "run/image-digests.safetensors"
    ).read_bytes()


# Whatever else takes --data


def test_inspect_reads_other_images_whole(home: Path, tmp_path: Path, new: Path) -> None:
    run = home / "run"
    for what in ("confusion", "calibration", "mistakes", "neighbors", "probe", "activations"):
        draws_images = what in ("mistakes", "neighbors", "activations")
        found = alexnet.inspect(run, what, data=new, count=1 if draws_images else None)
        assert (found.n, found.split, found.own) == (30, "all", False), what
    assert alexnet.inspect(run, "features", data=new, out=tmp_path / "f.npy").shape[0] == 30
    assert sum(map(sum, alexnet.inspect(run, "data", data=new).counts.values())) == 30
    assert alexnet.inspect(run, "predictions", data=new, count=30).n == 30
    shutil.copytree(new / "class-0", new / "tiger")
    with pytest.raises(DataError, match="'tiger'"):
        alexnet.inspect(run, "confusion", data=new)
    assert alexnet.inspect(run, "confusion", data=new, ignore_unknown=True).n == 30
    copy = Path(shutil.copytree(home / "photos", tmp_path / "copy"))
    min((copy / "class-1").iterdir()).unlink()
    found = alexnet.inspect(run, "mistakes", data=copy, count=1)
    assert found.n + found.seen == 59
    assert alexnet.inspect(run, "mistakes", data=copy, with_seen=True, count=1).n == 59


def test_export_is_verified_on_images_by_name(home: Path, tmp_path: Path, new: Path) -> None:
    shutil.rmtree(new / "class-0")
    out = tmp_path / "net.safetensors"
    made = alexnet.export(home / "run", format="safetensors", out=out, data=new)
    assert made.verified.images == "20 of all"
    shutil.copytree(new / "class-1", new / "tiger")
    with pytest.raises(DataError, match="'tiger'"):
        alexnet.export(home / "run", format="safetensors", out=tmp_path / "b.safetensors", data=new)
    alexnet.export(
        home / "run", format="safetensors", out=tmp_path / "b.safetensors", data=new,
        ignore_unknown=True,
    )  # fmt: skip


def test_classify_says_which_images_it_has_learnt_from(cli: Cli, home: Path) -> None:
    status, out, said = cli("classify", home / "run", home / "photos", "--json")
    result = one_object(out)
    assert status == 0
    assert result["seen"] == sum("seen" in one for one in result["results"])
    assert result["seen"] == 60 - measure(cli, home)["n"]
    assert any(f"on {result['seen']} of these 60 images" in line for line in said)
    assert one_object(cli("classify", home / "run", home / "new", "--json")[1])["seen"] == 0


def test_a_report_is_of_the_runs_own_images(cli: Cli, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    status, _, said = cli("report", home / "run", "--data", home / "new", "--out", out)
    assert status == 0
    assert any("other images" in line for line in said)
    assert "Without confusion" in out.read_text()


# What flatters besides


def test_images_that_are_there_twice_are_said(cli: Cli, home: Path, new: Path) -> None:
    for file in sorted((new / "class-1").iterdir())[:4]:
        shutil.copy(file, new / "class-1" / f"again-{file.name}")
        shutil.copy(file, new / "class-2" / f"other-{file.name}")
    result = measure(cli, home, "--data", new)
    assert (result["n"], result["repeated"], result["contradicted"]) == (38, 8, 12)
    _, _, said = cli("test", home / "run", "--data", new)
    assert any("8 images repeat another one" in line for line in said)
    assert any("12 images are in two classes' folders" in line for line in said)
    plain = measure(cli, home, "--data", home / "new")
    assert (plain["repeated"], plain["contradicted"]) == (0, 0)


def test_other_photos_under_the_old_names_are_not_the_runs_own(
    cli: Cli, home: Path, tmp_path: Path
) -> None:
    """Names and sizes of a folder may stay while its photos change."""
    data = Path(shutil.copytree(home / "photos", tmp_path / "photos"))
    alexnet.train("digits", data=data, run=tmp_path / "run", **FIELDS)
    assert cli("test", tmp_path / "run")[0] == 0
    files = sorted((data / "class-1").iterdir())
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    for words in (["test"], ["inspect"]):
        what = ["confusion"] if words == ["inspect"] else []
        status, _, said = cli(*words, tmp_path / "run", *what)
        assert (status, len(said)) == (2, 1)
        assert "changed since the run began" in said[0]


@pytest.mark.usefixtures("drawn")
def test_pictures_of_other_images_lie_beside_the_runs_own(cli: Cli, home: Path) -> None:
    own = alexnet.inspect(home / "run", "confusion").figures
    before = Path(own[0]).read_bytes()
    other = alexnet.inspect(home / "run", "confusion", data=home / "new").figures
    assert own != other
    assert Path(own[0]).read_bytes() == before
    _, out, _ = cli("inspect", home / "run", "confusion", "--data", home / "new")
    assert f"of {home / 'new'}, which is not what the run was trained on" in out


def test_a_fine_tuned_run_has_seen_what_its_weights_learnt_from(
    cli: Cli, home: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    alexnet.train(init=home / "run", data=home / "new", run=run, minutes=0.01, doctor="off")
    copy = Path(shutil.copytree(home / "photos", tmp_path / "copy"))
    min((copy / "class-1").iterdir()).unlink()
    before = measure(cli, home, "--data", copy)["seen"]
    assert one_object(cli("test", run, "--data", copy, "--json")[1])["seen"] == before


def test_a_part_called_train_needs_no_image_of_each_class(
    cli: Cli, home: Path, parts: Path
) -> None:
    shutil.rmtree(parts / "train/class-1")
    assert measure(cli, home, "--data", parts, "--split", "train")["n"] == 8
