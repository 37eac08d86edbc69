"""The command line: what it prints, how it ends, and what it says of bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli import main
from alexnet.errors import CheckpointError, UsageError
from alexnet.recipe import Recipe
from alexnet.recipebook import RECIPES
from conftest import patterns, without_report, write_idx, write_tree

TRAIN_KEYS = {"top1", "top1_ci95", "top5", "loss", "n", "images_per_s", "wall_s", "run"}
TEST_KEYS = {*TRAIN_KEYS, "top5_optimistic", "top5_pessimistic", "top5_ci95", "checkpoint"}
QUICK = ["--steps", "2", "--batch-size", "8", "--workers", "0", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def clean_folder(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """Every test runs in an empty folder, where what is left behind can be seen."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet import figures

    without_report(monkeypatch)
    for name in ("draw_confusion", "draw_mistakes"):
        monkeypatch.setattr(figures, name, lambda *_: None)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


Answer = tuple[int, str, list[str]]
Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """cli(*argv) -> (status, standard output, lines of standard error)."""

    def run(*argv: object) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return run


def one_object(out: str) -> dict[str, Any]:
    """Standard output as exactly one JSON object on one line, of numbers that JSON has."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert out.endswith("\n")
    assert out.count("\n") == 1
    value = json.loads(out, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def assert_picture(path: str) -> None:
    with Image.open(path) as picture:
        assert min(picture.size) > 100


# What the verbs print


def test_train_test_classify(cli: Cli, idx_folder: Path, clean_folder: Path) -> None:
    """The whole way of a user, pictures and all."""
    status, out, said = cli("train", "digits", "--data", idx_folder, *QUICK, "--json")
    assert status == 0
    result = one_object(out)
    assert result.keys() >= TRAIN_KEYS
    assert said, "progress belongs on standard error"
    assert result["run"] == "runs/digits-1"
    made = {path.name for path in Path(result["run"]).iterdir()}
    assert made >= {"recipe.json", "environment.json", "metrics.jsonl", "checkpoints", "figures"}
    assert Path(result["checkpoint"], "model.safetensors").is_file()
    for figure in result["figures"]:
        assert_picture(figure)

    status, out, _ = cli("test", result["run"], "--json")
    tested = one_object(out)
    assert status == 0
    assert tested.keys() >= TEST_KEYS
    assert tested["n"] == 200
    assert tested["split"] == "test"
    low, high = tested["top1_ci95"]
    assert 0 <= low <= tested["top1"] <= high <= 1
    assert sum(row["n"] for row in tested["per_class"]) == 200
    assert sum(row["right"] for row in tested["per_class"]) == round(tested["top1"] * 200)
    assert len(tested["figures"]) == 2
    for figure in tested["figures"]:
        assert_picture(figure)

    Image.fromarray(patterns(1)[0][0]).save("one.png")
    status, out, _ = cli("classify", result["run"], "one.png", "--json", "--top", "3")
    assert status == 0
    (image,) = one_object(out)["results"]
    assert image["path"] == "one.png"
    assert [row.keys() for row in image["top"]] == [{"class", "index", "probability"}] * 3
    chances = [row["probability"] for row in image["top"]]
    assert chances == sorted(chances, reverse=True)


def test_trained_network_names_what_it_sees(cli: Cli, run: Path) -> None:
    """From files, a folder and standard input, as text and as JSON, the class is right."""
    images, labels = patterns(10, seed=5)
    Path("some/deep").mkdir(parents=True)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(f"some/deep/{label}.png")
    status, out, said = cli("classify", run, "some", "--json")
    results = one_object(out)["results"]
    assert (status, said) == (0, [])
    assert [Path(r["path"]).stem for r in results] == [str(i) for i in range(10)]
    assert sum(r["top"][0]["class"] == Path(r["path"]).stem for r in results) >= 9
    status, out, _ = cli("classify", run, "some/deep/3.png")
    lines = out.splitlines()
    assert (status, lines[0], len(lines)) == (0, "some/deep/3.png", 6)
    assert re.match(r"3 +[0-9.]+ % +[#█]+", lines[1])
    command = [sys.executable, "-m", "alexnet", "classify", str(run), "-", "--json"]
    with open("some/deep/3.png", "rb") as file:
        piped = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert piped.returncode == 0
    (image,) = one_object(piped.stdout)["results"]
    assert image["path"] == "-"
    assert [row["class"] for row in image["top"]] == [r["class"] for r in results[3]["top"]]
    assert image["top"][0]["probability"] == pytest.approx(
        results[3]["top"][0]["probability"], rel=1e-4
    )


def test_predictor_equals_classify(cli: Cli, run: Path) -> None:
    image = patterns(4, seed=5)[0][3]
    Image.fromarray(image).save("3.png")
    top = one_object(cli("classify", run, "3.png", "--json", "--top", 10)[1])["results"][0]["top"]
    predictor = alexnet.load(run)
    probabilities = predictor.predict([image[..., None], Path("3.png")])
    assert probabilities.shape == (2, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    for row in top:
        np.testing.assert_allclose(probabilities[:, row["index"]], row["probability"], rtol=1e-4)
        assert predictor.classes[row["index"]] == row["class"]
    assert predictor.predict([]).shape == (0, 10)


@pytest.mark.usefixtures("no_pictures")
def test_test_runs_every_image_of_the_split_asked_for(cli: Cli, run: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        result = one_object(cli("test", run, "--split", split, "--json")[1])
        counts[split] = result["n"]
        assert result["top1"] >= 0.9
        assert result["checkpoint"].endswith(os.readlink(run / "checkpoints/best"))
    assert counts == {"train": 540, "val": 60, "test": 200}


@pytest.mark.usefixtures("no_pictures")
def test_what_training_reports_is_what_test_finds(cli: Cli, run: Path) -> None:
    """The best validation in the log is the accuracy of the best checkpoint on val."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((e for e in lines if e["event"] == "val"), key=lambda e: (e["top1"], -e["loss"]))
    found = one_object(cli("test", run, "--split", "val", "--json")[1])
    assert found["checkpoint"].endswith(f"step-{best['step']}")
    assert found["top1"] == best["top1"]
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-6)
    assert found["top1_ci95"] == best["top1_ci95"]


