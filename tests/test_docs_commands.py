"""Every command of the README and the docs: its words are taken, and what is shown is what comes.

A block ```console is run, each page in a folder of its own, and the lines below a command must come
in that order (`...` stands for any). A mark before it says what it costs or needs:

    <!-- test: slow -->    minutes: in the slow tests, numbers may be others
    <!-- test: photos -->  the same, on other photos: only the first word of each line is held
    <!-- test: parse -->   needs a network, ImageNet or a server: only its words are read

Commands in other blocks and in running text are read too: verbs and flags must be there.
"""

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tests.test_structure import ROOT

from alexnet.cli import main
from conftest import write_tree

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"\d[\d,.]*(e[+-]?\d+)?")
DURATION = re.compile(r"(# (h|min) )*# (s|min)\b")  # of what NUMBER left of it


@dataclass(frozen=True)
class Block:
    page: Path
    mark: str
    kind: str
    text: str

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command with the lines shown below it."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and line.strip():
                found[-1][1].append(line.rstrip())
        return found


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text())
    return [Block(page, mark or "run", kind, text) for mark, kind, text in found]


ALL = [block for page in PAGES for block in blocks(page)]


def words_of(page: Path) -> Iterator[str]:
    """Every command on a page that begins with alexnet, make or pip."""
    text = page.read_text()
    for block in blocks(page):
        for line in block.text.splitlines():
            line = line.removeprefix("$ ").partition("  #")[0]
            if re.match(r"(alexnet|make|pip) ", line):
                yield line
    for inline in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)):
        if re.match(r"(alexnet [a-z]|make |pip )", inline):
            yield inline


def fault(line: str) -> str:
    """What is wrong with the words of a command; nothing is run."""
    line = line.replace("...", "").partition("|")[0].partition(" && ")[0].replace("\\", "")
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        names = [word for word in words if "=" not in word]
        return "" if set(names) <= set(targets) else f"no target of {names}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if program == "pip":
        named = {e for word in words for e in re.findall(r"\[(.+)\]", word)}
        return "" if named <= project["optional-dependencies"].keys() else f"no extra of {named}"
    verb = words[: 0 if words[:1] == [] or words[0][0] == "-" else 2 if words[0] == "data" else 1]
    known = flags_of(*verb)
    if known is None:
        return f"no verb {' '.join(verb)!r}"
    flags = [w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)]
    return ", ".join(flag for flag in flags if flag not in known)


@cache
def flags_of(*verb: str) -> frozenset[str] | None:
    """The flags in a verb's help; None where there is no such verb."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            status = main([*verb, "--help"])
        except SystemExit as end:
            status = int(end.code or 0)
    flags = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", said.getvalue())
    return None if status else frozenset({"--version", *flags})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_words_are_taken(page: Path) -> None:
    assert not {line: said for line in words_of(page) if (said := fault(line))}


def test_the_reading_can_fail() -> None:
    for line in (
        "alexnet trian digits",
        "alexnet train --epoch 3",
        "make dmeo",
        "pip install 'alexnet[serv]'",
        "alexnet data fetch mnist",
    ):
        assert fault(line), line
    for line in ("alexnet data get mnist", "make test", "alexnet train digits --epochs 3"):
        assert not fault(line), line


def test_marks_are_known() -> None:
    assert {block.mark for block in ALL} <= {"run", "slow", "photos", "parse"}
    marks = sum(page.read_text().count("<!-- test: ") for page in PAGES)
    assert marks == sum(len(re.findall("<!-- test: ", p.read_text())) for p in PAGES)
    assert len([b for b in ALL if b.kind == "console"]) >= 10


def run(block: Block, folder: Path) -> None:
    """Runs the commands of a block in this process, and holds what they print against what is
    shown."""
    for command, shown in block.commands:
        program, *words = shlex.split(command)
        if program == "pip":
            continue
        assert program == "alexnet", command
        said = io.StringIO()
        with contextlib.chdir(folder), redirect_stdout(said), redirect_stderr(said):
            try:
                status = main(words)
            except SystemExit as end:  # of --help and --version
                status = int(end.code or 0)
        came = [line.rstrip() for line in said.getvalue().splitlines()]
        assert status in (0, 1), said.getvalue()
        missing = first_missing(shown, came, block.mark)
        assert missing is None, f"{block.page.name}: `{command}` did not print {missing!r}: {came}"


def first_missing(shown: list[str], came: list[str], mark: str) -> str | None:
    """The first of the shown lines that does not come after those before it."""

    def key(line: str) -> str:
        if mark == "photos":
            return line.split()[0] if line.split() else ""
        if mark != "slow":
            return line
        return DURATION.sub("# s", NUMBER.sub("#", " ".join(line.split())))

    rest = iter([key(line) for line in came])
    for line in shown:
        if line.strip() != "..." and key(line) not in rest:
            return line
    return None


def test_what_is_shown_is_held_against_what_comes() -> None:
    came = ["a 1", "b 2", "c 3"]
    assert first_missing(["a 1", "...", "c 3"], came, "run") is None
    assert first_missing(["a 2"], came, "run") == "a 2"
    assert first_missing(["a 2"], came, "slow") is None
    assert first_missing(["in 5 min 47 s, a"], ["in 1 h 02 min, a"], "slow") is None
    assert first_missing(["in 5 min 47 s, a"], ["in 31 s, a"], "slow") is None
    assert first_missing(["in 5 min 47 s, a"], ["in 31 s, b"], "slow") is not None
    assert first_missing(["c 3", "a 1"], came, "slow") == "a 1"
    assert first_missing(["b other"], came, "photos") is None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_cheap_commands(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.kind == "console" and block.mark == "run":
            run(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Marked ones are run, in order, with the names of those before; others must be Python."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for found in re.finditer(BLOCK, page.read_text()):
        mark, kind, text = found.groups()
        if kind == "python":
            made = compile(text, page.name, "exec")
            if mark == "run":
                exec(made, names)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_slow_commands(page: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", classes=2, each=12, side=80)
    for block in blocks(page):
        if block.kind == "console" and block.mark in ("slow", "photos"):
            run(block, tmp_path)
