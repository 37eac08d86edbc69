"""The command line in a test: run in an empty folder, on a run that may be damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli import main
from conftest import without_pictures

QUICK = ["--steps", "2", "--batch-size", "8", "--workers", "0", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def clean_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test runs in an empty folder, where what is left behind can be seen."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


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


def forget_after(run: Path, step: int) -> None:
    """Leaves a run as a kill after a step does, whose checkpoints were all kept."""
    for folder in (run / "checkpoints").glob("step-*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    for name in ("last", "best"):
        (run / "checkpoints" / name).unlink()
        (run / "checkpoints" / name).symlink_to(f"step-{step}")


def copy_place(source: Path, target: Path) -> Path:
    """Copies data/ and run/, trained on it; the copied run is of the copied data."""
    shutil.copytree(source / "data", target / "data")
    shutil.copytree(source / "run", target / "run", symlinks=True)
    saved = json.loads((target / "run/recipe.json").read_text())
    saved["data"]["path"] = str(target / "data")
    (target / "run/recipe.json").write_text(json.dumps(saved))
    return target
