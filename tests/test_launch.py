"""Whether a process is one of several is read in one place: all of torchrun's words, or none."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import alexnet
from alexnet.errors import UsageError
from old_runs import make_digits
from shell import Cli, clean_folder, cli, one_object

__all__ = ["clean_folder", "cli"]
pytestmark = pytest.mark.usefixtures("no_page")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OF_OTHERS = dict(zip(VARIABLES, ("1", "2", "1", "127.0.0.1", "29511"), strict=True))
OF_ITSELF = dict(zip(VARIABLES, ("0", "1", "0", "127.0.0.1", "29511"), strict=True))
SUBSETS = [s for n in range(6) for s in itertools.combinations(VARIABLES, n)]
TRAIN = ["train", "digits", "--model", "cuda-convnet-18", "--size", "12", "--crop", "12",
         "--batch-size", "16", "--precision", "fp32", "--workers", "0", "--steps", "1",
         "--doctor", "off"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder)
    return folder


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def put(names: Sequence[str], values: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    for name in names:
        patch.setenv(name, values[name])


@pytest.mark.parametrize("names", [s for s in SUBSETS if len(s) < 5], ids="+".join)
@pytest.mark.parametrize("empty", [False, True])
def test_part_of_them_that_speaks_of_others_is_refused(
    names: tuple[str, ...], empty: bool, monkeypatch: pytest.MonkeyPatch, data: Path, cli: Cli
) -> None:
    """Whatever the verb, by the command line and by the functions; nothing is trained."""
    put(names, OF_OTHERS, monkeypatch)
    missing = [name for name in VARIABLES if name not in names]
    if empty:
        put(missing, dict.fromkeys(VARIABLES, ""), monkeypatch)
    speaks = {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & set(names)
    status, out, err = cli("recipes", "digits", "--json")
    if not speaks:
        assert (status, err) == (0, [])
        assert one_object(out)
        return
    assert (status, len(err)) == (2, 1)
    assert "error" in one_object(out)
    for words in (["test", "run"], [*TRAIN, "--data", data, "--run", "run"]):
        status, out, err = cli(*words)
        assert (status, out, len(err)) == (2, "", 1)
        for name in names:
            assert f"{name}={OF_OTHERS[name]}" in err[0]
        assert f"without {', '.join(missing)}: start with torchrun" in err[0]
    assert not Path("run").exists()
    for call in (
        lambda: alexnet.train("digits", data=data, run="run"),
        lambda: alexnet.test("run"),
    ):
        with pytest.raises(UsageError, match="one of several processes"):
            call()
    assert not Path("run").exists()


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_those_that_speak_of_no_other_are_no_matter(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    put(names, OF_ITSELF, monkeypatch)
    status, out, err = cli("recipes", "digits", "--json")
    assert (status, err) == (0, [])
    assert one_object(out)


@pytest.mark.parametrize(
    "names", [(), ("MASTER_ADDR", "MASTER_PORT"), ("RANK",), VARIABLES], ids=len
)
def test_one_process_trains_aloud(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, data: Path, cli: Cli
) -> None:
    put(names, OF_ITSELF, monkeypatch)
    status, out, err = cli(*TRAIN, "--data", data, "--run", "run", "--json")
    assert status == 0, err
    assert one_object(out)["step"] == 1
    assert any("images to train on" in line for line in err)
    assert json.loads(Path("run/environment.json").read_text())["processes"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANK", "x"),
        ("RANK", "-1"),
        ("RANK", "2"),
        ("RANK", "1.0"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "two"),
        ("WORLD_SIZE", "1"),
        ("LOCAL_RANK", "-1"),
        ("LOCAL_RANK", "2"),
    ],
)
def test_all_of_them_that_contradict_each_other_are_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, data: Path, cli: Cli
) -> None:
    put(VARIABLES, {**OF_OTHERS, name: value}, monkeypatch)
    for words in (["recipes"], ["test", "run"], [*TRAIN, "--data", data, "--run", "run"]):
        status, out, err = cli(*words)
        assert (status, out, len(err)) == (2, "", 1)
        assert f"{name}={value}" in err[0]
        assert "whole numbers from 0 to WORLD_SIZE - 1" in err[0]


@pytest.mark.parametrize(("name", "value"), [("RANK", "x"), ("LOCAL_RANK", "-1")])
def test_a_variable_of_some_other_program_is_no_matter(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setenv(name, value)
    status, out, err = cli("recipes", "digits")
    assert (status, err) == (0, [])
    assert out


def test_verbs_of_one_process_are_refused_among_several(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    put(VARIABLES, OF_OTHERS, monkeypatch)
    assert cli("recipes") == (2, "", [])  # of the second; the first one says it
    monkeypatch.setenv("RANK", "0")
    status, out, err = cli("recipes")
    assert (status, out, len(err)) == (2, "", 1)
    assert "runs in one process, and torchrun started more" in err[0]


def test_a_rank_alone_in_a_shell(data: Path, tmp_path: Path) -> None:
    """The real command: it trained, printed nothing and ended with 0."""
    words = [*TRAIN, "--data", str(data), "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "alexnet", *words],
        env={**os.environ, "RANK": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "alexnet: RANK=1 in the environment: this is one of several processes"
    )