@pytest.mark.usefixtures("no_pictures")
def test_test_says_it_in_words(cli: Cli, run: Path) -> None:
    status, out, _ = cli("test", run)
    assert status == 0
    assert re.search(r"^top-1 +\d+\.\d+ % \(95 % interval .* n 200\)$", out, re.M)
    assert re.search(r"^top-5 +\d+\.\d+ % \(95 % interval", out, re.M)


def test_recipes(cli: Cli) -> None:
    listed = one_object(cli("recipes", "--json")[1])["recipes"]
    assert [r["name"] for r in listed] == list(RECIPES)
    assert all(r["about"] for r in listed)
    status, out, said = cli("recipes")
    assert (status, said) == (0, [])
    assert all(name in out for name in RECIPES)
    for name in RECIPES:
        whole = one_object(cli("recipes", name, "--json")[1])
        assert whole.keys() >= {"model", "parameters", "macs", "layers", "digest"}
        assert whole["parameters"] == sum(row["parameters"] for row in whole["layers"])
        sides = {"channels": whole["channels"], "size": whole["crop"]}
        with torch.device("meta"):
            model = alexnet.build_model(whole["model"], whole["classes"], **sides)
        assert whole["parameters"] == sum(p.numel() for p in model.parameters())
        status, out, _ = cli("recipes", name)
        assert status == 0
        assert f"{whole['parameters']:,} parameters" in out


@pytest.mark.usefixtures("no_pictures")
def test_runs_are_numbered(cli: Cli, idx_folder: Path) -> None:
    for number in (1, 2):
        status, out, _ = cli("train", "digits", "--data", idx_folder, *QUICK)
        assert status == 0
        assert f"alexnet test runs/digits-{number}\n" in out
        assert Path(f"runs/digits-{number}/recipe.json").is_file()


def run_python(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)


