"""Commands in a process of their own, forked after torch's import: for libraries that read their
settings once in a process, or that may end it."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _child(commands: list[list[str]], place: str, environment: Mapping[str, str]) -> None:
    os.environ |= environment
    for number, name in ((1, "out"), (2, "err")):
        with open(f"{place}.{name}", "w") as file:
            os.dup2(file.fileno(), number)
    import torch

    from alexnet.cli import main

    torch.set_num_threads(1)
    status = max(main(words) for words in commands)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_apart(
    place: Path, *commands: list[Any], **environment: str
) -> "subprocess.CompletedProcess[str]":
    """One command after the other; what they print, and the highest status. Their output goes
    into files called `place`.out and .err."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet.commands"])
    words = [[str(word) for word in command] for command in commands]
    process = context.Process(target=_child, args=(words, str(place), environment))
    process.start()
    process.join()
    out, err = (Path(f"{place}.{name}").read_text() for name in ("out", "err"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, out, err)
