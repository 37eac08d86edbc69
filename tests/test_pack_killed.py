"""A pack that is killed, stopped by a signal or out of disk space, and continued."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli import main
from alexnet.data import ImageFiles, PackOptions, open_dataset, open_image_set, pack_images
from alexnet.errors import CheckpointError, DataError, Interrupted, UsageError
from alexnet.recipe import find_recipe
from archives import (
    before_each_change,
    jpeg,
    pack_and_die,
    pack_in_blocks,
    write_files,
    write_tar,
)
from packs import BROKEN, FILES, ODD, SIZE, looks_finished, pack, payload
from packs import tree as tree

BLOCK = 8  # images: several shards and several points to continue from

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["alexnet.commands"])


def pack_until(source: Path, out: Path, encoding: str, deadly: int) -> int | None:
    """The exit status of a pack that kills itself at a change to the disk; -9 if it did."""
    process = context.Process(
        target=pack_and_die, args=(str(source), str(out), encoding, BLOCK, deadly)
    )
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    return status


# From the change that puts the manifest in its place: while the payload is moved, at it, after it.
AROUND_THE_MANIFEST = {"raw": (-6, -3, 0, 3), "jpeg": (-3,)}


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_killed_and_continued_it_ends_with_the_same_bytes(
    encoding: str, tree: Path, tmp_path: Path
) -> None:
    """Dies at several places of one pack, before a sync, a rename or a removal: at the first, at
    random ones, while the payload is moved, before the manifest and after it. Those of random
    places die once more where they continue."""
    whole = tmp_path / "whole"
    made = changes(tree, whole, encoding)
    expected = payload(whole) | {"manifest.json": (whole / "manifest.json").read_bytes()}
    manifest_at = len(made) - 1 - made[::-1].index("replace")
    shuffle = random.Random(5)
    places = shuffle.sample(range(1, manifest_at - 6), 2)
    for deadly in (*places, 0, *(manifest_at + more for more in AROUND_THE_MANIFEST[encoding])):
        out = tmp_path / f"killed-{deadly}"
        assert pack_until(tree, out, encoding, deadly) == -9
        assert looks_finished(out) == (deadly > manifest_at)
        if deadly in places:
            assert pack_until(tree, out, encoding, shuffle.randrange(9)) == -9
            assert not looks_finished(out)
            with pytest.raises(DataError, match="half packed"):
                open_dataset(find_recipe("photos"), out)
        if looks_finished(out):
            assert payload(out) | {"manifest.json": expected["manifest.json"]} == expected
        pack_in_blocks(tree, out, encoding=encoding, block=BLOCK)
        found = payload(out) | {"manifest.json": (out / "manifest.json").read_bytes()}
        assert found == expected, f"killed at {deadly}"
        assert not (out / ".packing").exists()


def test_a_kill_leaves_no_litter(tree: Path, tmp_path: Path) -> None:
    made = changes(tree, tmp_path / "counted", "raw")
    manifest_at = len(made) - 1 - made[::-1].index("replace")
    out = tmp_path / "out"
    assert pack_until(tree, out, "raw", manifest_at) == -9
    assert not looks_finished(out)
    pack(tree, out)
    whole = {f.name for f in (tmp_path / "counted").iterdir()}
    assert {f.name for f in out.iterdir()} == whole


def changes(source: Path, out: Path, encoding: str) -> list[str]:
    """The changes to the disk that a whole pack makes, as `pack_and_die` counts them."""
    made: list[str] = []
    with before_each_change(made.append):
        pack_in_blocks(source, out, encoding=encoding, block=BLOCK)
    return made


def test_killed_by_the_clock(tree: Path, tmp_path: Path) -> None:
    expected = payload(pack(tree, tmp_path / "whole"))
    shuffle = random.Random(6)
    out = tmp_path / "out"
    for _ in range(6):
        process = context.Process(target=pack_and_die, args=(str(tree), str(out), "raw", 8, 10**9))
        process.start()
        process.join(0.03 + 0.1 * shuffle.random())
        process.kill()
        process.join()
        process.close()
    pack(tree, out)
    assert payload(out) == expected


@pytest.fixture
def half(tree: Path, tmp_path: Path) -> Path:
    assert pack_until(tree, tmp_path / "half", "raw", 20) == -9
    assert (tmp_path / "half/.packing/state.json").is_file()
    assert not looks_finished(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_source_that_changed_meanwhile_is_noticed(kind: str, tree: Path, tmp_path: Path) -> None:
    """Neither name nor size of the file changes, which is all that a listing shows."""
    source = tmp_path / "set"
    shutil.copytree(tree, source)
    name = sorted(n for n in FILES if n.startswith("train"))[2]
    data = bytearray((source / name).read_bytes())
    if kind == "tar":
        source = write_tar(tmp_path / "set.tar", FILES | ODD | BROKEN)
    out = tmp_path / "out"
    assert pack_until(source, out, "raw", 20) == -9
    times = [source / name] if kind == "folder" else [source]
    for path in times:  # a later time alone changes nothing
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert pack_until(source, out, "raw", 10) == -9
    data[-3] ^= 1
    if kind == "folder":
        (source / name).write_bytes(data)
    else:
        write_tar(source, FILES | ODD | BROKEN | {name: bytes(data)})
    os.utime(times[0], ns=(0, 10**18))
    with pytest.raises(DataError, match=rf"{name} has changed since it was packed"):
        pack(source, out)
    assert (out / ".packing/state.json").is_file()


def test_half_a_pack_is_not_trained_on(half: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "photos", "--data", str(half), "--run", str(half.parent / "run")]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "half packed: run the same `alexnet data pack` to finish it" in line
    assert not (half.parent / "run").exists()


def test_half_a_pack_of_something_else_is_not_continued(half: Path, tree: Path) -> None:
    before = {f: f.read_bytes() for f in half.rglob("*") if f.is_file() and f.name != ".lock"}
    for options in ({"size": 8}, {"encoding": "jpeg"}, {"channels": 1}, {"orient": "apply"}):
        with pytest.raises(UsageError, match="half-finished pack of another source"):
            pack(tree, half, **options)  # type: ignore[arg-type]
    after = {f: f.read_bytes() for f in half.rglob("*") if f.is_file() and f.name != ".lock"}
    assert after == before


def test_it_says_where_it_continues(
    half: Path, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = sum(json.loads((half / ".packing/state.json").read_text())["done"].values())
    assert main(["data", "pack", str(tree), "--out", str(half), "--size", str(SIZE)]) == 0
    total = len(FILES | ODD | BROKEN)
    assert f"continuing {half}: {done} of {total} images are packed" in capfd.readouterr().err


class SignalWhileRead:
    """The files of a listing; with the 18th that is read there comes a SIGTERM."""

    def __init__(self, files: Any) -> None:
        self._files, self._reads = files, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def read(self, index: int) -> bytes:
        self._reads += 1
        if self._reads == 18:
            os.kill(os.getpid(), signal.SIGTERM)
        data: bytes = self._files.read(index)
        return data


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_signal_saves_what_is_packed(encoding: Any, tmp_path: Path) -> None:
    """Raw pixels to the last image that was ready; a shard is written whole or not at all."""
    names = [f"{label}/{i:03d}.jpg" for label in "ab" for i in range(20)]
    tree = write_files(tmp_path / "tree", {name: jpeg(i) for i, name in enumerate(names)})
    found = open_image_set(tree)
    part = found.read("all")
    files = part.images
    assert isinstance(files, ImageFiles)
    files = ImageFiles(tuple(map(SignalWhileRead, files.listings)), files.rows)
    with pytest.raises(Interrupted):
        pack_images(
            replace(found, read=lambda _: replace(part, images=files)),
            tmp_path / "out",
            PackOptions(SIZE, encoding),
            expect=None,
            workers=0,
            block=BLOCK,
        )
    state = tmp_path / "out/.packing/state.json"
    done = json.loads(state.read_text())["done"] if state.exists() else {}
    assert done.get("all", 0) >= 16
    assert encoding == "raw" or done["all"] % BLOCK == 0
    whole = pack_in_blocks(tree, tmp_path / "whole", encoding=encoding, block=BLOCK)
    continued = pack_in_blocks(tree, tmp_path / "out", encoding=encoding, block=BLOCK)
    assert payload(continued) == payload(whole)


def test_a_disk_that_fills_is_one_line_and_can_be_continued(tree: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointError, match="free some space"):
            pack(tree, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    pack(tree, tmp_path / "out")
    assert (tmp_path / "out/manifest.json").is_file()
