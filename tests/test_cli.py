"""The command line: what it prints and how it ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet
from conftest import patterns
from shell import QUICK, Cli, one_object
from shell import clean_folder as clean_folder
from shell import cli as cli
from shell import no_pictures as no_pictures
from shell import run as run

TRAIN_KEYS = {"top1", "top1_ci95", "top5", "loss", "n", "images_per_s", "wall_s", "run"}
TEST_KEYS = {*TRAIN_KEYS, "top5_optimistic", "top5_pessimistic", "top5_ci95", "checkpoint"}


def assert_picture(path: str) -> None:
    with Image.open(path) as picture:
        assert min(picture.size) > 100


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
    assert (status, lines[0], len(lines)) == (0, "some/deep/3.png", 7)
    assert lines[6] == "probabilities in fp32"
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
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-6, abs=1e-7)  # float32
    assert found["top1_ci95"] == best["top1_ci95"]


@pytest.mark.usefixtures("no_pictures")
def test_test_says_it_in_words(cli: Cli, run: Path) -> None:
    status, out, _ = cli("test", run)
    assert status == 0
    assert re.search(r"^top-1 +\d+\.\d+ % \(95 % interval .* n 200\)$", out, re.M)
    assert "top-5  left out: five guesses of 10 classes are right by chance for 50 %" in out


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
    for word in ("--version", "trian"):
        found = [subprocess.run([*c, word], capture_output=True, text=True) for c in commands]
        assert found[0].stdout == found[1].stdout
        assert found[0].stderr == found[1].stderr
        assert found[0].returncode == found[1].returncode == (0 if word == "--version" else 2)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", run_main("--version").stdout)


def run_main(*argv: str) -> subprocess.CompletedProcess[str]:
    return run_python("import sys; from alexnet.cli import main; sys.exit(main())", *argv)


@pytest.mark.parametrize(
    "argv",
    [["--help"], [], ["train", "--help"], ["train", "--lr", "x"], ["--version"], ["trian"]],
)
def test_help_is_light(argv: list[str]) -> None:
    code = (
        "import sys\nfrom alexnet.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'rich', 'safetensors', 'shtab'}\n"
        "heavy |= {'jinja2'}\n"
        "heavy &= sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = run_python(code, *argv)
    assert done.returncode == 0, done.stderr
    if "--help" in argv or not argv:
        assert "usage: alexnet" in done.stdout
        assert done.stderr == ""


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
