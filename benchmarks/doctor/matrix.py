"""Every fault in every network with every seed, a line a case; a run that was cut goes on."""

import copy
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.doctor.cases import TRAINED, cases
from benchmarks.doctor.during import DURING, train_under_guard
from benchmarks.doctor.faults import FAULTS, Case, Fault

from alexnet import diagnosis
from alexnet.commands.doctor import SAMPLE, diagnose_recipe
from alexnet.data.dataset import open_dataset
from alexnet.diagnosis.diagnose import diagnose
from alexnet.diagnosis.rules import RateTooHigh
from alexnet.recipe import RECIPES, Recipe, find_recipe

Row = dict[str, Any]
MEASURING = ("cases", "during", "faults", "matrix")
SOURCES = (
    *sorted(Path(diagnosis.__file__).parent.glob("*.py")),
    *(Path(__file__).with_name(f"{name}.py") for name in MEASURING),
)
# Lines of other code are measured again.
CODE = hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES)).hexdigest()[:12]
# Of this code those lines hold whose rate today's would judge alike: since then a layer counts as
# killed by trial steps from 0.99 of its units on, not 0.9, an update as large from 0.05 of the
# weight on, not 0.1, and nothing else has changed.
CARRIED = "86cd02f22afe"
SECONDS = 600.0  # more than any case takes: what is found is not to depend on the machine's load
FIGURES = ("gain", "arrives", "update", "shrinking", "order", "random", "batchwise", "shared")


def before(
    kinds: list[str], folders: dict[str, str], seeds: list[int], out: Path, only: Collection[str]
) -> None:
    """Faults that `diagnose` should name before the first step, or `only` some of them."""
    for kind in kinds:
        for name, case in cases(kind, folders.get(kind), seeds):
            has_norm = any(hasattr(m, "constants") for m in case.model.modules())
            for fault in FAULTS:
                if (fault.needs is None or has_norm) and (not only or fault.name in only):
                    key = {"when": "before", "data": kind, "model": name, "fault": fault.name}
                    _once(out, key, case.seed, partial(_diagnosed, name, case, fault))


def during(seeds: list[int], out: Path) -> None:
    """Faults that the sentinel should name while training shows them, on digits."""
    for name, case in cases("digits", None, seeds, TRAINED):
        for fault in DURING:
            key = {"when": "during", "data": "digits", "model": name, "fault": fault.name}
            _once(out, key, case.seed, partial(train_under_guard, case, fault))


def healthy(folders: dict[str, str], seeds: list[int], out: Path) -> None:
    """Every recipe on data that it is for, as `alexnet doctor RECIPE` looks at it."""
    for name in RECIPES:
        recipe = find_recipe(name)
        kind = "imagenette" if recipe.crop > 64 else "mnist" if recipe.channels == 1 else "cifar"
        kind = recipe.data if recipe.data in folders else kind
        folder = None if recipe.data == "digits" else folders[kind]
        for seed in seeds:
            key = {"when": "recipe", "data": recipe.name, "model": recipe.model, "fault": "healthy"}
            _once(out, key, seed, partial(_examined, recipe.replace(seed=seed), folder))


def _once(out: Path, key: Row, seed: int, measure: Callable[[], Row]) -> None:
    """Appends a line, unless the file has it."""
    key = {**key, "seed": seed}
    lines = out.read_text().splitlines() if out.exists() else []
    if any(key.items() <= row.items() and stands(row) for row in map(json.loads, lines)):
        return
    key["code"] = CODE
    began = time.monotonic()
    row = key | measure() | {"seconds": round(time.monotonic() - began, 1)}
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    mark = "  " if row["right"] else "X "
    named = ", ".join(row["named"][:3]) or "-"
    print(
        f"{mark}{row['model']:18} {seed:4} {row['fault']:36} {named}  {row['seconds']} s",
        flush=True,
    )


def stands(row: Row) -> bool:
    """Whether today's code would have found the same."""
    if row["code"] != CARRIED:
        return bool(row["code"] == CODE)
    update = row["measured"].get("update", 0.0)  # without one, where no steps were tried
    return "rate-too-high" not in row["noted"] and update < RateTooHigh.threshold


def _diagnosed(name: str, case: Case, fault: Fault) -> Row:
    torch.manual_seed(case.seed)
    broken = fault.apply(replace(case, model=copy.deepcopy(case.model)))
    found = diagnose(
        broken.model,
        broken.batches(),
        broken.optimizer(),
        val_loader=broken.val_batches(),
        seconds=SECONDS,
    )
    return _row(found, fault.causes, name in fault.harmless)


def _examined(recipe: Recipe, folder: str | None) -> Row:
    dataset = open_dataset(recipe, folder)
    train, val = dataset.split("train"), dataset.split("val")
    statistics = dataset.measure(train, SAMPLE)
    return _row(diagnose_recipe(recipe, len(dataset.classes), train, val, statistics, SECONDS), ())


def _row(found: dict[str, Any], causes: tuple[str, ...], harmless: bool = False) -> Row:
    """What the report needs. What is only noted counts as found where it does no harm."""
    verdicts = found["verdicts"]
    named = [v["name"] for v in verdicts if v["severity"] != "note"]
    noted = [v["name"] for v in verdicts]
    right = named[0] in causes if named and causes else not (named or causes)
    right = right or (harmless and not named)
    return {
        "right": right,
        "named": named,
        "noted": noted,
        "severity": verdicts[0]["severity"] if verdicts else "none",
        "measured": {key: _rounded(value) for key, value in quantities(found).items()},
    }


def quantities(found: dict[str, Any]) -> dict[str, float]:
    """What thresholds are held against, of one look."""
    figures, layers = found["figures"], found["layers"]
    activations = [layer for layer in layers if not layer["has_weights"]]
    taken = {key: figures[key] for key in FIGURES}
    if figures["apart"]:
        taken["apart"], taken["stretch"] = figures["apart"]
    if figures["loss"] is not None:
        taken["loss"] = figures["loss"] / math.log(max(figures["classes"], 2))
    taken["std"] = statistics.fmean(figures["std"])
    taken["dead"] = max((layer["dead"] for layer in activations), default=None)
    follows = (layer["follows"] for layer in activations)
    taken["follows"] = min((x for x in follows if x is not None), default=None)
    if figures["probe"]:
        taken["probe"] = figures["probe"]["accuracy"]
    return {key: value for key, value in taken.items() if value is not None}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