def test_module_is_the_command() -> None:
    commands = [[sys.executable, "-m", "alexnet"], [str(Path(sys.executable).with_name("alexnet"))]]
    for word in ("--version", "recipes-nonsense"):
        found = [subprocess.run([*c, word], capture_output=True, text=True) for c in commands]
        assert found[0].stdout == found[1].stdout
        assert found[0].stderr == found[1].stderr
        assert found[0].returncode == found[1].returncode == (0 if word == "--version" else 2)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", run_main("--version").stdout)


def run_main(*argv: str) -> subprocess.CompletedProcess[str]:
    return run_python("import sys; from alexnet.cli import main; sys.exit(main())", *argv)


@pytest.mark.parametrize("argv", [["--help"], [], ["train", "--help"], ["train", "--lr", "x"]])
def test_help_is_light(argv: list[str]) -> None:
    code = (
        "import sys\nfrom alexnet.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = run_python(code, *argv)
    assert done.returncode == 0, done.stderr
    if "--lr" not in argv:
        assert "usage: alexnet" in done.stdout
        assert done.stderr == ""


# Recipes


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert recipe.name == name
    assert recipe.replace(seed=recipe.seed + 1).digest != recipe.digest
    assert recipe.replace(workers=recipe.workers + 1, keep=9).digest == recipe.digest
    assert recipe.conflicts(recipe.replace(lr=9.0, workers=7)) == ["lr"]


# Sixty million weights, written and read, are ten seconds; what these have, others have too.
LARGE = ("paper-2010", "caffe", "seed-000", "seed-002", "large-batch")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in RECIPES]
)
def test_recipe_trains_two_steps(
    name: str, cli: Cli, idx_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its own size, channels, network, optimiser and augmentation, on data of the right kind."""
    recipe = RECIPES[name]()
    data = idx_folder
    if recipe.channels == 3:
        data = write_tree(tmp_path / "data", classes=6, each=6, side=recipe.size + 4)
    small = ["--steps", 2, "--batch-size", 8, "--eval-batch", 50, "--workers", 0]
    if recipe.crop > 64:  # a look at these takes ten seconds
        small.append("--no-doctor")
    argv = ["train", name, "--data", data, "--run", "r", *small, "--val-fraction", 0.1, "--json"]
    status, out, said = cli(*argv)
    assert status == 0, said
    result = one_object(out)
    assert result["step"] == 2
    assert np.isfinite(result["loss"])
    saved = json.loads(Path("r/recipe.json").read_text())
    changed = recipe.conflicts(Recipe.from_dict(saved["recipe"]))
    allowed = {"steps", "batch_size", "eval_batch", "val_fraction", "precision"}
    assert set(changed) <= allowed


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'fashon-mnist': did you mean 'fashion-m"):
        alexnet.train("fashon-mnist")
    with pytest.raises(UsageError, match=r"unknown recipe field 'batchsize'.*'batch_size'"):
        Recipe().replace(batchsize=3)
    with pytest.raises(UsageError, match=r"weight_decay is '1'; it takes float"):
        Recipe(weight_decay="1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"opt is 'rmsprop'.*one of sgd, adam, adamw"):
        Recipe(opt="rmsprop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="flip is 1; it takes bool"):
        Recipe(flip=1)  # type: ignore[arg-type]


# Bad input. Each case returns the words of a command that must be refused.

Words = list[object]
Case = Callable[["Place"], Words]


class Place:
    """What a bad case has at hand: good data, a good run that it may damage, and a folder."""

    def __init__(self, idx: Path, tree: Path, run: Path, folder: Path) -> None:
        self.idx, self.tree, self.run, self.folder = idx, tree, run, folder

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(folder, self.folder / f"{folder.name}-copy"))

    def train(self, *more: object, data: Path | None = None, recipe: str = "digits") -> Words:
        return ["train", recipe, "--data", data or self.idx, "--run", "r", *QUICK, *more]


def empty_class(p: Place) -> Words:
    tree = p.copy(p.tree)
    (tree / "class-9").mkdir()
    return p.train(data=tree)


def one_class(p: Place) -> Words:
    tree = p.copy(p.tree)
    for name in ("class-1", "class-2"):
        shutil.rmtree(tree / name)
    return p.train(data=tree)


def one_label(p: Place) -> Words:
    images, labels = patterns(100)
    write_idx(p.folder / "one", "train", images, labels * 0)
    return p.train(data=p.folder / "one")


def truncated_image(p: Place) -> Words:
    tree = p.copy(p.tree)
    victim = next((tree / "class-1").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-200])
    return p.train(data=tree)


def wrong_size_idx(p: Place) -> Words:
    idx = p.copy(p.idx)
    victim = idx / "train-images-idx3-ubyte"
    victim.write_bytes(victim.read_bytes()[:-1])
    return p.train(data=idx)


def labels_of_another_set(p: Place) -> Words:
    idx = p.copy(p.idx)
    shutil.copy(idx / "t10k-labels-idx1-ubyte", idx / "train-labels-idx1-ubyte")
    return p.train(data=idx)


def constant_images(p: Place) -> Words:
    images, labels = patterns(100)
    write_idx(p.folder / "flat", "train", images * 0 + 7, labels)
    return p.train(data=p.folder / "flat")


def existing_run(p: Place) -> Words:
    return ["train", "digits", "--data", p.idx, "--run", p.run, *QUICK]


def run_is_a_file(p: Place) -> Words:
    (p.folder / "file").touch()
    return ["train", "digits", "--data", p.idx, "--run", p.folder / "file", *QUICK]


def damaged_checkpoint(p: Place) -> Words:
    victim = (p.run / "checkpoints/best").resolve() / "model.safetensors"
    content = bytearray(victim.read_bytes())
    content[-9] ^= 64
    victim.write_bytes(content)
    return ["test", p.run]


def foreign_checkpoint(p: Place) -> Words:
    """From a run with another seed, under the names of this run's own."""
    argv = ["train", "digits", "--data", p.idx, "--run", p.folder / "other", *QUICK, "--seed", 1]
    assert main([str(word) for word in argv]) == 0
    shutil.rmtree(p.run / "checkpoints")
    shutil.copytree(p.folder / "other/checkpoints", p.run / "checkpoints", symlinks=True)
    return ["test", p.run]


def no_checkpoint(p: Place) -> Words:
    shutil.rmtree(p.run / "checkpoints")
    return ["test", p.run]


def edited_recipe(p: Place) -> Words:
    file = p.run / "recipe.json"
    text = file.read_text()
    assert '"crop": 28' in text
    file.write_text(text.replace('"crop": 28', '"crop": 24'))
    return ["test", p.run]


def recipe_without_digest(p: Place) -> Words:
    file = p.run / "recipe.json"
    saved = json.loads(file.read_text())
    del saved["digest"]
    file.write_text(json.dumps(saved))
    return ["classify", p.run, p.tree]


def recipe_of_noise(p: Place) -> Words:
    (p.run / "recipe.json").write_bytes(b"\0\xff{")
    return ["test", p.run]


def moved_data(p: Place) -> Words:
    data = p.copy(p.idx)
    argv = ["train", "digits", "--data", data, "--run", p.folder / "moved", *QUICK]
    assert main([str(word) for word in argv]) == 0
    shutil.rmtree(data)
    return ["test", p.folder / "moved"]


def no_readable_image(p: Place) -> Words:
    (p.folder / "bad.png").write_bytes(b"not a picture")
    return ["classify", p.run, p.folder / "bad.png"]


def folder_without_images(p: Place) -> Words:
    (p.folder / "nothing").mkdir()
    return ["classify", p.run, p.folder / "nothing"]


BAD: dict[str, tuple[Case, str]] = {
    "no such data": (lambda p: p.train(data=Path("nowhere")), "nowhere"),
    "empty class": (empty_class, "class-9"),
    "one class": (one_class, "class-0"),
    "one label": (one_label, "'1'"),
    "truncated image": (truncated_image, "class-1"),
    "wrong size IDX": (wrong_size_idx, "train-images-idx3-ubyte"),
    "labels of another set": (labels_of_another_set, "200 labels"),
    "constant images": (constant_images, "constant"),
    "negative lr": (lambda p: p.train("--lr", -1), "-1"),
    "lr no number": (lambda p: p.train("--lr", "fast"), "'fast'"),
    "lr nan": (lambda p: p.train("--lr", "nan"), "nan"),
    "huge seed": (lambda p: p.train("--seed", 2**63), str(2**63)),
    "no batch": (lambda p: p.train("--batch-size", 0), "batch_size is 0"),
    "batch of one": (lambda p: p.train("--batch-size", 1), "--batch-size 2"),
    "batch beyond data": (lambda p: p.train("--batch-size", 541), "--batch-size 540"),
    "crop beyond size": (lambda p: p.train("--crop", 40), "--size 40"),
    "crop too small for the net": (
        lambda p: p.train("--crop", 8, "--shift", 1, "--model", "cifar-alexnet"),
        "--crop",
    ),
    "unknown model": (lambda p: p.train("--model", "resnet"), "'resnet'"),
    "unknown option": (lambda p: p.train("--learning-rate", 1), "--learning-rate"),
    "misspelt option": (lambda p: p.train("--label-smoothin", 1), "--label-smoothing"),
    "unknown recipe": (lambda p: p.train(recipe="digit"), "did you mean 'digits'"),
    "unknown schedule": (lambda p: p.train("--schedule", "step"), "'step'"),
    "drops without steps": (lambda p: p.train("--drops", 3), "--schedule steps"),
    "steps without drops": (lambda p: p.train("--schedule", "steps"), "--drops"),
    "falling drops": (lambda p: p.train("--schedule", "steps", "--drops", 3, 2), "order"),
    "cutout of everything": (lambda p: p.train("--cutout", 28), "cutout"),
    "existing run": (existing_run, "--resume"),
    "run is a file": (run_is_a_file, "is a file"),
    "run is full of other things": (
        lambda p: ["train", "digits", "--data", p.idx, "--run", p.tree, *QUICK],
        "class-0",
    ),
    "no such run": (lambda p: ["test", "nowhere"], "nowhere"),
    "data as run": (lambda p: ["classify", p.tree, p.tree], "recipe.json"),
    "damaged checkpoint": (damaged_checkpoint, "damaged"),
    "foreign checkpoint": (foreign_checkpoint, "another recipe"),
    "no checkpoint": (no_checkpoint, "best"),
    "unknown checkpoint": (lambda p: ["test", p.run, "--checkpoint", "step-7"], "step-7"),
    "edited recipe": (edited_recipe, "edited"),
    "recipe without digest": (recipe_without_digest, "digest"),
    "recipe of noise": (recipe_of_noise, "recipe.json"),
    "data moved away": (moved_data, "idx-copy"),
    "views 10 without room": (lambda p: ["test", p.run, "--views", 10], "--views 1"),
    "views 3": (lambda p: ["classify", p.run, p.tree, "--views", 3], "views is 3"),
    "unknown split": (lambda p: ["test", p.run, "--split", "dev"], "'dev'"),
    "other classes": (lambda p: ["test", p.run, "--data", p.tree], "--data"),
    "no readable image": (no_readable_image, "bad.png"),
    "folder without images": (folder_without_images, "nothing"),
    "no such image": (lambda p: ["classify", p.run, "gone.png"], "gone.png"),
    "no image named": (lambda p: ["classify", p.run], "images"),
    "top 0": (lambda p: ["classify", p.run, p.tree, "--top", 0], "top is 0"),
    "unknown verb": (lambda p: ["trian"], "'trian'"),
    "data without a verb": (lambda p: ["data"], "data get"),
    "unknown data set": (lambda p: ["data", "get", "mnst"], "mnist"),
}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", BAD)
def test_bad_input(
    name: str, cli: Cli, idx_folder: Path, tree: Path, run: Path, tmp_path: Path
) -> None:
    """Exit 2, one line that names what is wrong, nothing on standard output, nothing left."""
    make, names = BAD[name]
    argv = make(Place(idx_folder, tree, run, tmp_path))
    before = sorted(tmp_path.rglob("*")) + sorted(tree.rglob("*"))
    status, out, said = cli(*argv)
    assert (status, out) == (2, ""), said
    assert len(said) == 1, said
    assert said[0].startswith("alexnet: ")
    assert names in said[0], said
    assert sorted(tmp_path.rglob("*")) + sorted(tree.rglob("*")) == before


@pytest.mark.parametrize("name", ["negative lr", "no such run", "unknown option"])
def test_bad_input_in_json(
    name: str, cli: Cli, idx_folder: Path, tree: Path, run: Path, tmp_path: Path
) -> None:
    make, names = BAD[name]
    status, out, said = cli(*make(Place(idx_folder, tree, run, tmp_path)), "--json")
    assert status == 2
    assert len(said) == 1
    assert names in one_object(out)["error"]


def test_one_bad_image_does_not_stop_the_others(cli: Cli, run: Path, tree: Path) -> None:
    good = sorted((tree / "class-0").glob("*.png"))[:2]
    Path("bad.png").write_bytes(good[0].read_bytes()[:-200])
    status, out, said = cli("classify", run, good[0], "bad.png", good[1], "--json")
    result = one_object(out)
    assert status == 1
    assert [image["path"] for image in result["results"]] == [str(path) for path in good]
    assert [error["path"] for error in result["errors"]] == ["bad.png"]
    assert len(said) == 1
    assert said[0].startswith("alexnet: bad.png")


def test_divergence_is_exit_1_and_keeps_the_run(cli: Cli, idx_folder: Path) -> None:
    argv = ["train", "digits", "--data", idx_folder, "--run", "r", *QUICK, "--opt", "sgd"]
    status, out, said = cli(*argv, "--lr", "1e30", "--steps", 5)
    assert (status, out) == (1, "")
    assert said[-1].startswith("alexnet: the loss is ")
    assert "--lr 1e+29" in said[-1]
    assert Path("r/checkpoints/last").exists()


# A full disk


WEIGHTS = 4 * sum(p.numel() for p in alexnet.build_model("alexnet-28", 10).parameters())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for the weights at step 0, a checkpoint with Adam's state, and not for another."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs Linux and root")
    size = f"size={WEIGHTS * 5 + 2**20}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)])
    if done.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("no_pictures")
def test_full_disk(cli: Cli, idx_folder: Path, small_disk: Path) -> None:
    """One line, exit 2, and the checkpoints from before can be gone on from, once there is room."""
    run, more = small_disk / "r", ["--save-every", 1, "--keep", 9, "--steps", 6]
    argv = ["train", "digits", "--data", idx_folder, "--run", run, *QUICK, *more]
    status, _, said = cli(*argv)
    assert status == 2
    assert [line for line in said if line.startswith("alexnet: ")] == said[-1:]
    assert "free some space" in said[-1]
    saved = os.readlink(run / "checkpoints/last")
    status, _, said = cli("train", "--resume", "--run", run)
    assert status == 2
    assert f"from step {saved.removeprefix('step-')}" in said[0]
    elsewhere = Path(shutil.copytree(run, "r", symlinks=True))
    assert cli("train", "--resume", "--run", elsewhere)[0] == 0


@pytest.mark.usefixtures("no_pictures")
def test_full_disk_before_the_first_checkpoint(
    cli: Cli, idx_folder: Path, small_disk: Path
) -> None:
    """No run is left that can be neither started nor continued."""
    (small_disk / "filler").write_bytes(bytes(WEIGHTS * 9 // 2 + 2**20))
    argv = ["train", "digits", "--data", idx_folder, "--run", small_disk / "r", *QUICK]
    status, _, said = cli(*argv)
    assert status == 2
    assert "free some space" in said[-1]
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    assert cli(*argv, "--keep", 1)[0] == 0


def test_foreign_weights_are_refused_by_load(run: Path) -> None:
    from alexnet.store.checkpoint import save_checkpoint

    save_checkpoint(run / "checkpoints", 99, model={}, optimizer={}, state={}, best=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        alexnet.load(run)
