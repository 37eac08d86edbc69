"""A recipe as a file that people edit: TOML, a line a field, with what each is for beside it."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from alexnet.errors import UsageError
from alexnet.recipe import Recipe

SUFFIX = ".toml"
LIMIT = 1 << 20  # bytes; a recipe has three thousand


def write_recipe(recipe: Recipe, data: str = "", notes: Sequence[str] = ()) -> str:
    """The text of a recipe file. `data` is where the images are, `notes` stand at its head."""
    values = {**recipe.to_dict(), **({"data": data} if data else {})}
    lines = [f"# {' '.join(note.split())}" for note in notes]
    lines += ["# Edit, then: alexnet train THIS_FILE", ""]
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


def fields_in(path: Path) -> dict[str, Any]:
    """What a recipe file names, as it stands there. UsageError for what is no such file."""
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: over {LIMIT:,} bytes, and a recipe has a few thousand")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: {why}; name a recipe file, or see `alexnet recipes`") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML ({error}); correct it there") from error


def _toml(value: Any) -> str:
    """JSON's words are TOML's, but for the control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
