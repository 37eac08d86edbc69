"""Calls from Python: what an editor refuses, and errors in the words of a Python caller."""

import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

import alexnet
from alexnet.cli import main
from alexnet.errors import AlexNetError, UsageError
from alexnet.recipe import Recipe, RecipeOverrides
from shell import Cli
from shell import clean_folder as clean_folder  # around every test here
from shell import cli as cli
from shell import run as run

SOURCE = Path(alexnet.__file__).parents[1]
CHECKED = """[mypy]
cache_dir = /dev/null
[mypy-alexnet.*]
follow_imports = silent
[mypy-torch.*,numpy.*,matplotlib.*,PIL.*,rich.*,safetensors.*,shtab.*,jinja2.*]
follow_imports = skip
"""

RIGHT = """
alexnet.train("digits", epochs=1, drops=[0.5], data="folder", doctor="off")
alexnet.doctor("digits", lr=0.1)
alexnet.inspect("run", "filters", part="conv1")
alexnet.import_weights("file", crop=224, normalize="mean")
alexnet.test("run", precision="bf16", engine="int8")
"""
WRONG = {
    'alexnet.train("digits", epoch=1)': 'Unexpected keyword argument "epoch"',
    'alexnet.train("digits", epochs="ten")': 'Argument "epochs" to "train" has incompatible type',
    'alexnet.train("digits", doctor="maybe")': 'Argument "doctor" to "train"',
    'alexnet.doctor("digits", rate=0.1)': 'Unexpected keyword argument "rate"',
    'alexnet.inspect("run", "filter")': 'Argument 2 to "inspect"',
    'alexnet.import_weights("file", crop="3")': 'No overload variant of "import_weights"',
    'alexnet.test("run", precision="fp16")': 'No overload variant of "test"',
}


