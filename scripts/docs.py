"""What of docs/ is made from the code, so that it cannot say what the code does not do.

    python -m scripts.docs [--check]

docs/paper.md beside the sections of the paper, docs/architecture.md and its diagram, and the
picture of which AlexNet is which. --check writes nothing and ends with 1 where one is not as it
would be.
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
from scripts.results import RESULTS, filled
from tests.test_structure import FILES, LAYERS, SOURCE, module_name, unit

import alexnet
from alexnet.files import write_atomic
from alexnet.lab.claims.verb import listing

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

# Section of the paper, what it says in a word, and where the code does it.
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
        "alexnet.training.step.train_step", "alexnet.recipebook.imagenet.paper_2012")),
    ("6", "Results, tables 1 and 2", ("alexnet.training.evaluate.predict_views",)),
    ("6.1", "What it has learnt: figures 3 and 4", (
        "alexnet.analysis.kernels.tower_scores", "alexnet.analysis.neighbours.nearest_neighbours")),
    ("7", "Depth", ()),
)  # fmt: skip
PLACES = {"figure 1": "3.1", "figure 2": "3.5", "figure 3": "6.1", "figure 4": "6.1", "table": "6"}
ELSEWHERE = "elsewhere"  # claims of others about the paper

# Arrows of the diagram: from what to what each verb goes, and what its code must name to do so.
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
    """A row a section: what it is, the code, the claims and what was measured of each."""
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
    """The section a claim's source names first; of a figure or table the one it stands in."""
    found = re.match(r"(?:figure \d|table|abstract|section (\d(?:\.\d)?))", source)
    if not found:
        return ELSEWHERE
    return found[1] or PLACES.get(found[0], found[0])


def find(path: str) -> Any:
    """The object of a dotted name; SystemExit where the code has none."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for name in parts[cut:]:
                found = getattr(found, name)
        except AttributeError:
            break
        return found
    raise SystemExit(f"scripts/docs.py names {path}, which is not there")


def source_of(path: str) -> str:
    """The file of a dotted name, as a link from docs/."""
    file = Path(inspect.getsourcefile(find(path)) or "")
    return f"../{file.resolve().relative_to(ROOT)}"


def arrows() -> dict[tuple[str, str], list[str]]:
    """The verbs from one artefact to another; SystemExit where code and ARROWS disagree."""
    found: dict[tuple[str, str], list[str]] = {}
    missing = set(alexnet.__all__) - NO_VERBS
    for start, end, verbs in ARROWS:
        for verb, names in verbs.items():
            module = inspect.getmodule(getattr(alexnet, verb))
            if absent := [name for name in names if not hasattr(module, name)]:
                raise SystemExit(f"ARROWS: {verb} does not use {', '.join(absent)}")
            missing.discard(verb)
            found.setdefault((start, end), []).append(verb)
    if missing:
        raise SystemExit(f"ARROWS: no arrow for {', '.join(sorted(missing))}")
    return found


def units() -> dict[str, str]:
    """Each part of the package with the first sentence of its docstring."""
    found: dict[str, str] = {}
    for file in FILES:
        name = unit(module_name(file))
        whole = (
            file.name == "__init__.py" and file.parent.parent == SOURCE
        )  # a package of the layer
        if file.parent == SOURCE or whole:
            said = ast.get_docstring(ast.parse(file.read_text())) or ""
            found[name] = " ".join(said.split("\n\n")[0].split())
    return found


def architecture() -> str:
    """The layers from the top, and each part with what its own docstring says."""
    about = units()
    lines = []
    for names in reversed(LAYERS):
        lines += ["| part | what |", "| --- | --- |"]
        shown = [n for n in names if n not in ("__init__", "__main__")]
        lines += [f"| `{name}` | {about[name].replace('|', chr(92) + '|')} |" for name in shown]
        lines.append("")
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    """Every made file with its text."""
    paper, house = DOCS / "paper.md", DOCS / "architecture.md"
    return {
        paper: filled(paper, *marks("paper"), paper_table()),
        house: filled(house, *marks("layers"), architecture()),
        DOCS / "flow.svg": flow(arrows()),
        DOCS / "presets.svg": presets(),
    }


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: made by scripts/docs.py -->\n", f"<!-- /{name} -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [p for p, text in pages().items() if not p.exists() or p.read_text() != text]
    for page in stale:
        print(f"{page.relative_to(ROOT)} is {'not what the code says' if check else 'made'}")
        if not check:
            write_atomic(page, pages()[page])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
