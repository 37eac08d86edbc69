"""Generates the parts of docs/ that describe the code, so that they agree with it.

    python -m scripts.docs [--check]

These are the table of docs/paper.md, docs/architecture.md with its diagram, and the picture that
compares the AlexNets. With --check nothing is written, and the exit status is 1 where a file is
out of date.
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from scripts.pictures import flow, presets
from scripts.results import RESULTS, replace_between
from tests.test_structure import FILES, LAYERS, SOURCE, module_name, unit

import alexnet
from alexnet.lab.claims.verb import listing
from alexnet.support.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

# Sections of the paper: number, topic, and the code that implements it.
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("abstract", "The network and its size", ("alexnet.models.family.alexnet_2012",)),
    ("1", "Introduction", ()),
    ("2", "The images: ILSVRC, 256 pixels, the mean subtracted", (
        "alexnet.data.ilsvrc.official", "alexnet.data.images.decode_image",
        "alexnet.data.statistics.measure_statistics", "alexnet.data.augment.Preprocess")),
    ("3.1", "ReLU", ("alexnet.models.layers.ReLU",)),
    ("3.2", "Two towers", ("alexnet.models.layers.Conv",)),
    ("3.3", "Local response normalisation", ("alexnet.models.norm.response_norm",)),
    ("3.4", "Overlapping pooling", ("alexnet.models.layers.Pool",)),
    ("3.5", "The architecture", ("alexnet.models.family.alexnet_2012", "alexnet.models.net.Net")),
    ("4", "Overfitting", ()),
    ("4.1", "Crops, mirrors, colour noise; ten views", (
        "alexnet.data.augment.augment", "alexnet.data.augment.Preprocess.views",
        "alexnet.data.augment.colour_noise")),
    ("4.2", "Dropout", ("alexnet.models.layers.Dropout",)),
    ("5", "Learning: the update, the first weights, the schedule", (
        "alexnet.training.optim.PaperSGD", "alexnet.training.schedule.Watch",
        "alexnet.training.step.train_step", "alexnet.recipe.shipped.paper_2012")),
    ("6", "Results, tables 1 and 2", ("alexnet.training.evaluate.predict_views",)),
    ("6.1", "What it has learnt: figures 3 and 4", (
        "alexnet.analysis.kernels.tower_scores", "alexnet.analysis.neighbours.nearest_neighbours")),
    ("7", "Depth", ()),
)  # fmt: skip
SECTION_OF = {  # figures and tables
    "figure 1": "3.1", "figure 2": "3.5", "figure 3": "6.1", "figure 4": "6.1", "table": "6"
}  # fmt: skip
ELSEWHERE = "elsewhere"  # the section of claims that others make about the paper

# Arrows of the diagram: start and end, and the verbs on it, each with names that its module must
# use. An arrow without an end is for verbs beside the diagram.
ARROWS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    ("mirrors", "raw", {"data_get": ("fetch",)}),
    ("raw", "raw", {"data_check": ("check",)}),
    ("raw", "packed", {"data_pack": ("open_image_set", "pack_images")}),
    ("packed", "run", {"train": ("choose", "open_dataset", "run_plan", "RunDir")}),
    ("foreign", "run", {"import_weights": ("read_net", "save_checkpoint", "RunDir")}),
    ("run", "run", {"test": ("load", "open_evaluation_set"), "doctor": ("open_dataset", "RunDir")}),
    ("run", "page", {"report": ("report_page",), "inspect": ("InspectedRun",)}),
    ("run", "answers", {"classify": ("load",), "serve": ("InspectedRun", "with_engine")}),
    ("run", "file", {"export": ("load", "FORMATS")}),
    (
        "",
        "",
        {
            "recipes": ("RECIPES",),
            "bench": ("bench_input",),
            "claim": ("CLAIMS",),
            "completion": ("make_parser",),
        },
    ),
)


NO_VERBS = {"Predictor", "build_model", "diagnose", "load", "response_norm"}


def paper_table() -> str:
    """The table of docs/paper.md: a row for each section, with its code and its claims."""
    rows = ["| section | what | code | claims |", "| --- | --- | --- | --- |"]
    by_section: dict[str, list[str]] = {}
    for claim in listing(RESULTS / "claims"):
        by_section.setdefault(section_of(claim.source), []).append(
            f"`{claim.name}` ({claim.verdict or 'not measured'})"
        )
    for name, what, code in SECTIONS:
        links = ", ".join(
            f"[`{path.removeprefix('alexnet.')}`]({source_of(path)})" for path in code
        )
        claims = ", ".join(by_section.pop(name, ()))
        rows.append(f"| {name} | {what} | {links} | {claims} |")
    others = ", ".join(by_section.pop(ELSEWHERE, ()))
    rows.append(f"| not in the paper | what others say of it | | {others} |")
    if by_section:
        raise SystemExit(f"claims of sections that SECTIONS does not have: {by_section}")
    return "\n".join(rows) + "\n"


def section_of(source: str) -> str:
    """The section that a claim's source names first; for a figure or table, the section of that."""
    match = re.match(r"(?:figure \d|table|abstract|section (\d(?:\.\d)?))", source)
    if not match:
        return ELSEWHERE
    return match[1] or SECTION_OF.get(match[0], match[0])


