"""The package as people get it: version, types, a light import, wheel and sdist, completion."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from tests.test_structure import ROOT

import alexnet
from alexnet import cli

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = ("torch", "numpy", "matplotlib", "PIL", "rich", "safetensors", "shtab")


def test_one_version_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """pyproject, CITATION.cff and the newest dated heading of the changelog; a tag of this."""
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    headings = re.findall(
        r"^## \[(\d.*?)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    citation = (ROOT / "CITATION.cff").read_text()
    assert headings[0][0] == version
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {headings[0][1]}\n" in citation
    tags = subprocess.run(
        ["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert [tag for tag in tags if tag.startswith("v")] in ([], [f"v{version}"])
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert (done.value.code, capsys.readouterr().out) == (0, f"{alexnet.__version__}\n")


def test_typed() -> None:
    assert (Path(alexnet.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("what", ["import alexnet", "import alexnet.cli"])
def test_importing_is_light_and_says_nothing(what: str) -> None:
    """What takes time is imported when it is used; warnings are errors."""
    code = f"{what}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# Completion.


def completed(lines: list[list[str]], folder: Path, script: str) -> list[list[str]]:
    """What bash offers for the last word of each line."""
    (folder / "completion.bash").write_text(script)
    asked = [
        "source completion.bash",
        "offer=$(complete -p alexnet | sed 's/.*-F \\([^ ]*\\) .*/\\1/')",
    ]
    for line in lines:
        words = " ".join(f"'{word}'" for word in line)
        asked += [f"COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; COMPREPLY=(); $offer"]
        asked += ['printf "%s " "${COMPREPLY[@]}"; echo']
    done = subprocess.run(
        ["bash", "-c", "\n".join(asked)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_completes_verbs_flags_values_and_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out  # as a shell evaluates it
    (tmp_path / "photos").mkdir()
    lines = [
        ["alexnet", "tra"],
        ["alexnet", "data", "pa"],
        ["alexnet", "train", "--opt", "ad"],
        ["alexnet", "train", "cifar"],
        ["alexnet", "train", "--cl"],
        ["alexnet", "train", "--data", "ph"],
    ]
    *exact, flags, folders = completed(lines, tmp_path, script)
    assert exact == [
        ["train"], ["pack"], ["adam", "adamw"], ["cifar10", "cifar10-fast", "cifar10-long"],
    ]  # fmt: skip
    assert "--class-weights" in flags
    assert folders[0].rstrip("/") == "photos"


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_them_too(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "alexnet.fish").write_text(alexnet.completion("fish")["script"])
    lines = (
        "tra",
        "data pa",
        "train --class-w",
        "train --opt ada",
        "train fash",
        "train --data ph",
    )
    asked = [f"complete -C 'alexnet {line}'" for line in lines]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "; ".join(("source alexnet.fish", *asked))],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert offered == [
        "train",
        "pack",
        "--class-weights",
        "adam",
        "adamw",
        "fashion-mnist",
        "photos/",
    ]


def test_the_quickstart_says_how_as_the_command_does() -> None:
    quickstart = (ROOT / "docs" / "quickstart.md").read_text()
    for shell in ("bash", "zsh", "fish", "tcsh"):
        assert f"\n{alexnet.completion(shell).how}\n" in quickstart


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_have_a_script(shell: str) -> None:
    assert "alexnet" in alexnet.completion(shell).script


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "nushell"]) == 2
    assert "bash" in capsys.readouterr().err


# Wheel and sdist.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from the sdist, as an index would have both."""
    for name in ("build", "hatchling"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install '.[dev]'")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_wheel_and_sdist_hold_what_they_should(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    version = PROJECT["version"]
    assert {n.split("/")[0] for n in names} == {"alexnet", f"alexnet-{version}.dist-info"}
    source = ROOT / "src"
    expected = {str(f.relative_to(source)) for f in source.rglob("*.py")} | {"alexnet/py.typed"}
    assert expected <= set(names)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "tests/conftest.py",
        "constraints.txt",
        "Makefile",
        "docs/index.md",
        "CITATION.cff",
        "examples/slurm.sh",
    ):
        assert name in inside


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("extra", ["", *sorted(PROJECT["optional-dependencies"])])
def test_the_wheel_installs_in_an_empty_environment(
    built: Path, extra: str, tmp_path: Path
) -> None:
    """The core alone and each extra alone, from the index that pip is set to."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    command = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", what]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    words = ["-W", "error", "-m", "alexnet", "recipes", "alexnet-2012", "--json"]
    done = subprocess.run([python, *words], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"parameters": 60965224' in done.stdout
