"""What the source must stay: layered, and without the machine it was written on."""

import ast
import importlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from inspect import ismodule
from pathlib import Path

import pytest

import alexnet
from alexnet import cli

SOURCE = Path(alexnet.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of lower layers and of its own package; of its own layer nothing else.
LAYERS = (
    ("errors", "support"),
    ("recipe",),
    ("records",),
    ("runs",),
    ("runtime", "metrics", "models", "data", "diagnosis"),
    ("training",),
    ("analysis", "predictor", "evaluation_set", "figures", "pages", "choice"),
    ("interchange",),
    ("serving",),
    ("commands",),
    ("lab",),
    ("cli", "__init__", "__main__"),
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


# Where private parts of torch, the C library and uvicorn may be used, and of which.
FENCES = {
    "alexnet.support.memory": {"ctypes"},  # mallopt of glibc
    "alexnet.support.region": {"ctypes", "torch"},
    "alexnet.models.fast.int8": {"torch"},
    "alexnet.models.fast.tracing": {"torch"},
    "alexnet.models.fast.update": {"torch"},
    "alexnet.serving.protocol": {"uvicorn"},
    "alexnet.training.compiled": {"torch"},  # the one kind of error that a compiler raises
}
# The base class of all batch norms, which has no other name.
COMMON = {"torch.nn.modules.batchnorm"}


def private_parts(tree: ast.AST) -> Iterator[str]:
    """Of which libraries a file uses private parts: an attribute or a module whose name begins with
    an underscore, also one named in a string; torch's registry of operations; ctypes; uvicorn's
    modules."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            place, name, *_ = node.args
            known = name.value if isinstance(name, ast.Constant) else ""
            names = [f"{ast.unparse(place)}.{known}"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module not in COMMON:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in filter(re.compile(r"[\w.]+").fullmatch, names):
            root, *parts = name.split(".")
            hidden = any(re.match("_[^_]|ops$", part) for part in parts)
            inside = (root == "torch" and hidden) or name.startswith("uvicorn.protocols")
            if inside or root == "ctypes":
                yield root


def test_private_parts_are_fenced() -> None:
    users: dict[str, set[str]] = {}
    for file in FILES:
        if found := set(private_parts(ast.parse(file.read_text()))):
            users[module_name(file)] = found
    assert users == FENCES


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("torch._C._len_torch_dispatch_stack()", "torch"),
        ("import torch._dynamo", "torch"),
        ("from torch._C import x", "torch"),
        ("getattr(torch, '_fused_sgd_', None)", "torch"),
        ("torch.ops.onednn.qlinear_prepack", "torch"),
        ("import ctypes", "ctypes"),
        ("from uvicorn.protocols.http.h11_impl import H11Protocol", "uvicorn"),
        ("import uvicorn\ntorch.nn.Linear\nself._x\ntorch.__version__", None),
    ],
)
def test_the_test_of_fences_can_fail(text: str, library: str | None) -> None:
    assert set(private_parts(ast.parse(text))) == ({library} if library else set())


# Functions whose result, or argument, is the content of a JSON file.
READERS = {"read_json", "parse_json", "loads"}
WRITERS = {"write_json", "to_json_text", "dumps", "log"}
# Modules that know keys of JSON which is no file of a run, a packed set or an export of ours.
KNOWS_KEYS = {
    ("alexnet.recipe.files", "recipe.json"),  # records stand on recipes; two keys are read here
    ("alexnet.interchange.hub", "config.json"),  # the keys are those of Hugging Face
    ("alexnet.lab.claims.study", "cells.json"),  # rows that a study makes up; nothing else reads it
}


def literal_keys(node: ast.AST, contents: set[str]) -> Iterator[str]:
    """The literal keys that a node takes from the content of a JSON file. `contents` are the names
    of variables with such a content."""

    def is_content(value: ast.expr) -> bool:
        if isinstance(value, ast.Call):
            named = ast.unparse(value.func).rpartition(".")[2]
            return named in READERS or (named == "to_json" and not value.args)
        return isinstance(value, ast.Name) and value.id in contents

    if isinstance(node, ast.Subscript) and is_content(node.value):
        places = [node.slice]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        reads = node.func.attr in ("get", "pop", "setdefault") and is_content(node.func.value)
        places = node.args[:1] if reads else []
    elif isinstance(node, ast.Compare) and is_content(node.comparators[0]):
        places = [node.left]
    else:
        places = []
    yield from (place.value for place in places
                if isinstance(place, ast.Constant) and isinstance(place.value, str))  # fmt: skip


def json_keys(tree: ast.AST) -> list[str]:
    """The literal keys of JSON files that a module reads or writes itself."""
    keys: list[str] = []
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        read, built = set[str](), dict[str, list[str]]()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [t.id for t in targets if isinstance(t, ast.Name)]
                called = node.value.func if isinstance(node.value, ast.Call) else None
                if called is not None and ast.unparse(called).rpartition(".")[2] in READERS:
                    read.update(names)
                for name in names:
                    built.setdefault(name, []).extend(dict_keys(node.value))
        for node in ast.walk(function):
            keys += literal_keys(node, read)
            if isinstance(node, ast.Call) and (
                ast.unparse(node.func).rpartition(".")[2] in WRITERS
            ):
                for argument in node.args:
                    named = argument.id if isinstance(argument, ast.Name) else ""
                    keys += [*dict_keys(argument), *built.get(named, [])]
    return keys


def dict_keys(value: ast.expr) -> list[str]:
    """The literal keys of a dictionary display, or of displays joined by |."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return [*dict_keys(value.left), *dict_keys(value.right)]
    nodes = value.keys if isinstance(value, ast.Dict) else []
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_only_records_know_the_keys_of_json_files() -> None:
    allowed = {name for name, _ in KNOWS_KEYS}
    found = {
        module_name(file): keys
        for file in FILES
        if unit(module_name(file)) != "records" and (keys := json_keys(ast.parse(file.read_text())))
    }
    assert found.keys() <= allowed, found
    assert found.keys() >= allowed, "an exception that nothing needs"


@pytest.mark.parametrize(
    "text",
    [
        "read_json(path)['step']",
        "values = files.read_json(path)\n    values.get('step')",
        "values = json.loads(data)\n    return 'step' in values",
        "write_json(path, {'step': 1})",
        "body = {'step': 1}\n    write_json(path, body)",
        "write_json(path, body | {'step': 1})",
        "run.log({'step': 1, **more})",
        "event.to_json()['step']",
    ],
)
def test_the_test_of_keys_can_fail(text: str) -> None:
    assert json_keys(ast.parse(f"def f():\n    {text}")) == ["step"]


def test_the_lab_uses_public_seams_and_only_the_command_line_uses_it() -> None:
    """Experiments import what packages export, modules beside packages, and support; only the
    command line and the names of `alexnet` itself import experiments."""
    for file in FILES:
        own = unit(module_name(file))
        if own != "lab":
            if any(unit(name) == "lab" for name in imports(file) if name.startswith("alexnet.")):
                assert layer(own) == TOP, file
            continue
        for module, name, _ in (
            t for node in ast.walk(ast.parse(file.read_text())) for t in taken(node)
        ):
            if unit(module) != "lab" and SOURCE.parent.joinpath(*module.split(".")).is_dir():
                assert is_open(module, name), f"{file}: {module}.{name}"
            elif unit(module) not in ("lab", "support"):
                assert module.count(".") == 1, f"{file}: {module}.{name}"


def test_nothing_unpickles() -> None:
    users = {
        module_name(f)
        for f in FILES
        for n in imports(f)
        if n.split(".")[0] in ("pickle", "marshal", "shelve")
    }
    assert users <= {"alexnet.data.arrays", "alexnet.runs.weights"}
    for file in FILES:
        loads = file.read_text().count("torch.load(")
        assert loads == (module_name(file) == "alexnet.runs.weights"), file
        assert file.read_text().count("weights_only=True") == loads


def test_public_names_resolve() -> None:
    assert alexnet.__all__ == sorted(alexnet.__all__, key=lambda name: (name.islower(), name))
    typed = {
        alias.name: node.module
        for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }  # what editors and type checkers see
    assert typed == {name: getattr(alexnet, name).__module__ for name in alexnet.__all__}
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


# Modules that write command lines, and no messages to who calls them.
WRITES_COMMANDS = {
    "alexnet.lab.claims.claim",
    "alexnet.lab.claims.tables",
    "alexnet.interchange.hub",
    "alexnet.support.options",
    "alexnet.recipe.flags",
}
OTHERS_FLAGS = "standalone|rdzv-backend|nproc-per-node"  # torchrun's


def flags_in_messages(text: str) -> list[str]:
    """Flags that strings spell by hand. A string that is a flag alone is a word of a command line,
    and the help of a recipe's field is for the command line only."""
    tree = ast.parse(text)
    documents = [n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)]
    helps = [
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_f"
        for part in ast.walk(node)
    ]
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node not in documents and node not in helps
        if not re.fullmatch(r"-?-[a-z-]+", node.value)
        if re.search(rf"(?<![\w-])--(?!{OTHERS_FLAGS})[a-z]", node.value)
    ]


