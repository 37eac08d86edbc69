"""Where `alexnet data pack` refuses: a folder in use, too little space, wrong counts or options."""

import shutil
from pathlib import Path

import pytest

from alexnet import commands
from alexnet.cli import main
from alexnet.data import pack as packer
from alexnet.data.payload import expected_bytes
from alexnet.errors import CheckpointError, DataError, UsageError
from archives import jpeg, write_files
from packs import SIZE, looks_finished, manifest, pack, payload
from packs import blocks_of_8 as blocks_of_8
from packs import raw as raw
from packs import tree as tree

pytestmark = pytest.mark.usefixtures("blocks_of_8")


def test_a_finished_pack_is_not_done_again(
    raw: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in raw.iterdir()}
    monkeypatch.setattr(packer, "examine", None)
    result = commands.data_pack(tree, out=raw, size=SIZE)
    assert result["counts"] == manifest(raw)["counts"]
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


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_short_space_is_said_before_anything_is_written(
    encoding: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"MB are needed and 0 MB are free"):
        pack(tree, tmp_path / "out", encoding=encoding)
    files = [f for f in tmp_path.rglob("*") if f.is_file() and f.name != ".lock"]
    assert files == []


@pytest.mark.parametrize(("encoding", "size"), [("raw", 64), ("jpeg", 32), ("jpeg", 64)])
def test_the_room_that_is_asked_for(encoding: str, size: int, tmp_path: Path) -> None:
    """Small images in shards are mostly headers."""
    files = {f"{'cat' if i % 2 else 'dog'}/{i}.jpg": jpeg(i, size, size) for i in range(60)}
    out = pack(write_files(tmp_path / "set", files), tmp_path / "out", size, encoding=encoding)
    taken = sum(len(x) for name, x in payload(out).items() if name != "mean.npy")
    assert 0.6 * taken < expected_bytes(60, size, 3, encoding) < 1.6 * taken


def test_enough_space_is_enough(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    needed = sum(len(x) for x in payload(pack(tree, tmp_path / "first")).values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * needed))
    assert looks_finished(pack(tree, tmp_path / "second"))


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
        commands.data_pack(tree, out=tmp_path / "out", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"encoding": "webp"}, {"orient": "aply"}])
def test_words_that_cannot_be(options: dict[str, str], tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        commands.data_pack(tree, out=tmp_path / "out", size=8, **options)  # type: ignore[arg-type]
