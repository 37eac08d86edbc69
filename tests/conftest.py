"""Data made at run time, and ways to run the program: in this process, or in one that may die."""

import multiprocessing
import os
import sys

# Before torch is imported, here and in every child: many small runs, few cores.
os.environ["OMP_NUM_THREADS"] = "1"

import json
import struct
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("any machine", deadline=None)  # a slow one is no failure
settings.load_profile("any machine")

# What of metrics.jsonl may differ between equal runs.
CLOCK = ("images_per_s", "eta_s", "wall_s", "data_wait")


def patterns(n: int, classes: int = 10, side: int = 28, seed: int = 0) -> tuple[Any, Any]:
    """Images uint8 (n, side, side), labels (n,): a bright block whose place is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = random.integers(0, 60, (n, side, side), np.uint8)
    block = side // 4
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        top, left = (1 + place * (side - block - 2) // 3 for place in (row, column))
        image[top : top + block, left : left + block] += 150
    return images, labels.astype(np.uint8)


def write_idx(folder: Path, part: str, images: Any, labels: Any) -> None:
    """One part (train or t10k) of an IDX folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images", images), ("labels", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
        name = f"{part}-{kind}-idx{array.ndim}-ubyte"
        (folder / name).write_bytes(header + array.astype(np.uint8).tobytes())


def write_tree(
    folder: Path, classes: int = 3, each: int = 12, side: int = 32, seed: int = 0
) -> Path:
    """A class-folder tree of small PNGs: FOLDER/class-0/0.png ..."""
    images, labels = patterns(classes * each, classes, side, seed)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([image, image // 2, 255 - image], 2)).save(place / f"{i:03}.png")
    return folder


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 train and 200 test images of ten classes as IDX files. Read only: tests copy it."""
    folder = tmp_path_factory.mktemp("data") / "idx"
    write_idx(folder, "train", *patterns(600, seed=1))
    write_idx(folder, "t10k", *patterns(200, seed=2))
    return folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve 32-pixel PNGs, without parts. Read only: tests copy it."""
    return write_tree(tmp_path_factory.mktemp("data") / "tree")


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Recipe fields for a run of a few seconds that learns the patterns."""
    return {
        "steps": 40,
        "batch_size": 32,
        "eval_every": 0.5,
        "log_every": 5,
        "shift": 1,
        "rotate": 0.0,
        "scale": 0.0,
        "dropout": 0.1,
        "precision": "fp32",
        "workers": 0,
        "label_smoothing": 0.0,
    }


@pytest.fixture(scope="session")
def trained(
    idx_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run on `idx_folder`. Read only: tests copy it."""
    import alexnet

    run = tmp_path_factory.mktemp("runs") / "trained"
    alexnet.train("digits", data=idx_folder, run=run, **tiny)
    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images, where there is one."""
    place = os.environ.get("ALEXNET_SHARED")
    if not place:
        pytest.skip("needs the real images: set ALEXNET_SHARED to their folder")
    return Path(place)


def without_report(patch: pytest.MonkeyPatch) -> None:
    """Training ends without its page: drawing takes longer than these runs, and others look."""
    from alexnet import commands

    # Patched because no user can train without a page, and drawing it takes twice as long as the
    # short trainings of these tests, of which there are hundreds.
    patch.setattr(commands.train, "_page", lambda folder: None)


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    """Neither the page of a training nor the pictures of a test."""
    from alexnet import figures

    without_report(patch)
    for name in ("draw_confusion", "draw_mistakes"):
        # Patched because no user can test without pictures, for the same reason.
        patch.setattr(figures, name, lambda *_: None)


@pytest.fixture(scope="module")
def no_page() -> Iterator[None]:
    """The trainings of a module end without their pages: `pytestmark = usefixtures("no_page")`."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        yield


def read_events(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl without the clock's fields."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [{k: v for k, v in event.items() if k not in CLOCK} for event in events]


def _child(argv: list[str], log: str, threads: int) -> None:
    with open(log, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        import torch

        from alexnet.cli import main

        torch.set_num_threads(threads)
        status = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """torch.compile traces and differentiates, and computes without C++; one entry for each call of
    what it made."""
    import torch

    # Deep because making C++, which every user has to, takes a minute for the least network.
    from alexnet.training import compiled

    calls: list[None] = []
    real = torch._dynamo.lookup_backend("aot_eager")

    def backend(graph: Any, given: Any) -> Callable[..., Any]:
        made = real(graph, given)

        def call(*args: Any) -> Any:
            calls.append(None)
            return made(*args)

        return call

    torch._dynamo.reset()
    # Patched because making C++, which every user has to, takes a minute for the least network.
    monkeypatch.setattr(compiled, "BACKEND", backend)
    return calls


Launch = Callable[..., BaseProcess]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """This process computes with as many threads as each of a team that it is compared with."""
    from alexnet.training import threads

    with threads(1):
        yield


def forkserver() -> Any:
    """Starts processes that are forked after all that takes long was imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexnet.commands", "conftest", "torch._dynamo"])
    return context


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """launch(argv, log): `alexnet ARGV` in a process of its own, forked after torch's import."""
    context = forkserver()
    started: list[BaseProcess] = []

    def start(argv: list[Any], log: Path, threads: int = 1) -> BaseProcess:
        process = context.Process(target=_child, args=([*map(str, argv)], str(log), threads))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
