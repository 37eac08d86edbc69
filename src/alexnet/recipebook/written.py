"""A recipe as a file: TOML that people edit, a line a field with what each is for beside it, or the
record of a run or an export (JSON), which is taken as it is."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from alexnet.errors import UsageError
from alexnet.files import read_json
from alexnet.options import call
from alexnet.recipe import Recipe
from alexnet.runs.records import Misfit, RecordedRecipe

SUFFIX = ".toml"
RECORD = ".json"  # recipe.json of a run, certificate.json of an export
LIMIT = 1 << 20  # bytes; a recipe has three thousand


def write_recipe(
    recipe: Recipe,
    data: str = "",
    notes: Sequence[str] = (),
    command: str = "alexnet train THIS_FILE",
) -> str:
    """The text of a recipe file. `data` is where the images are, `notes` stand at its head,
    `command` is what trains it once it is edited."""
    values = {**recipe.to_dict(), **({"data": data} if data else {})}
    lines = [f"# {' '.join(note.split())}" for note in notes]
    lines += [f"# Edit, then: {' '.join(command.split())}", ""]
    for field in fields(Recipe):
        value, about = values[field.name], field.metadata["help"]
        if value is None:  # TOML has no word for it
            lines.append(f"# {field.name} =  # {about}")
        else:
            lines.append(f"{field.name} = {_toml(value)}  # {about}")
    return "\n".join(lines).encode("utf-8", "replace").decode() + "\n"


def read_recipe_file(path: Path) -> Recipe:
    """The recipe in a file; a field that is not there has its default.

    UsageError for what is no such file, and for an unknown or ill-typed field.
    """
    values = fields_in(path)
    try:
        return Recipe.from_dict({"name": path.stem, **values})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def fields_written(name: str) -> frozenset[str]:
    """The fields that a recipe's file writes down; of a named recipe none."""
    if name.endswith(RECORD):
        return frozenset(field.name for field in fields(Recipe))
    return frozenset(fields_in(Path(name))) if name.endswith(SUFFIX) else frozenset()


def fields_in(path: Path) -> dict[str, Any]:
    """What a recipe file names, as it stands there. UsageError for what is no such file."""
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: over {LIMIT:,} bytes, and a recipe has a few thousand")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{path}: {why}; name a recipe file, or see `{call('recipes')}`"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML ({error}); correct it there") from error


def read_recorded_recipe(path: Path) -> Recipe:
    """The recipe that a run's recipe.json or a certificate.json records, to the last field.

    UsageError for any other JSON, and where the fields do not give the digest beside them;
    CheckpointError for what is missing or damaged.
    """
    values = read_json(path)
    try:
        record = RecordedRecipe.read(values)
    except Misfit:
        raise UsageError(
            f"{path} records no recipe: name recipe.json of a run, certificate.json of an export, "
            f"or a recipe file ({SUFFIX})"
        ) from None
    try:
        recipe = Recipe.from_dict(record.recipe)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    if record.digest != recipe.digest:
        raise UsageError(
            f"{path} was edited: its digest is {record.digest} and its fields give "
            f"{recipe.digest}; put the original back, or edit recipe.toml, which is there for it"
        )
    return recipe


def _toml(value: Any) -> str:
    """JSON's words are TOML's, but for the control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
