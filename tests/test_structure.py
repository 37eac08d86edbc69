"""What the source must stay: layered, and without the machine it was written on."""

import ast
import importlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import alexnet
from alexnet import cli

SOURCE = Path(alexnet.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of lower layers and of its own package; of its own layer nothing else.
LAYERS = (
    (
        "errors",
        "files",
        "interrupt",
        "terminal",
        "recipe",
        "memory",
        "launch",
        "processors",
        "region",
    ),
    ("runs",),
    ("runtime", "metrics", "models", "data", "diagnosis"),
    ("training",),
    ("analysis", "predict", "evaluation_set", "figures", "benches", "pages", "recipebook"),
    ("claims", "interchange"),
    ("serving",),
    ("commands", "cli", "flags", "verbs", "show", "__init__", "__main__"),
)
TOP = len(LAYERS) - 1  # L0 and the top import freely among themselves
EXCEPTIONS: set[tuple[str, str]] = set()

FLAGS = """
    --accumulate --amp --area --bad-images --bad-share --batch-size --bias-lr --channels
    --channels-last --class-weights --colour --colour-rule --colour-until --compile --crop
    --crop-chunk --cutmix --cutout --data --decay-biases --doctor --dropout --drops --early-stop
    --epochs --eval-batch --eval-every --final-lr --flip --flip-rule --freeze --help --init
    --json --keep --label-smoothing --log-every --lr --lr-batch --lr-factor --memory-gib
    --minutes --mixup --model --momentum --name --no-channels-last --no-compile
    --no-decay-biases --no-doctor --no-flip --no-whiten --normalize --opt --orient --part-lr
    --plateau-drops --plateau-patience --precision --resume --rotate --run --save-every --scale
    --schedule --seed --shift --size --split-seed --steps --stop-signal --tensorboard
    --test-fraction --towers --trust --val-fraction --views --wait-for-data --warmup-epochs
    --weight-decay --whiten --workers -b -h -j
"""


def unit(module: str) -> str:
    """The part of the package that a module belongs to: alexnet.data.fetch is of data."""
    return module.split(".")[1] if "." in module else "__init__"


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def module_name(file: Path, source: Path = SOURCE) -> str:
    parts = file.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, source: Path = SOURCE) -> Iterator[str]:
    """Every module a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: import by full name"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inner = source.parent.joinpath(*whole.split("."))
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield whole if is_module else node.module


def violations(file: Path, source: Path = SOURCE) -> list[tuple[str, str]]:
    own = unit(module_name(file, source))
    found = []
    for name in imports(file, source):
        if name.split(".")[0] != "alexnet":
            continue
        other = unit(name)
        free = other == own or (layer(own) == layer(other) and layer(own) in (0, TOP))
        if not free and layer(other) >= layer(own):
            found.append((module_name(file, source), name))
    return found


def test_every_file_has_a_layer() -> None:
    units = {unit(module_name(file)) for file in FILES}
    assert units == {name for names in LAYERS for name in names}


def test_lower_layers_import_no_upper_ones() -> None:
    found = {pair for file in FILES for pair in violations(file)}
    assert found == EXCEPTIONS


def test_the_import_test_can_fail(tmp_path: Path) -> None:
    (tmp_path / "alexnet/runs").mkdir(parents=True)
    file = tmp_path / "alexnet/runs/bad.py"
    for line, refused in (
        ("from alexnet.training.trainer import Trainer", "alexnet.training.trainer"),
        ("def f():\n    import alexnet.data.draws", "alexnet.data.draws"),
        ("from alexnet import metrics", "alexnet"),
        ("from alexnet.errors import UsageError", None),
        ("import torch", None),
    ):
        file.write_text(line)
        expected = [("alexnet.runs.bad", refused)] if refused else []
        assert violations(file, tmp_path / "alexnet") == expected


def import_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, in the order of its imports; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_circle() -> None:
    """Imports in functions, and those that only a type checker sees, count."""
    modules = {module_name(file) for file in FILES}
    graph = {module_name(file): modules.intersection(imports(file)) for file in FILES}
    assert len(graph) > 100
    assert import_circle(graph) == []
    assert import_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})


def test_a_class_name_has_one_meaning() -> None:
    places: dict[str, set[str]] = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(module_name(file))
    shared = {name: homes for name, homes in places.items() if len(homes) > 1}
    assert not shared


def test_only_figures_draws() -> None:
    drawing = {module_name(f) for f in FILES for n in imports(f) if n.startswith("matplotlib")}
    assert {unit(name) for name in drawing} == {"figures"}


def test_nothing_unpickles() -> None:
    users = {
        module_name(f)
        for f in FILES
        for n in imports(f)
        if n.split(".")[0] in ("pickle", "marshal", "shelve")
    }
    assert users <= {"alexnet.data.cifar", "alexnet.runs.weights"}
    for file in FILES:
        loads = file.read_text().count("torch.load(")
        assert loads == (module_name(file) == "alexnet.runs.weights"), file
        assert file.read_text().count("weights_only=True") == loads


def test_public_names_resolve() -> None:
    assert alexnet.__all__ == sorted(alexnet.__all__, key=lambda name: (name.islower(), name))
    for name in alexnet.__all__:
        value = getattr(alexnet, name)
        assert value.__doc__, name
        assert getattr(importlib.import_module(value.__module__), name) is value
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        alexnet.nonsense  # noqa: B018


def test_flags_of_train_are_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """A new flag is written down here; one that goes away or changes its name breaks scripts."""
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = re.findall(r"^  (-.*)$", capsys.readouterr().out, re.M)
    heads = [re.split(r"  +", line)[0] for line in shown]
    found = {word for head in heads for word in re.findall(r"(?<!\S)--?[a-z][a-z-]*", head)}
    assert sorted(found) == sorted(FLAGS.split())


def test_no_trace_of_the_machine() -> None:
    """No path of the place where this was written in any file that others get."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    words = [b"/wo" + b"rk/"]
    if place := os.environ.get("ALEXNET_SHARED"):
        words.append(os.fsencode(place))
    for name in filter(None, done.stdout.split("\0")):
        file = ROOT / name
        if file.is_file():
            content = file.read_bytes()
            assert not [word for word in words if word in content], name