def test_messages_name_options_as_the_caller_writes_them() -> None:
    """By `alexnet.support.options`: a Python caller has no flags."""
    found = {
        module_name(file): said
        for file in FILES
        if unit(module_name(file)) != "cli" and module_name(file) not in WRITES_COMMANDS
        if (said := flags_in_messages(file.read_text()))
    }
    assert found == {}
    assert flags_in_messages('raise UsageError(f"{path} is a run: add --resume")')


def test_every_verb_is_in_the_table() -> None:
    modules = {file.stem for file in (SOURCE / "cli").glob("*.py")} - {"__init__", "arguments"}
    assert sorted(cli.VERBS) == sorted(modules)


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


# Where tests stand: outside.

MOST_INSIDE = 25  # files of tests that may reach inside, each place with its reason
REASONS = ("# Deep because", "# Patched because")  # the comment above each of these places
OPEN = {"alexnet", "alexnet.cli", "alexnet.errors"}  # beside what packages export
IMPORT = re.compile(r"from alexnet[\w.]* import \w+(?:, \w+)*|import alexnet\.[\w.]*\w")
PATCHES = {"setattr", "delattr", "setitem", "delitem", "object", "patch"}


@dataclass(frozen=True)
class Place:
    """Where a test reaches inside: which lines, how, and whether the comment above says why."""

    line: int
    how: str
    what: str
    explained: bool