def find_object(path: str) -> Any:
    """The object with a dotted name. Ends the script where there is none."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for name in parts[cut:]:
                value = getattr(value, name)
        except AttributeError:
            break
        return value
    raise SystemExit(f"scripts/docs.py names {path}, which does not exist")


def source_of(path: str) -> str:
    """A link from docs/ to the file of the object with a dotted name."""
    file = Path(inspect.getsourcefile(find_object(path)) or "")
    return f"../{file.resolve().relative_to(ROOT)}"


def arrows() -> dict[tuple[str, str], list[str]]:
    """The verbs from one artefact to another; SystemExit where code and ARROWS disagree."""
    verbs_between: dict[tuple[str, str], list[str]] = {}
    missing = set(alexnet.__all__) - NO_VERBS
    for start, end, verbs in ARROWS:
        for verb, names in verbs.items():
            module = inspect.getmodule(getattr(alexnet, verb))
            if absent := [name for name in names if not hasattr(module, name)]:
                raise SystemExit(f"ARROWS: {verb} does not use {', '.join(absent)}")
            missing.discard(verb)
            verbs_between.setdefault((start, end), []).append(verb)
    if missing:
        raise SystemExit(f"ARROWS: no arrow for {', '.join(sorted(missing))}")
    return verbs_between


def units() -> dict[str, str]:
    """The packages, and the modules beside them, each with the first paragraph of its docstring."""
    about: dict[str, str] = {}
    for file in FILES:
        is_package = file.name == "__init__.py" and file.parent.parent == SOURCE
        if file.parent == SOURCE or is_package:
            docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
            about[unit(module_name(file))] = " ".join(docstring.split("\n\n")[0].split())
    return about


def architecture() -> str:
    """The table of docs/architecture.md: the layers from the top, with the docstrings of their
    parts."""
    about = units()
    lines = ["| layer | part | what it holds |", "| --- | --- | --- |"]
    for number, names in reversed([*enumerate(LAYERS)]):
        shown = [n for n in names if n not in ("__init__", "__main__")]
        for name in shown:
            first = str(number) if name == shown[0] else ""
            lines.append(f"| {first} | `{name}` | {about[name].replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def pages() -> dict[Path, str]:
    """The generated files with their texts."""
    paper, house = DOCS / "paper.md", DOCS / "architecture.md"
    return {
        paper: replace_between(paper, *marks("paper"), paper_table()),
        house: replace_between(house, *marks("layers"), architecture()),
        DOCS / "flow.svg": flow(arrows()),
        DOCS / "presets.svg": presets(),
    }


def marks(name: str) -> tuple[str, str]:
    """The lines before and after a generated part of a page."""
    return f"<!-- {name}: made by scripts/docs.py -->\n", f"<!-- /{name} -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    texts = pages()
    stale = [page for page, text in texts.items() if not page.exists() or page.read_text() != text]
    for page in stale:
        print(f"{page.relative_to(ROOT)} is {'out of date' if check else 'made'}")
        if not check:
            write_atomic(page, texts[page])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
