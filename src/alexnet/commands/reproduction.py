"""The commands that make a run again; each is checked against the run before it is printed."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from alexnet.errors import CheckpointError
from alexnet.recipe import RECIPES, Recipe, find_recipe, parse_recipe_words, recipe_words
from alexnet.records import DataCard, Event, RunInit, RunStart, TestEvent, ValEvent
from alexnet.runs.checkpoint import find_checkpoint, read_state
from alexnet.runs.rundir import RunDir, fresh_run_path, read_recipe
from alexnet.runs.train_command import conditions, recorded_call, train_command
from alexnet.support.files import sha256_of


def reproduce(folder: RunDir) -> tuple[list[str], list[str]]:
    """Lines for a shell that make a run anew and test it as it was tested, and sentences on what
    comes out and when. The first line gives the digest of the run's recipe: it was read back."""
    run = Path(os.path.abspath(folder.path))
    again = str(fresh_run_path(run.parent, f"{run.name}-again"))
    (recipe, described), start = read_recipe(folder), folder.start()
    init = start.init
    if described.kind == "imported":
        return _import_again(start, again)
    environment, events = folder.environment(), folder.events()
    call = recorded_call(start, environment, events)
    own = described.where
    line = train_command(
        _recipe_words(recipe, run, init is not None), call,
        data="" if own == recipe.data else own, init=init.path if init else "", run=again,
    )  # fmt: skip
    sentences = conditions(
        recipe.digest, _weights(folder), call, environment, described.digest, events
    )
    if init is not None:
        sentences.append(_initial_weights(init))
    return [line, *_tests(recipe, described, events, again)], sentences


def _recipe_words(recipe: Recipe, run: Path, init: bool) -> list[str]:
    """A named recipe and flags where that is this recipe; else the run's own record of it.

    A run given as --init would bring fields of its own, unless the recipe is a record.
    """
    if recipe.name in RECIPES and not init:
        words = [recipe.name, *recipe_words(recipe, find_recipe(recipe.name))]
        if _read_back(words).digest == recipe.digest:
            return words
    words = [str(run / "recipe.json")]
    if _read_back(words).digest != recipe.digest:
        raise CheckpointError(f"{words[0]} is not the recipe of {run}: restore a copy")
    return words


def _read_back(words: list[str]) -> Recipe:
    """The recipe that `alexnet train WORDS` trains."""
    name, fields = parse_recipe_words(words)
    return find_recipe(name).adapted(fields)


def _weights(folder: RunDir) -> str:
    last = read_state(find_checkpoint(folder.checkpoints, "last"))
    validated = any(isinstance(event, ValEvent) for event in folder.events())
    name = "best" if validated else "last"  # a run may be stopped before its first validation
    kept = find_checkpoint(folder.checkpoints, name)
    sentence = (
        f"The sha256 of checkpoints/{name}/model.safetensors (its {kept.name}) is "
        f"{sha256_of(kept / 'model.safetensors')}."
    )
    if not last.has_ended:
        sentence += " It had not ended when this was written; the command trains to the end."
    return sentence


def _initial_weights(init: RunInit) -> str:
    """Names the initial weights, and says whether they are still there."""
    path = Path(init.path)
    sentence = f"It begins with the weights {init.path}, sha256 {init.sha256}"
    try:
        file = (
            find_checkpoint(path / "checkpoints") / "model.safetensors" if path.is_dir() else path
        )
        now = sha256_of(file)
    except CheckpointError:
        return f"{sentence}, which were not there when this was written: put them back first."
    if now == init.sha256:
        return f"{sentence}."
    return (
        f"{sentence}; what was there when this was written has {now}: put the old ones back first."
    )


def _tests(recipe: Recipe, described: DataCard, events: Sequence[Event], run: str) -> list[str]:
    """The tests of its own data that it had, or the one that it should have."""
    own = described.where
    lines: dict[str, None] = {}  # each once, in order
    for event in events:
        if isinstance(event, TestEvent) and event.data == own:
            words = ["--split", event.split] if event.split != "test" else []
            words += ["--views", str(event.views)] if event.views != 1 else []
            words += ["--engine", event.engine] if event.engine != "torch" else []
            asked = event.precision not in (None, "int8", recipe.precision)
            if event.precision and asked and event.engine == "torch":
                words += ["--precision", event.precision]
            words += ["--with-seen"] if event.with_seen else []
            lines[shlex.join(["alexnet", "test", run, *words])] = None
    views = ["--views", str(recipe.views)] if recipe.views > 1 else []
    return list(lines) or [shlex.join(["alexnet", "test", run, *views])]


def _import_again(start: RunStart, again: str) -> tuple[list[str], list[str]]:
    init = start.init
    source, digest = (init.path, init.sha256) if init else ("", "")
    sentences = [
        f"The weights were imported, not trained: from {source or 'a file'}, sha256 {digest}."
    ]
    if start.imported is None:
        return [], [*sentences, "With which flags was not recorded then."]
    return [shlex.join(["alexnet", "import", source, *start.imported, "--run", again])], sentences
