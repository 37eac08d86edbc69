"""Figures of the structure of source trees, a column for each tree.

    python scripts/house.py TREE [TREE ...]

An import from a package counts as an import of the module where the name is defined; an `__init__`
only passes names on, and is not counted. A circle is a strongly connected component of modules, by
all imports, also those in functions and for type checkers. A test file reaches inside where it
imports anything but the command line, errors, recipes and exports of packages, or where it patches.
"""

import ast
import symtable
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

Graph = dict[str, set[str]]
OPEN = {"alexnet.cli", "alexnet.errors"}  # modules that tests may import


class House:
    """The parsed modules of src/alexnet, with their imports."""

    def __init__(self, tree: Path) -> None:
        files = {
            ".".join(f.relative_to(tree / "src").with_suffix("").parts).removesuffix(".__init__"): f
            for f in (tree / "src/alexnet").rglob("*.py")
        }
        self.packages = {name for name, file in files.items() if file.stem == "__init__"}
        self.texts = {name: file.read_text() for name, file in files.items()}
        self.modules = {name: ast.parse(text) for name, text in self.texts.items()}
        self.tests = {f.name: ast.parse(f.read_text()) for f in (tree / "tests").rglob("*.py")}

    @cached_property
    def exports(self) -> dict[str, str]:
        """The exports of packages: package.name -> the module that defines the name, or is it."""
        return {
            f"{package}.{alias.asname or alias.name}": self.home(node.module, alias.name, {})
            for package in self.packages
            for node in ast.walk(self.modules[package])
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def home(self, module: str, name: str, exports: dict[str, str]) -> str:
        """The module that defines the name in `from module import name`."""
        full_name = f"{module}.{name}"
        return exports.get(full_name) or (full_name if full_name in self.modules else module)

    def imported(self, tree: ast.AST) -> Iterator[str]:
        """The modules that a tree imports."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (self.home(node.module, a.name, self.exports) for a in node.names)

    @cached_property
    def imports(self) -> Graph:
        inner = self.modules.keys() - self.packages
        return {name: {*self.imported(self.modules[name])} & inner - {name} for name in inner}

    def reaches_inside(self, tree: ast.AST) -> bool:
        """Whether a test imports something that no package exports, or patches."""
        named = [(n.module, a.name) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
                 for a in n.names]  # fmt: skip
        homes = {m if f"{m}.{n}" in self.exports else self.home(m or "", n, {}) for m, n in named}
        homes |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        return bool(homes & self.modules.keys() - self.packages - OPEN) or count_patches(tree) > 0


def count_patches(tree: ast.AST) -> int:
    """The number of patches by fixtures: of an attribute, or of a module in sys.modules."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args]
    heads = [(ast.unparse(n.func).rpartition("."), ast.unparse(n.args[0])) for n in calls]
    return sum(
        (bool(owner) and verb in ("setattr", "delattr"))
        or (verb in ("setitem", "delitem") and first == "sys.modules")
        for (owner, _, verb), first in heads
    )


def count_circles(graph: Graph) -> int:
    """The number of strongly connected components of more than one module."""

    def reachable(start: str) -> set[str]:
        reached, waiting = set[str](), [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - reached
            reached, waiting = reached | new, [*waiting, *new]
        return reached

    after = {name: reachable(name) for name in graph}
    components = {frozenset(n for n in after[name] if name in after.get(n, ())) for name in graph}
    return sum(len(component) > 1 for component in components)


def between_packages(graph: Graph) -> Graph:
    """The imports between packages, and modules beside them, of the imports between modules."""
    packages: Graph = {name.split(".")[1]: set() for name in graph}
    for name, imported in graph.items():
        package = name.split(".")[1]
        packages[package] |= {n.split(".")[1] for n in imported} - {package}
    return packages


def count_outer_names(table: symtable.SymbolTable, within: bool = False) -> Iterator[int]:
    """For each inner function, the number of variables of outer functions that it uses."""
    is_function = isinstance(table, symtable.Function)
    if is_function and within and table.get_name() not in ("lambda", "listcomp", "genexpr"):
        yield sum(symbol.is_free() for symbol in table.get_symbols())
    for child in table.get_children():
        yield from count_outer_names(child, within or is_function)


def figures(house: House) -> dict[str, int]:
    importers = Counter(name for imported in house.imports.values() for name in imported)
    functions = [n for tree in house.modules.values() for n in ast.walk(tree)
                 if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]  # fmt: skip
    lengths = [(f.end_lineno or f.lineno) - f.lineno + 1 for f in functions]
    signatures = [ast.unparse(f.args) + ast.unparse(f.returns or f.args) for f in functions]
    outer = [n for name, text in house.texts.items()
             for n in count_outer_names(symtable.symtable(text, name, "exec"))]  # fmt: skip
    tests = [tree for name, tree in house.tests.items() if name.startswith("test_")]
    return {
        "files under src/alexnet": len(house.modules),
        "lines under src/alexnet": sum(len(text.splitlines()) for text in house.texts.values()),
        "modules with a single importer": sum(importers[name] == 1 for name in house.imports),
        "circles between modules": count_circles(house.imports),
        "circles between packages and modules beside them": count_circles(
            between_packages(house.imports)
        ),
        "functions over 100 lines": sum(n > 100 for n in lengths),
        "inner functions with 6 or more outer names": sum(n >= 6 for n in outer),
        "signatures with dict[str, Any]": sum("dict[str, Any]" in s for s in signatures),
        "test files": len(tests),
        "test files that reach inside": sum(house.reaches_inside(tree) for tree in tests),
        "lines of tests that patch": sum(map(count_patches, house.tests.values())),
    }


def main(trees: list[str]) -> None:
    columns = {tree: figures(House(Path(tree))) for tree in trees}
    rows = [("", [*columns])]
    rows += [(key, [f"{f[key]:,}" for f in columns.values()]) for key in columns[trees[0]]]
    for name, cells in rows:
        padded = [f"{cell:>{max(7, len(tree))}}" for cell, tree in zip(cells, trees, strict=True)]
        print(f"{name:<49}", *padded)


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit("usage: python scripts/house.py TREE [TREE ...]"))