def test_a_type_checker_sees_wrong_calls(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(CHECKED)
    (tmp_path / "right.py").write_text(f"import alexnet\n{RIGHT}")
    (tmp_path / "wrong.py").write_text("\n".join(["import alexnet", *WRONG]))
    words = ["-m", "mypy", "--strict", "--config-file", "mypy.ini", "right.py", "wrong.py"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True,
        env={"MYPYPATH": str(SOURCE), "PATH": ""},
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    for number, says in enumerate(WRONG.values(), 2):  # an overloaded function has two errors
        assert any(says in e for e in errors if e.startswith(f"wrong.py:{number}:")), done.stdout
    assert all(line.startswith("wrong.py:") for line in errors), done.stdout


def test_overrides_are_the_fields_of_a_recipe() -> None:
    """But for the data, which is an argument of its own; lists may stand for tuples."""
    fields = typing.get_type_hints(Recipe)
    overrides = typing.get_type_hints(RecipeOverrides)
    assert {f.name for f in dataclasses.fields(Recipe)} == {*overrides, "data"}
    for name, hint in overrides.items():
        if typing.get_origin(fields[name]) is tuple:
            assert hint == fields[name] | list[typing.get_args(fields[name])[0]], name  # type: ignore[misc]
        else:
            assert hint == fields[name], name


def test_the_command_line_names_what_can_be_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    hint = typing.get_type_hints(alexnet.inspect)["what"]
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    assert f"WHAT {', '.join(typing.get_args(hint))} " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: alexnet.train("digits", epoch=1),
            "train takes no 'epoch': did you mean 'epochs'?",
        ),
        (lambda: alexnet.train(resum=True), "train takes no 'resum': did you mean 'resume'?"),
        (lambda: alexnet.doctor(second=1), "doctor takes no 'second': did you mean 'seconds'?"),
    ],
)
def test_misspelt_options_get_the_nearest(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == says


# The same mistake from Python and on the command line, and how each is told the way out.
MISTAKES: list[tuple[Callable[[Path], object], list[str], str, str]] = [
    (lambda r: alexnet.train("digits", run=r), ["train", "digits", "--run", "RUN"],
     "add resume=True to continue it or choose another run=...",
     "add --resume to continue it or choose another --run"),
    (lambda r: alexnet.train(resume=True, minutes=3), ["train", "--resume", "--minutes", "3"],
     "minutes=... chooses a recipe, and resume=True keeps",
     "--minutes chooses a recipe, and --resume keeps"),
    (lambda r: alexnet.train("digits", crop=64), ["train", "digits", "--crop", "64"],
     "(size=64) or cut smaller ones (crop=28)", "(--size 64) or cut smaller ones (--crop 28)"),
    (lambda r: alexnet.train(schedule="steps"), ["train", "digits", "--schedule", "steps"],
     "as drops=(20, 30)", "as --drops 20 30"),
    (lambda r: alexnet.train("digits", steps=3, warmup_epochs=20.0, run="w"),
     ["train", "digits", "--steps", "3", "--warmup-epochs", "20", "--run", "w"],
     "steps=3 end within it", "--steps 3 end within it"),
    (lambda r: alexnet.train("digits", batch_size=100_000), ["train", "digits", "-b", "100000"],
     "batch_size=", "use --batch-size "),
    (lambda r: alexnet.train("digits", data="mnist"), ["train", "digits", "--data", "mnist"],
     "`alexnet.data_get('mnist')` fetches it, or data=DIR names a folder",
     "`alexnet data get mnist` fetches it, or --data DIR names a folder"),
    (lambda r: alexnet.train(init="none.pth"), ["train", "--init", "none.pth"],
     "init='none.pth': no such", "--init none.pth: no such"),
    (lambda r: alexnet.test(r, split="all"), ["test", "RUN", "--split", "all"],
     "split='all' is for images of data=...", "--split all is for images of --data"),
    (lambda r: alexnet.test(r, certificate=True, with_seen=True),
     ["test", "RUN", "--certificate", "--with-seen"], "leave with_seen=... out",
     "leave --with-seen out"),
    (lambda r: alexnet.test("none"), ["test", "none"],
     "make one with `alexnet.train(run='none')`", "make one with `alexnet train --run none`"),
    (lambda r: alexnet.export(r, format="torchvision", out="f", int8=True),
     ["export", "RUN", "--format", "torchvision", "--out", "f", "--int8"],
     "int8=True: torchvision is not quantised; use format='onnx'",
     "--int8: torchvision is not quantised; use --format onnx"),
    (lambda r: alexnet.inspect(r, "filters", count=3),
     ["inspect", "RUN", "filters", "--count", "3"],
     "takes no count=...: it takes part=...", "takes no --count: it takes --part"),
    (lambda r: alexnet.report(r, out="x.pdf"), ["report", "RUN", "--out", "x.pdf"],
     "out='x.pdf': the report", "--out x.pdf: the report"),
    (lambda r: alexnet.recipes(diff="mnist"), ["recipes", "--diff", "mnist"],
     "diff=... needs two: `alexnet.recipes(NAME, diff='mnist')`",
     "--diff needs two: `alexnet recipes NAME --diff mnist`"),
    (lambda r: alexnet.import_weights(r / "checkpoints/last/model.safetensors"),
     ["import", "RUN/checkpoints/last/model.safetensors"], "as model='alexnet-2014'",
     "as --as alexnet-2014"),
    (lambda r: alexnet.serve(r, host="0.0.0.0"), ["serve", "RUN", "--host", "0.0.0.0"],
     "other machines can reach host='0.0.0.0': add a token=...",
     "other machines can reach --host 0.0.0.0: add a --token"),
    (lambda r: alexnet.train("digits", stop_signal="SIGNOPE"),
     ["train", "digits", "--stop-signal", "SIGNOPE"], "SIGNOPE", "SIGNOPE"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "argv", "python", "shell"), MISTAKES)
def test_errors_speak_the_language_of_the_call(
    call: Callable[[Path], object], argv: list[str], python: str, shell: str, run: Path, cli: Cli
) -> None:
    with pytest.raises(AlexNetError) as caught:
        call(run)
    assert python in str(caught.value)
    assert not re.search(r"(?<!\w)--[a-z]", str(caught.value))
    status, _, said = cli(*(word.replace("RUN", str(run)) for word in argv))
    assert status == 2
    assert shell in said[-1]
    with pytest.raises(AlexNetError) as caught:  # Python's again, once the command has ended
        call(run)
    assert python in str(caught.value)
