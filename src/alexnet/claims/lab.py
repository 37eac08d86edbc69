"""What a claim is, and where its experiment keeps what it has measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.files import DirLock, read_json, write_json
from alexnet.terminal import progress

Result = Literal["confirmed", "not confirmed at this scale", "contradicted"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """`finding` says in a sentence what was measured; `draw` puts pictures of it into a folder."""

    result: Result
    finding: str
    figures: dict[str, Any]
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Claim:
    """`printed` is what the source says, `source` where; `needs` and `minutes` are what it takes on
    two cores."""

    name: str
    printed: str
    source: str
    needs: str
    minutes: float
    measure: Callable[["Lab"], Outcome]


@dataclass
class Lab:
    """The measurements of one claim in `folder`: each is made once, whoever interrupts.

    `data` is what the user named; `seeds` how often everything is repeated.
    """

    folder: Path
    data: str | Path | None
    seeds: int

    def measure(self, cells: list[Row], how: Callable[[Row], Row]) -> list[Row]:
        """`how` of each cell, in order; what an earlier call measured is taken from its file.

        A cell says all that its figures depend on.
        """
        file = self.folder / "cells.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        vary = {key for cell in cells for key in cell if cell[key] != cells[0][key]}
        found: list[Row] = []
        with DirLock(self.folder), progress("measuring", len(cells), "cells") as bar:
            known = read_json(file).get("cells", []) if file.exists() else []
            for cell in cells:
                row = next((row for row in known if cell.items() <= row.items()), None)
                if row is None:
                    bar.note(", ".join(f"{key} {cell[key]}" for key in cell if key in vary))
                    row = cell | how(cell)
                    known.append(row)
                    write_json(file, {"cells": known})
                found.append(row)
                bar.advance()
        return found