def is_open(module: str, name: str) -> bool:
    """Whether a test may take this name from there: a package's own, or of an open module."""
    if module == "alexnet":
        return not name or name in alexnet.__all__ or is_open(f"alexnet.{name}", "")
    if module in OPEN:
        return True
    home = SOURCE.parent.joinpath(*module.split("."))
    if not home.is_dir():
        return False
    package = importlib.import_module(module)
    own = [n for n, value in vars(package).items() if n[0] != "_" and not ismodule(value)]
    return not name or name in getattr(package, "__all__", own)


def taken(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(module, name in it, name here) of what an import statement takes from alexnet."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == "alexnet":
                yield alias.name, "", alias.asname or "alexnet"
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alexnet":
        for alias in node.names:
            yield node.module or "", alias.name, alias.asname or alias.name


def patched(node: ast.AST, ours: set[str]) -> str:
    """What of alexnet a statement's part puts something else in the place of, or nothing."""

    def of_alexnet(target: ast.expr) -> bool:
        if isinstance(target, ast.Constant):
            return str(target.value).startswith("alexnet.")
        while isinstance(target, ast.Attribute):
            target = target.value
        return isinstance(target, ast.Name) and target.id in ours

    if isinstance(node, ast.Call) and node.args:
        called = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
        if called in PATCHES and of_alexnet(node.args[0]):
            return ast.unparse(node.args[0])
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and of_alexnet(target):
                return ast.unparse(target)
    return ""


def reaches_inside(text: str) -> list[Place]:
    """Every deep import and every patch in the text of a test file, programs in strings too."""
    tree, lines, found = ast.parse(text), text.splitlines(), list[tuple[ast.stmt, str, str]]()
    ours = {here for node in ast.walk(tree) for *_, here in taken(node)}
    for statement in (node for node in ast.walk(tree) if isinstance(node, ast.stmt)):
        parts = list(parts_of(statement))
        imported = [(m, n) for part in parts for m, n, _ in taken(part)]
        texts = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
        for line in IMPORT.findall("\n".join(texts)):
            imported += [(m, n) for m, n, _ in taken(ast.parse(line).body[0])]
        for module, name in imported:
            if not is_open(module, name):
                found.append((statement, "import", f"{module}.{name}".rstrip(".")))
        for what in filter(None, (patched(part, ours) for part in parts)):
            found.append((statement, "patch", what))
    starts = {s.lineno: s.end_lineno or s.lineno for s, *_ in found}

    def reason(line: int) -> str:
        """The first line of the comment above, or above the places that stand before without a
        line between."""
        above = line - 1
        if before := [start for start, end in starts.items() if end == above and start < line]:
            return reason(before[0])
        while above and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        return lines[above].strip()

    return [
        Place(s.lineno, how, what, reason(s.lineno).startswith(REASONS)) for s, how, what in found
    ]


def parts_of(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement and what is in it, without the statements in it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("import alexnet\nfrom alexnet import cli, commands, diagnose", ""),
        ("from alexnet.data import Split\nfrom alexnet.errors import UsageError", ""),
        ("from alexnet import runtime", "alexnet.runtime"),
        ("from alexnet.data import loader", "alexnet.data.loader"),
        ("def f():\n    import alexnet.data.draws as draws", "alexnet.data.draws"),
        ("code = 'import os; from alexnet.data.splits import Split'", "alexnet.data.splits.Split"),
        ("# Deep because so.\n# It is.\nfrom alexnet.data.splits import Split", ""),
        ("from alexnet import data\nmonkeypatch.setattr(data.loader, 'feed', f)", "data.loader"),
        ("monkeypatch.setattr('alexnet.data.loader.feed', f)", "'alexnet.data.loader.feed'"),
        ("from alexnet.data import Split\nSplit.read = f", "Split.read"),
        ("# Patched because so.\npatch('alexnet.a.b')\npatch('alexnet.a.c')", ""),
        ("# Patched because so.\n\nmock.patch('alexnet.a.b')", "'alexnet.a.b'"),
        ("monkeypatch.setattr(os, 'replace', f)\nCLAIMS['own'] = own", ""),
    ],
)
def test_the_test_of_tests_can_fail(text: str, inside: str) -> None:
    found = [place.what for place in reaches_inside(text) if not place.explained]
    assert found == [inside] * bool(inside)


def test_tests_stand_outside() -> None:
    """They use the command line, `import alexnet`, files and what packages export; where a fault
    can be made no other way the comment above says so, and few files have such a place."""
    inside: dict[str, list[Place]] = {}
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if file.name != "test_structure.py" and (places := reaches_inside(file.read_text())):
            inside[str(file.relative_to(ROOT))] = places
    unexplained = [
        f"{file}:{place.line}: {place.how} of {place.what}"
        for file, places in inside.items()
        for place in places
        if not place.explained
    ]
    assert not unexplained, "\n".join(unexplained)
    assert len(inside) <= MOST_INSIDE, "\n".join(inside)
