"""Where `alexnet data pack` refuses: a folder in use, too little space, wrong counts or options."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import alexnet
from alexnet.cli import main
from alexnet.errors import CheckpointError, DataError, UsageError
from archives import jpeg, write_files
from conftest import write_idx
from packs import SIZE, manifest, pack, payload
from packs import raw as raw
from packs import tree as tree


def test_a_finished_pack_is_not_done_again(raw: Path, tree: Path, tmp_path: Path) -> None:
    """Nor is its source read, of which nothing could be: names and sizes are as they were."""
    before = {f.name: f.stat().st_mtime_ns for f in raw.iterdir()}
    source = Path(shutil.copytree(tree, tmp_path / "zeros"))
    for file in filter(Path.is_file, source.rglob("*")):
        file.write_bytes(bytes(file.stat().st_size))
    result = alexnet.data_pack(source, out=raw, size=SIZE)
    assert result.counts == manifest(raw)["counts"]
    assert {f.name: f.stat().st_mtime_ns for f in raw.iterdir()} == before


def test_a_finished_pack_is_looked_at(tree: Path, raw: Path, tmp_path: Path) -> None:
    """Cut or changed, it is not called packed."""
    for name, damage in (
        ("train.npy", lambda data: data[:-1]),
        ("val.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("manifest.json", lambda data: data[:-9]),
    ):
        out = Path(shutil.copytree(raw, tmp_path / name))
        (out / name).write_bytes(damage((out / name).read_bytes()))
        with pytest.raises(DataError, match=rf"{name}.* damaged: remove .* pack again"):
            pack(tree, out)


def test_another_set_does_not_go_into_a_finished_one(raw: Path, tree: Path, tmp_path: Path) -> None:
    other = write_files(tmp_path / "other", {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2)})
    before = payload(raw)
    for source, options in ((tree, {"size": 8}), (tree, {"encoding": "jpeg"}), (other, {})):
        with pytest.raises(UsageError, match="holds another packed set"):
            pack(source, raw, **options)  # type: ignore[arg-type]
    assert payload(raw) == before


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    return write_files(tmp_path / "mine", {"letter.txt": b"dear"})


def test_a_folder_of_something_else_is_not_packed_into(occupied: Path, tree: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        pack(tree, occupied)
    assert [f.name for f in occupied.iterdir()] == ["letter.txt"]
    assert (occupied / "letter.txt").read_bytes() == b"dear"
    with pytest.raises(CheckpointError, match=r"cannot write .*choose another folder"):
        pack(tree, occupied / "letter.txt")


def write_blank_idx(folder: Path, count: int, side: int) -> Path:
    """So many black images; only their number and size matter."""
    images = np.zeros((count, side, side), np.uint8)
    write_idx(folder, "train", images, np.arange(count, dtype=np.uint8) % 10)
    return folder


@pytest.mark.parametrize(("encoding", "bytes_a_pixel"), [("raw", 3), ("jpeg", 0.7)])
def test_short_space_is_said_before_anything_is_written(
    encoding: str, bytes_a_pixel: float, tmp_path: Path
) -> None:
    each = bytes_a_pixel * 4096**2
    count = int(1.05 * shutil.disk_usage(tmp_path).free / each) + 1
    source, out = write_blank_idx(tmp_path / "idx", count, 1), tmp_path / "out"
    with pytest.raises(DataError, match=r"MB are needed and .* MB are free") as caught:
        pack(source, out, 4096, encoding=encoding)
    needed, free = (
        float(number.replace(",", "")) for number in re.findall(r"([\d,]+) MB", str(caught.value))
    )
    assert needed > free
    assert needed == pytest.approx(1.02 * count * each / 1e6, rel=0.01)
    assert [f.name for f in out.rglob("*") if f.is_file()] in ([], [".lock"])


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_room_that_is_asked_for(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is about what is taken. Small images in shards are mostly headers."""
    count = 20_000
    source = write_blank_idx(tmp_path / "idx", count, 32)
    with pytest.raises(DataError, match="are expected"):  # what is packed are a few others
        pack(source, tmp_path / "none", 64, encoding=encoding, expect={"train": 1})
    rooms = re.findall(r"([\d,]+) MB", capsys.readouterr().err)
    for size, room in zip((64, 32), rooms, strict=True):
        files = {f"{'cat' if i % 2 else 'dog'}/{i}.jpg": jpeg(i, size, size) for i in range(60)}
        source = write_files(tmp_path / f"set-{size}", files)
        out = pack(source, tmp_path / f"out-{size}", size, encoding=encoding)
        taken = sum(len(x) for name, x in payload(out).items() if name != "mean.npy")
        asked = float(room.replace(",", "")) * 1e6 * 60 / count
        assert 0.6 * taken < asked < 1.6 * taken


def test_counts_that_are_meant(tree: Path, tmp_path: Path) -> None:
    words = ["data", "pack", str(tree), "--out", str(tmp_path / "out"), "--size", "8"]
    assert main([*words, "--expect", "train=21"]) == 2
    assert not (tmp_path / "out").exists()
    assert main([*words, "--expect", "train"]) == 2
    assert main([*words, "--expect", "train=22", "val=7", "test=4"]) == 0


def test_a_split_that_is_meant_has_to_be_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no all"):
        pack(tree, tmp_path / "out", expect={"all": 5})


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": 5000}, {"channels": 2}, {"workers": -1}, {"max_pixels": 0}]
)
def test_options_that_cannot_be(options: dict[str, int], tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        alexnet.data_pack(tree, out=tmp_path / "out", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"encoding": "webp"}, {"orient": "aply"}])
def test_words_that_cannot_be(options: dict[str, str], tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        alexnet.data_pack(tree, out=tmp_path / "out", size=8, **options)  # type: ignore[arg-type]
