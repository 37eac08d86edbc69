"""A run that starts again from step 0 under new records: all of it, or nothing.

checkpoints-again/       the new step 0, complete before anything else is touched
starting-again.json      the new records and the line for the log; from here on the run has
                         started again, and whoever opens it to train ends what is left to do
recipe.json, ...         take the place of the old ones
checkpoints/             is exchanged for checkpoints-again/
metrics.jsonl            gets the line, which takes back all that came after step 0
starting-again.json      goes
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from alexnet.errors import CheckpointError
from alexnet.files import cannot, fsync_dir, read_json, write_atomic, write_json
from alexnet.runs.rundir import AGAIN, RunDir

RECORDS = ("recipe.json", "environment.json", "recipe.toml")
_STAGED = "checkpoints-again"
_OLD = ".tmp-checkpoints-old"


def begin_again(
    run: RunDir,
    records: Mapping[str, str],
    line: Mapping[str, Any],
    save_step_0: Callable[[Path], None],
) -> None:
    """Starts a run again: `save_step_0` saves its first checkpoint into the folder that it is
    given, `records` are the new texts of RECORDS, and `line` is what metrics.jsonl says of it.

    Killed at any moment it leaves the run as it was, or one that `end_beginning_again` completes.
    Raises CheckpointError where the system refuses; what is there then is one of the two as well.
    """
    end_beginning_again(run)
    save_step_0(run.path / _STAGED)
    write_json(run.path / AGAIN, {"records": dict(records), "line": dict(line)})
    end_beginning_again(run)


def end_beginning_again(run: RunDir) -> None:
    """Completes what a kill cut short in `begin_again`, or clears it away where the run had not
    started again yet. Only for whoever holds the run's lock."""
    staged, old, journal = (run.path / name for name in (_STAGED, _OLD, AGAIN))
    try:
        for name in (AGAIN, *RECORDS):  # of a write that was cut short
            for left in run.path.glob(f".tmp-{name}-*"):
                left.unlink()
        if not journal.is_file():
            for left in (staged, old):
                if left.exists():
                    shutil.rmtree(left)
            return
        plan = read_json(journal)
        records, line = plan.get("records"), plan.get("line")
        if not _are_records(records) or not isinstance(line, dict):
            raise CheckpointError(
                f"{journal} is damaged: expected texts of {', '.join(RECORDS)}; restore a copy, or "
                "start a new run"
            )
        for name, text in records.items():
            write_atomic(run.path / name, text)
        if staged.is_dir():
            if run.checkpoints.is_dir():
                if old.exists():
                    shutil.rmtree(old)
                os.rename(run.checkpoints, old)
            os.rename(staged, run.checkpoints)
            fsync_dir(run.path)
        run.log(line)
        run.close()
        journal.unlink()
        fsync_dir(run.path)
    except OSError as error:
        raise cannot("start again in", run.path, error) from error
    with contextlib.suppress(OSError):  # else it is cleared away the next time
        shutil.rmtree(old)


def _are_records(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(
        name in RECORDS and isinstance(text, str) for name, text in value.items()
    )
