"""What a run's page and a model's card print is executed, and gives the digest and the bits."""

import hashlib
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet.training import threads
from conftest import without_report, write_tree
from shell import Cli
from shell import clean_folder as clean_folder  # around every test here
from shell import cli as cli
from teams import end, members, torchrun

PLAIN = ("--steps", 3, "-b", 4, "-j", 0)
QUICK = (*PLAIN, "--no-doctor")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of photos whose folder has a blank and a quote in its name."""
    return write_tree(tmp_path_factory.mktemp("data") / "Mo's photos", each=12, side=40)


def commands_of(page: Path) -> list[str]:
    """The lines under "How to reproduce it"."""
    text = page.read_text().partition("How to reproduce it")[2]
    block = re.search(r"<pre><code>(.*?)</code></pre>", text, re.S)
    assert block, "there is no command"
    return html.unescape(block[1]).splitlines()


def execute(line: str, cli: Cli) -> None:
    """As a shell does, but in this process, whose threads are those that the line asks for, and
    without another page."""
    words = shlex.split(line)
    if "=" in words[0]:
        assert words.pop(0) == f"OMP_NUM_THREADS={torch.get_num_threads()}"
    assert words[0] == "alexnet"
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        status, _, err = cli(*words[1:])
    assert status == 0, f"{line}: {err}"


def in_a_shell(line: str) -> None:
    """Nothing of this test's own threads is left in its environment."""
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    clean["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(line, shell=True, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def identity(run: Path) -> tuple[str, str, str]:
    """Digest of the recipe, of the data, and sha256 of the best weights."""
    saved = json.loads((run / "recipe.json").read_text())
    weights = (run / "checkpoints/best/model.safetensors").read_bytes()
    return saved["digest"], saved["data"]["digest"], hashlib.sha256(weights).hexdigest()


def check_page(run: Path, run_it: Callable[[str], None]) -> Path:
    """Runs what the page of a run prints; the run that came of it."""
    line, *tests = commands_of(run / "report.html")
    text = html.unescape((run / "report.html").read_text())
    run_it(line)
    again = run.with_name(f"{run.name}-again-1")
    assert identity(again) == identity(run)
    for what in identity(run):
        assert what in text
    assert [shlex.split(test)[:3] for test in tests] == [["alexnet", "test", str(again)]]
    return again


def new_page(run: Path) -> str:
    return Path(alexnet.report(run, brief=True).out).read_text()


def check_card(
    run: Path, out: Path, cli: Cli, run_it: Callable[[str], None], **places: Path
) -> str:
    """Exports a run and executes what the card prints, its places filled in; the card."""
    assert cli("export", run, "--format", "safetensors", "--out", out)[0] == 0
    text = (out / "README.md").read_text()
    line = next(x for x in text.splitlines() if " train FOLDER/" in x)
    for name, place in {"FOLDER": out, **places}.items():
        line = line.replace(name, f"'{place}'" if "'" not in str(place) else f'"{place}"')
    run_it(line)
    again = Path(re.search(r"--run (\S+)", line)[1])  # type: ignore[index]
    assert identity(again) == identity(run)
    assert str(run.parent) not in text, "no place of this machine"
    assert identity(run)[2] in text
    named = re.findall(r"alexnet train (\S+)", text)
    assert named == ["FOLDER/certificate.json"]
    return text


def test_a_named_recipe_with_fields_changed(cli: Cli, idx_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    words = ("train", "digits", "--data", idx_folder, "--run", run, *PLAIN, "--dropout", 0.1)
    assert cli(*words, "--no-channels-last", "--schedule", "steps", "--drops", 1, 2)[0] == 0
    assert " train digits " in commands_of(run / "report.html")[0]
    check_page(run, partial(execute, cli=cli))


def test_a_chosen_recipe_with_another_network(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """The choice made its first layer of the images; with another network it learns."""
    run = tmp_path / "run"
    words = ("train", "--data", photos, "--model", "alexnet-28", "--run", run, *QUICK)
    assert cli(*words)[0] == 0
    check_page(run, partial(execute, cli=cli))
    check_card(run, tmp_path / "hub", cli, partial(execute, cli=cli), IMAGES=photos)


def test_an_edited_recipe(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Its name is that of a recipe of the book, and its data is written in it."""
    first, run = tmp_path / "first", tmp_path / "run"
    words = ("train", "photos", "--data", photos, "--run", first, *QUICK)
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        assert cli(*words, "--size", 36, "--crop", 32)[0] == 0
    text = (first / "recipe.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("\nlr = 0.002", "\nlr = 0.001").replace("\nwhiten = true", ""))
    assert cli("train", file, "--run", run, "--no-doctor")[0] == 0
    check_page(run, partial(execute, cli=cli))


def test_a_chosen_recipe_whose_file_was_edited_since(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    """The file is there to be edited; what it says then is another training. And flags would drop
    the first layer made of the images, since the network is not that of the recipe `photos`."""
    run = tmp_path / "run"
    words = ("train", "--data", photos, "--model", "patch-128", "--run", run, *QUICK)
    assert cli(*words)[0] == 0
    assert json.loads((run / "recipe.json").read_text())["recipe"]["whiten"] is True
    file = run / "recipe.toml"
    file.write_text(file.read_text().replace("\nseed = 0", "\nseed = 5"))
    new_page(run)
    check_page(run, partial(execute, cli=cli))


def test_a_fine_tuned_run(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Of the run that it began with it takes the network, not the crop; both are in the record."""
    first, run = tmp_path / "first", tmp_path / "tuned"
    other = write_tree(tmp_path / "other", classes=2, each=9, side=40)
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        assert cli("train", "--data", other, "--run", first, *QUICK)[0] == 0
    words = ("train", "--data", photos, "--init", first, "--run", run, *QUICK)
    assert cli(*words, "--crop", 30, "--freeze", "conv1")[0] == 0
    check_page(run, partial(execute, cli=cli))
    check_card(run, tmp_path / "hub", cli, partial(execute, cli=cli), IMAGES=photos, WEIGHTS=first)
    header = next(x for x in (run / "recipe.toml").read_text().splitlines() if "THIS_FILE" in x)
    line = header.partition("then: ")[2].replace("THIS_FILE", str(run / "recipe.toml"))
    execute(f"{line} --run {tmp_path / 'edited'}", cli)
    made = [
        json.loads((r / "recipe.json").read_text())["recipe"] for r in (run, tmp_path / "edited")
    ]
    assert made[1] == {**made[0], "data": str(photos)}
    assert identity(run)[2] == identity(tmp_path / "edited")[2]
    shutil.rmtree(first)
    assert "were not there when" in new_page(run)
    shutil.copytree(run, first, symlinks=True)
    assert "put the old ones back first" in new_page(run)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes. Read only."""
    folder = tmp_path_factory.mktemp("towers")
    data = write_tree(folder / "data", each=12)
    words = ["train", "cifar10", "--data", data, "--model", "alexnet-2012-32", *QUICK]
    words += ["--views", 1, "--precision", "fp32", "--towers", 2, "--run", folder / "run"]
    process = torchrun(2, words, folder / "log", OMP_NUM_THREADS="1")
    try:
        assert process.wait(250) == 0, (folder / "log").read_text()
        assert not members(process)
    finally:
        end(process)
    said = (folder / "log").read_text()
    assert said.count("2 processes, each a tower of 2: ") == 1
    assert "Warning" not in said
    return folder / "run"


def test_two_towers(towers: Path, tmp_path: Path, cli: Cli) -> None:
    line = commands_of(towers / "report.html")[0]
    assert "--nproc-per-node 2" in line
    assert "--towers 2" in line
    again = check_page(towers, in_a_shell)
    assert json.loads((again / "recipe.json").read_text())["call"]["towers"] == 2
    assert cli("export", towers, "--format", "safetensors", "--out", tmp_path / "hub")[0] == 0
    text = (tmp_path / "hub/README.md").read_text()
    assert "2 processes (2 towers) of 1 thread(s)" in text
    assert "--nproc-per-node 2 -m -- alexnet train FOLDER/certificate.json" in text


@pytest.mark.slow  # what the card prints is as the page has it above
def test_two_towers_by_their_card(towers: Path, tmp_path: Path, cli: Cli) -> None:
    check_card(towers, tmp_path / "hub", cli, in_a_shell, IMAGES=towers.parent / "data")


def test_threads_and_guard_that_a_run_had(photos: Path, tmp_path: Path, cli: Cli) -> None:
    """Two threads give other bits than one; a guard that was off does not stop the reproduction."""
    run = tmp_path / "run"
    with threads(2):
        assert cli("train", "photos", "--data", photos, "--run", run, *QUICK)[0] == 0
    words = commands_of(run / "report.html")[0].split()
    assert words[0] == "OMP_NUM_THREADS=2"
    assert words[words.index("--doctor") + 1] == "off"
    check_page(run, in_a_shell)


def test_a_run_that_was_continued_elsewhere_says_so(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    log = run / "metrics.jsonl"
    event = {"event": "resume", "step": 2, "changed": "threads was 2, is 1"}
    log.write_text(f"{json.dumps(event)}\n{log.read_text()}")
    assert "continued at step 2 under other conditions (threads was 2, is 1)" in new_page(run)


def test_imported_weights_are_imported_again(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "hub", tmp_path / "run"
    assert cli("export", trained, "--format", "safetensors", "--out", out)[0] == 0
    assert cli("import", out, "--run", run, "--size", 30)[0] == 0
    assert cli("report", run)[0] == 0
    (line,) = commands_of(run / "report.html")
    execute(line, cli)
    again = run.with_name("run-again-1")
    assert identity(again) == identity(run)
    assert cli("export", run, "--format", "safetensors", "--out", tmp_path / "card")[0] == 0
    text = (tmp_path / "card/README.md").read_text()
    assert "Imported, not trained here" in text
    assert "alexnet train" not in text


def test_none_and_nothing_are_words_of_the_command_line(
    cli: Cli, idx_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("seed-004", "--data", idx_folder, "--run", run, "-b", 16, "-j", 0, "--no-doctor")
    assert cli("train", *words, "--steps", "none", "--epochs", 0.05, "--dropout", "none")[0] == 0
    saved = json.loads((run / "recipe.json").read_text())["recipe"]
    assert (saved["steps"], saved["dropout"]) == (None, None)
    assert " --steps none" in commands_of(run / "report.html")[0]
    status, _, err = cli("train", "digits", "--dropout", "nothing")
    assert (status, len(err)) == (2, 1)
    assert "nothing" in err[0]


# The record of a recipe.


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["recipe"].update(lr=0.5), "was edited: its digest is"),
        (lambda r: r["recipe"].update(lr="high"), "lr is 'high'"),
        (lambda r: r.pop("recipe"), "records no recipe"),
        (lambda r: r.update(recipe=[1]), "records no recipe"),
    ],
)
def test_a_record_that_was_edited_is_refused(
    change: Any, why: str, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    record = json.loads((trained / "recipe.json").read_text())
    change(record)
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(record))
    status, _, err = cli("train", file)
    assert (status, len(err)) == (2, 1)
    assert why in err[0]
    assert str(file) in err[0]


@pytest.mark.parametrize("part", ["call", "init"])
@pytest.mark.parametrize("value", [[1], {"processes": "two", "path": 3}, "x"])
def test_an_edited_beginning_is_one_line(
    part: str, value: Any, cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    saved = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(saved | {part: value}))
    status, _, err = cli("report", run)
    assert (status, len(err)) == (2, 1)
    assert part in err[0]
