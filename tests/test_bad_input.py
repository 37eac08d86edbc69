"""Bad input: each case is refused in one line that names it, and leaves nothing behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import alexnet
from alexnet.cli import main
from alexnet.errors import CheckpointError
from alexnet.runs import save_checkpoint
from conftest import patterns, write_idx
from shell import QUICK, Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures
from shell import run as run

# Each case returns the words of a command that must be refused.

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


def test_foreign_weights_are_refused_by_load(run: Path) -> None:
    save_checkpoint(run / "checkpoints", 99, model={}, optimizer={}, state={}, best=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        alexnet.load(run)
