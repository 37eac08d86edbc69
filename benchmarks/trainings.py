"""A training that a killed bench finds again: finished, begun or still to be made."""

from pathlib import Path
from typing import Any

import alexnet
from alexnet.runs.rundir import RunDir


def trained(place: Path, data: str | Path | None, **how: Any) -> dict[str, Any]:
    """The run in a folder: finished before, continued, or made by `alexnet.train`."""
    if (place / "recipe.json").is_file():
        return alexnet.train(run=place, resume=True, data=data)
    return alexnet.train(how.pop("recipe", None), data=data, run=place, **how)


def at_the_end(place: Path) -> dict[str, Any]:
    """The run's last validation, which need not be its best."""
    return [event for event in RunDir.open(place).events() if event["event"] == "val"][-1]


def tested(place: Path, data: str | Path | None, checkpoint: str) -> dict[str, Any]:
    """The run's figures on test: those that were read before, or read now, in its own views."""
    run = RunDir.open(place)
    before = [e for e in run.events() if e["event"] == "test" and e["split"] == "test"]
    if before:
        return before[0]
    views = run.recipe["recipe"].get("views", 1)
    return alexnet.test(place, data=data, views=views, checkpoint=checkpoint)
