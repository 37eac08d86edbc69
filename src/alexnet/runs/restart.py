"""Restart of a run from step 0 with other settings: complete, or not at all.

The files, in the order of the steps:

checkpoints-again/       the new step 0, written before anything else changes
starting-again.json      the journal: the new records and the line for the log. From here on the run
                         has restarted, and whoever opens it to train completes the steps below
recipe.json, ...         are replaced by the new records
checkpoints/             is replaced by checkpoints-again/
metrics.jsonl            gets the line, which takes back all events after step 0
starting-again.json      is removed
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alexnet.errors import CheckpointError
from alexnet.records import Misfit, RestartJournal
from alexnet.runs.rundir import RESTART_FILE, RunDir
from alexnet.support.files import file_error, fsync_dir, read_json, write_atomic, write_json

RECORDS = ("recipe.json", "environment.json", "recipe.toml")
_NEW_CHECKPOINTS = "checkpoints-again"
_OLD_CHECKPOINTS = ".tmp-checkpoints-old"


def restart_run(
    run: RunDir,
    records: Mapping[str, str],
    line: Mapping[str, Any],
    save_step_0: Callable[[Path], None],
) -> None:
    """Restart a run from step 0.

    `save_step_0` saves the first checkpoint into the folder that it gets. `records` are the new
    texts of the files RECORDS. `line` is the event for metrics.jsonl.

    A kill at any moment leaves the run as it was, or in a state that `finish_restart` completes.
    The same holds where the operating system refuses, which raises CheckpointError.
    """
    finish_restart(run)
    save_step_0(run.path / _NEW_CHECKPOINTS)
    write_json(run.path / RESTART_FILE, RestartJournal(records=records, line=line))
    finish_restart(run)


def finish_restart(run: RunDir) -> None:
    """Complete a restart that a kill interrupted, or remove its files where the run had not yet
    restarted. The caller must hold the run's lock."""
    staged, old = run.path / _NEW_CHECKPOINTS, run.path / _OLD_CHECKPOINTS
    journal = run.path / RESTART_FILE
    try:
        for name in (RESTART_FILE, *RECORDS):
            for incomplete in run.path.glob(f".tmp-{name}-*"):
                incomplete.unlink()
        if not journal.is_file():
            for folder in (staged, old):
                if folder.exists():
                    shutil.rmtree(folder)
            return
        plan = _read_journal(journal)
        for name, text in plan.records.items():
            write_atomic(run.path / name, text)
        if staged.is_dir():
            if run.checkpoints.is_dir():
                if old.exists():
                    shutil.rmtree(old)
                os.rename(run.checkpoints, old)
            os.rename(staged, run.checkpoints)
            fsync_dir(run.path)
        run.log(plan.line)
        run.close()
        journal.unlink()
        fsync_dir(run.path)
    except OSError as error:
        raise file_error("start again in", run.path, error) from error
    with contextlib.suppress(OSError):  # the next call removes it
        shutil.rmtree(old)


def _read_journal(journal: Path) -> RestartJournal:
    values = read_json(journal)
    try:
        plan = RestartJournal.read(values)
        if foreign := plan.records.keys() - {*RECORDS}:
            raise Misfit(min(foreign), "the name of a record")
    except Misfit:
        raise CheckpointError(
            f"{journal} is damaged: expected texts of {', '.join(RECORDS)}; restore a copy, or "
            "start a new run"
        ) from None
    return plan
