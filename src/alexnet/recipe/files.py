"""Recipes as files: TOML that people edit, one commented line for each field, and the JSON records
of runs and exports, which must be unedited."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from alexnet.errors import UsageError
from alexnet.recipe.fields import Recipe
from alexnet.support.files import read_json
from alexnet.support.options import call

SUFFIX = ".toml"
RECORD = ".json"  # recipe.json of a run, certificate.json of an export
MAX_BYTES = 1 << 20  # a recipe file has about three thousand


def write_recipe(
    recipe: Recipe,
    data: str = "",
    notes: Sequence[str] = (),
    command: str = "alexnet train THIS_FILE",
) -> str:
    """The text of a recipe file. `data` is the path of the images, `notes` are comments at its
    head, and `command` is the call that trains it."""
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
    """Read a recipe file; a missing field has its default. UsageError for another kind of file, and
    for a field that is unknown or of a wrong type."""
    values = fields_in(path)
    try:
        return Recipe.from_dict({"name": path.stem, **values})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def fields_written(name: str) -> frozenset[str]:
    """The names of the fields that a recipe file sets; none for the name of a shipped recipe."""
    if name.endswith(RECORD):
        return frozenset(field.name for field in fields(Recipe))
    return frozenset(fields_in(Path(name))) if name.endswith(SUFFIX) else frozenset()


def fields_in(path: Path) -> dict[str, Any]:
    """The fields that a recipe file sets, unchecked. UsageError for another kind of file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: over {MAX_BYTES:,} bytes, and a recipe has a few thousand")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{path}: {why}; name a recipe file, or see `{call('recipes')}`"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML ({error}): correct it") from error


def read_recorded_recipe(path: Path) -> Recipe:
    """Read the complete recipe in a run's recipe.json or a certificate.json.

    UsageError for any other JSON, and where the fields do not match the recorded digest;
    CheckpointError for a missing or damaged file.
    """
    record = read_json(path)
    fields, digest = record.get("recipe"), record.get("digest", record.get("recipe_digest"))
    if not isinstance(fields, dict) or digest is None:
        raise UsageError(
            f"{path} records no recipe: name recipe.json of a run, certificate.json of an export, "
            f"or a recipe file ({SUFFIX})"
        )
    try:
        recipe = Recipe.from_dict(fields)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    if digest != recipe.digest:
        raise UsageError(
            f"{path} was edited: its digest is {digest} and its fields give {recipe.digest}; put "
            "the original back, or edit recipe.toml, which is there for it"
        )
    return recipe


def _toml(value: Any) -> str:
    """A value as TOML: its JSON, with the one control character that TOML forbids escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
