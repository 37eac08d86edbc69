"""What `alexnet data pack` writes, that it can be killed, and training from it."""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet
import alexnet.engine.train as engine
from alexnet import commands
from alexnet.cli import main
from alexnet.data import pack as packer
from alexnet.data.dataset import open_dataset
from alexnet.data.payload import expected_bytes
from alexnet.data.sources import open_source
from alexnet.errors import CheckpointError, DataError, Interrupted, UsageError
from alexnet.recipebook import find_recipe
from archives import encode, jpeg, pack_and_die, picture, write_files, write_tar, write_zip
from conftest import patterns, without_report, write_idx

# Listings leave their files to the garbage collector: see test_check.test_files_are_closed.

SIZE = 16
KEYS = {
    *("format", "key", "kind", "classes", "titles", "counts", "size", "channels", "encoding"),
    *("orient", "source", "mean", "std", "covariance", "repairs", "refused", "across", "others"),
    *("payload", "pca"),
}


def pack(source: Path, out: Path, size: int = SIZE, **options: Any) -> Path:
    commands.data_pack(source, out=out, size=size, **options)
    return out


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def payload(out: Path) -> dict[str, bytes]:
    """All of a packed set but the manifest, the lock and what a kill may leave: see
    test_a_kill_leaves_no_litter."""
    skip = ("manifest.json", ".lock")
    files = (f for f in out.iterdir() if f.is_file() and f.name not in skip)
    files = (f for f in files if not f.name.startswith(".tmp-"))
    return {f.name: f.read_bytes() for f in files}


def fitted(data: bytes, size: int = SIZE) -> np.ndarray:
    """The whole image resized, antialiased, and its centre cut out: another way than ours."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    width, height = rgb.size
    short = min(width, height)
    wide, high = size * width // short, size * height // short
    whole = np.asarray(rgb.resize((wide, high), Image.Resampling.BILINEAR))
    top, left = round((high - size) / 2), round((wide - size) / 2)
    return whole[top : top + size, left : left + size]


def make_files() -> dict[str, bytes]:
    """Good files of two classes in three parts. One class's name begins as the other's."""
    shapes = [(40, 30), (30, 40), (33, 33), (101, 24), (SIZE, SIZE), (9, 12), (17, 64)]
    files = {}
    for split, count in (("train", 9), ("val", 3), ("test", 2)):
        for c, name in enumerate(("cat", "cat-like")):
            for i in range(count):
                seed = 100 * len(files) + c
                image = picture(seed, *shapes[len(files) % len(shapes)])
                if i % 3 == 2:
                    files[f"{split}/{name}/{i}.png"] = encode(image, "PNG")
                else:
                    files[f"{split}/{name}/{i}.jpg"] = encode(image, quality=92)
    return files


FILES = make_files()
ODD = {
    "train/cat/gz.jpg": gzip.compress(jpeg(900)),
    "train/cat/named.jpg": encode(picture(901), "PNG"),
    "train/cat-like/cmyk.jpg": encode(picture(902).convert("CMYK")),
}
BROKEN = {"train/cat/0-broken.jpg": jpeg(903, 80, 80)[:-900], "val/cat/empty.jpg": b""}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("tree") / "set", FILES | ODD | BROKEN)


@pytest.fixture(scope="module")
def raw(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tree, tmp_path_factory.mktemp("packed") / "raw")


@pytest.fixture(scope="module")
def shards(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packer, "COMMIT", 8)
        yield pack(tree, tmp_path_factory.mktemp("packed") / "jpeg", encoding="jpeg")


GOOD = FILES | {k: gzip.decompress(v) if "gz" in k else v for k, v in ODD.items()}


def names_of(split: str) -> list[str]:
    return sorted(name for name in GOOD if name.startswith(f"{split}/"))


# what is written


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_raw_is_a_plain_array_of_the_right_pixels(split: str, raw: Path) -> None:
    found = np.load(raw / f"{split}.npy", mmap_mode="r", allow_pickle=False)
    names = names_of(split)
    assert isinstance(found, np.memmap)
    assert (found.dtype, found.shape) == (np.uint8, (len(names), SIZE, SIZE, 3))
    assert (raw / f"{split}.npy").stat().st_size == 128 + found.size
    for image, name in zip(found, names, strict=True):
        difference = np.abs(image.astype(int) - fitted(GOOD[name]))
        assert difference.max() <= 1, name


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels_and_names_go_with_the_pixels(split: str, raw: Path, shards: Path) -> None:
    names = names_of(split)
    labels = [("cat", "cat-like").index(name.split("/")[1]) for name in names]
    for out in (raw, shards):
        assert (out / f"{split}.names.txt").read_text().splitlines() == names
        found = np.load(out / f"{split}.labels.npy", allow_pickle=False)
        assert (found.dtype, found.tolist()) == (np.int64, labels)


def test_a_single_channel(tree: Path, tmp_path: Path) -> None:
    out = pack(tree, tmp_path / "grey", channels=1)
    found = np.load(out / "train.npy")
    assert found.shape[1:] == (SIZE, SIZE, 1)
    for image, name in zip(found, names_of("train"), strict=True):
        weights = np.array([0.299, 0.587, 0.114])
        expected = fitted(GOOD[name]) @ weights  # grey before the resize or after: nearly the same
        assert np.abs(image[..., 0] - expected).max() <= 2, name
    assert len(manifest(out)["mean"]) == 1


def test_orientation_is_applied_where_it_is_wanted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {f"{c}/1.png": encode(picture(i, 16, 16), "PNG", exif=exif) for i, c in enumerate("ab")}
    tree = write_files(tmp_path / "tree", files)
    lies = np.load(pack(tree, tmp_path / "lies") / "all.npy")
    up = np.load(pack(tree, tmp_path / "up", orient="apply") / "all.npy")
    for i in range(2):
        np.testing.assert_array_equal(lies[i], np.asarray(picture(i, 16, 16)))
        np.testing.assert_array_equal(up[i], np.rot90(lies[i], -1))


def read_shards(out: Path, split: str) -> tuple[list[str], list[bytes], list[int]]:
    """What a plain reader of WebDataset shards sees."""
    keys, images, labels = [], [], []
    for shard in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None
                key, suffix = member.name.split(".")
                if suffix == "jpg":
                    keys.append(key)
                    images.append(stream.read())
                else:
                    assert (suffix, key) == ("cls", keys[-1])
                    labels.append(int(stream.read()))
    return keys, images, labels


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shards_are_webdataset_with_an_index(split: str, raw: Path, shards: Path) -> None:
    keys, images, labels = read_shards(shards, split)
    assert keys == [f"{i:08d}" for i in range(len(names_of(split)))]
    assert labels == np.load(shards / f"{split}.labels.npy").tolist()
    index = np.load(shards / f"{split}.index.npy", allow_pickle=False)
    assert (index.dtype, index.shape) == (np.int64, (len(images), 3))
    for (shard, offset, size), image in zip(index.tolist(), images, strict=True):
        data = (shards / f"{split}-{shard:05d}.tar").read_bytes()
        assert data[offset : offset + size] == image
    pixels = np.load(raw / f"{split}.npy")
    for image, expected, name in zip(images, pixels, names_of(split), strict=True):
        with Image.open(io.BytesIO(image)) as opened:
            assert (opened.format, opened.size, opened.mode) == ("JPEG", (SIZE, SIZE), "RGB")
            error = np.asarray(opened).astype(int) - expected
        assert np.abs(error).mean() < 12, name  # 4:2:0 of small noisy pictures


def test_several_shards_were_made(shards: Path) -> None:
    assert len(list(shards.glob("train-*.tar"))) == 3  # of 23 files in blocks of 8, two broken


def test_a_jpeg_of_the_right_size_is_kept_as_it_is(shards: Path) -> None:
    _, images, _ = read_shards(shards, "train")
    stored = dict(zip(names_of("train"), images, strict=True))
    kept = {n for n, data in stored.items() if data == GOOD[n]}
    expected = set()
    for name in stored:
        with Image.open(io.BytesIO(GOOD[name])) as image:
            if image.format == "JPEG" and image.size == (SIZE, SIZE) and name not in ODD:
                expected.add(name)
    assert kept == expected
    assert kept


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_what_is_measured(encoding: str, raw: Path, shards: Path) -> None:
    out = {"raw": raw, "jpeg": shards}[encoding]
    if encoding == "raw":
        pixels = np.load(raw / "train.npy").astype(float)
    else:
        decoded = (Image.open(io.BytesIO(image)) for image in read_shards(shards, "train")[1])
        pixels = np.stack([np.asarray(image) for image in decoded]).astype(float)
    flat, said = pixels.reshape(-1, 3), manifest(out)
    np.testing.assert_allclose(said["mean"], flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(said["std"], flat.std(0), rtol=1e-9)
    np.testing.assert_allclose(said["covariance"], np.cov(flat.T, bias=True), rtol=1e-9)
    values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
    np.testing.assert_allclose(said["pca"]["eigenvalues"], values, rtol=1e-6)
    same = np.abs(np.sum(np.array(said["pca"]["eigenvectors"]) * vectors.T, axis=1))
    np.testing.assert_allclose(same, 1, rtol=1e-6)
    mean = np.load(out / "mean.npy", allow_pickle=False)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_manifest_says_what_is_there(encoding: str, raw: Path, shards: Path) -> None:
    out = {"raw": raw, "jpeg": shards}[encoding]
    said = manifest(out)
    assert set(said) == KEYS
    assert said["classes"] == ["cat", "cat-like"]
    assert said["counts"] == {s: len(names_of(s)) for s in ("train", "val", "test")}
    assert (said["size"], said["channels"], said["encoding"]) == (SIZE, 3, encoding)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in payload(out).items()}
    assert {name: entry["sha256"] for name, entry in said["payload"].items()} == hashes
    for name, entry in said["payload"].items():
        assert entry["bytes"] == (out / name).stat().st_size
    everything = FILES | ODD | BROKEN
    in_order = [sorted(n for n in everything if n.startswith(s)) for s in ("train", "val", "test")]
    digests = (hashlib.sha256(everything[name]).digest() for part in in_order for name in part)
    assert said["source"]["files"] == len(everything)
    assert said["source"]["sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()


def test_repairs_and_refusals_are_named(tree: Path, raw: Path) -> None:
    said = manifest(raw)
    assert {x["path"]: x["repairs"] for x in said["repairs"]} == {
        "train/cat-like/cmyk.jpg": ["CMYK"],
        "train/cat/gz.jpg": ["gzip-compressed"],
        "train/cat/named.jpg": ["PNG named .jpg"],
    }
    reasons = {x["path"]: x["reason"] for x in said["refused"]}
    assert reasons.keys() == BROKEN.keys()
    assert reasons["val/cat/empty.jpg"] == "empty"
    assert "truncated" in reasons["train/cat/0-broken.jpg"]
    assert {n: (tree / n).read_bytes() for n in FILES | ODD | BROKEN} == FILES | ODD | BROKEN


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("container", ["folder 0", "folder 4", "tar 1", "zip 2"])
def test_the_same_bytes_from_everywhere(
    container: str, encoding: str, raw: Path, tree: Path, tmp_path: Path,
    shards: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    form, workers = container.split()
    monkeypatch.setattr(packer, "PIECE", 3)
    if encoding == "jpeg":
        monkeypatch.setattr(packer, "COMMIT", 8)
    source = tree
    if form != "folder":
        write = {"tar": write_tar, "zip": write_zip}[form]
        source = write(tmp_path / f"set.{form}", FILES | ODD | BROKEN)
    out = pack(source, tmp_path / "out", encoding=encoding, workers=int(workers))
    expected = {"raw": raw, "jpeg": shards}[encoding]
    assert payload(out) == payload(expected)
    mine, theirs = manifest(out), manifest(expected)
    mine["source"]["name"] = theirs["source"]["name"]
    data = source.read_bytes() if source.is_file() else b""
    archive = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert mine["source"].pop("archives") == ({source.name: archive} if data else {})
    assert theirs["source"].pop("archives") == {}
    assert mine == theirs


# killed


context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["alexnet.commands"])


def pack_until(source: Path, out: Path, encoding: str, deadly: int) -> int | None:
    """The exit status of a pack that kills itself at a change to the disk; -9 if it did."""
    process = context.Process(
        target=pack_and_die, args=(str(source), str(out), encoding, 8, deadly)
    )
    process.start()
    process.join(60)
    status = process.exitcode
    process.close()
    return status


def looks_finished(out: Path) -> bool:
    return (out / "manifest.json").exists()


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_killed_and_continued_it_ends_with_the_same_bytes(
    encoding: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at nine places of one pack, before a sync, a rename or a removal: at the first, at
    random ones, while the payload is moved, before the manifest and after it. Those of random
    places die once more where they continue."""
    monkeypatch.setattr(packer, "COMMIT", 8)
    whole = pack(tree, tmp_path / "whole", encoding=encoding)
    expected = payload(whole) | {"manifest.json": (whole / "manifest.json").read_bytes()}
    made = changes(tree, tmp_path / "counted", encoding)
    manifest_at = len(made) - 1 - made[::-1].index("replace")
    shuffle = random.Random(5)
    places = shuffle.sample(range(1, manifest_at - 6), 4)
    for deadly in (*places, 0, *(manifest_at + more for more in (-6, -3, 0, 3))):
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
        pack(tree, out, encoding=encoding)
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packer, "COMMIT", 8)
        for name in ("fsync", "replace", "unlink", "rmdir"):
            real = getattr(os, name)

            def noted(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                made.append(name)
                return real(*args, **options)

            patch.setattr(os, name, noted)
        pack(source, out, encoding=encoding)
    return made


def test_killed_by_the_clock(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "COMMIT", 8)
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


# refused beforehand


def test_a_finished_pack_is_not_done_again(
    raw: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in raw.iterdir()}
    monkeypatch.setattr(packer, "examine", None)
    result = commands.data_pack(tree, out=raw, size=SIZE)
    assert result["counts"] == manifest(raw)["counts"]
    assert {f.name: f.stat().st_mtime_ns for f in raw.iterdir()} == before


def test_another_set_does_not_go_into_a_finished_one(raw: Path, tree: Path, tmp_path: Path) -> None:
    other = write_files(tmp_path / "other", {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2)})
    before = payload(raw)
    for source, options in ((tree, {"size": 8}), (tree, {"encoding": "jpeg"}), (other, {})):
        with pytest.raises(UsageError, match="holds another packed set"):
            pack(source, raw, **options)  # type: ignore[arg-type]
    assert payload(raw) == before


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


def test_small_images_keep_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CIFAR-10 at the paper's 256 pixels would be 11.8 GB of enlarged pixels."""
    files = {f"{'cat' if i % 2 else 'dog'}/{i}.png": encode(picture(i, 32, 32), "PNG")
             for i in range(4)}  # fmt: skip
    source = write_files(tmp_path / "set", files)
    result = commands.data_pack(source, out=tmp_path / "out")
    assert (result["size"], manifest(tmp_path / "out")["size"]) == (32, 32)
    assert "images of 32 x 32 pixels: packing at their own, --size 32" in capsys.readouterr().err
    assert commands.data_pack(source, out=tmp_path / "large", size=64)["size"] == 64
    said = "most images are enlarged: the shorter side is 32 pixels (median of 4), --size is 64"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("sides", [(200, 200), (30, 40), (300, 400)])
def test_others_are_packed_as_the_paper_has_it(
    sides: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"{side}-{i}/1.jpg": jpeg(i, side, side) for i, side in enumerate(sides)}
    files[f"{sides[1]}-1/2.jpg"] = b"not an image, and no reason not to look at the others"
    source = write_files(tmp_path / "a", files)
    assert commands.data_pack(source, out=tmp_path / "b")["size"] == 256
    assert ("most images are enlarged" in capsys.readouterr().err) == (sides[0] < 256)


def test_a_class_of_which_nothing_could_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2), "bird/1.jpg": b""}
    source = write_files(tmp_path / "set", files)
    words = ["data", "pack", str(source), "--out", str(tmp_path / "out"), "--size", "8"]
    for _ in range(2):  # also of a set that is packed already
        assert main(words) == 0
        assert "no training image of bird: add some and pack again" in capsys.readouterr().out


def test_enough_space_is_enough(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    needed = sum(len(x) for x in payload(pack(tree, tmp_path / "first")).values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * needed))
    assert looks_finished(pack(tree, tmp_path / "second"))


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    return write_files(tmp_path / "mine", {"letter.txt": b"dear"})


def test_a_folder_of_something_else_is_not_packed_into(occupied: Path, tree: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        pack(tree, occupied)
    assert (occupied / "letter.txt").read_bytes() == b"dear"
    with pytest.raises(CheckpointError, match=r"cannot write .*choose another folder"):
        pack(tree, occupied / "letter.txt")


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


def test_a_folder_of_something_else_is_left_alone(occupied: Path, tree: Path) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        pack(tree, occupied)
    assert [f.name for f in occupied.iterdir()] == ["letter.txt"]


def test_nothing_readable_is_said(tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {"a/1.jpg": b"text", "b/1.jpg": b""})
    with pytest.raises(DataError, match="no training image could be read"):
        pack(tree, tmp_path / "out")
    assert not looks_finished(tmp_path / "out")


def test_counts_that_are_meant(tree: Path, tmp_path: Path) -> None:
    words = ["data", "pack", str(tree), "--out", str(tmp_path / "out"), "--size", "8"]
    assert main([*words, "--expect", "train=21"]) == 2
    assert not (tmp_path / "out").exists()
    assert main([*words, "--expect", "train"]) == 2
    assert main([*words, "--expect", "train=22", "val=7", "test=4"]) == 0


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


@pytest.mark.parametrize("source", ["nothing", "one class", "unknown class", "text"])
def test_sources_that_cannot_be(source: str, tmp_path: Path) -> None:
    files, why = {
        "nothing": ({}, "no such file or folder"),
        "one class": ({"a/1.jpg": b""}, r"one class cannot be classified"),
        "unknown class": (
            {"train/a/1.jpg": b"", "train/b/1.jpg": b"", "val/c/1.jpg": b""},
            "val has the class 'c', which train has not",
        ),
        "text": ({"a/1.txt": b""}, "holds no image"),
    }[source]
    with pytest.raises(DataError, match=why):
        pack(write_files(tmp_path / "source", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# arrays


def test_idx_is_packed_as_it_is(tmp_path: Path) -> None:
    images, labels = patterns(30)
    write_idx(tmp_path / "idx", "train", images, labels)
    write_idx(tmp_path / "idx", "t10k", images[:10][::-1], labels[:10][::-1])
    out = pack(tmp_path / "idx", tmp_path / "out", size=28, channels=1)
    np.testing.assert_array_equal(np.load(out / "train.npy")[..., 0], images)
    np.testing.assert_array_equal(np.load(out / "test.npy")[..., 0], images[9::-1])
    assert np.load(out / "train.labels.npy").tolist() == labels.tolist()
    assert manifest(out)["classes"] == list("0123456789")


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_cifar_is_packed_as_it_is(encoding: str, tmp_path: Path) -> None:
    made = np.random.default_rng(0)
    smooth = [np.asarray(picture(i, 32, 32)) for i in range(12)]
    labels = made.integers(0, 10, 12)
    records = [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(smooth, labels, strict=True)
    ]
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = {name: b"".join(records[2 * i : 2 * i + 2]) for i, name in enumerate(names)}
    source = write_files(tmp_path / "cifar-10-batches-bin", files)
    out = pack(source, tmp_path / "out", size=32, encoding=encoding)
    for split, first, last in (("train", 0, 10), ("test", 10, 12)):
        assert np.load(out / f"{split}.labels.npy").tolist() == labels[first:last].tolist()
        if encoding == "raw":
            np.testing.assert_array_equal(np.load(out / f"{split}.npy"), smooth[first:last])
        else:
            for i, data in enumerate(read_shards(out, split)[1], first):
                with Image.open(io.BytesIO(data)) as image:
                    assert np.abs(np.asarray(image).astype(int) - smooth[i]).mean() < 8


# training


FIELDS: dict[str, Any] = {
    **{"size": 36, "crop": 32, "steps": 6, "batch_size": 8, "eval_every": 1.0, "save_every": 3},
    **{"model": "cuda-convnet-18", "dropout": None},
    **{"precision": "fp32", "workers": 2, "cutout": 4, "log_every": 2, "eval_batch": 16},
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


@pytest.fixture(scope="module")
def same_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNGs and JPEGs of the stored size in three parts: nothing is resized, encoded or moved."""
    files = {}
    for split, count in (("train", 10), ("val", 5), ("test", 5)):
        for c in "abc":
            for i in range(count):
                image = picture(1000 * "abc".index(c) + 10 * len(files) + i, 36, 36)
                files[f"{split}/{c}/{i:02}.png"] = encode(image, "PNG")
    return write_files(tmp_path_factory.mktemp("same") / "tree", files)


@pytest.fixture(scope="module")
def sets(same_size: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    made = {e: pack(same_size, root / e, size=36, encoding=e) for e in ("raw", "jpeg")}
    return {"tree": same_size, **made}


def weights(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints/last"
    return {n: (folder / f"{n}.safetensors").read_bytes() for n in ("model", "optimizer")}


def train(data: Path, run: Path, **fields: Any) -> Path:
    commands.train("photos", data=data, run=run, **FIELDS | fields)
    return run


def test_the_same_weights_as_from_the_tree(sets: dict[str, Path], tmp_path: Path) -> None:
    """Sorted alike, split alike: the runs are the same bit for bit."""
    expected = weights(train(sets["tree"], tmp_path / "tree"))
    assert weights(train(sets["raw"], tmp_path / "raw", workers=0)) == expected


def test_the_same_weights_from_jpegs_kept_as_they_are(tmp_path: Path) -> None:
    files = {
        # Colours at full size: of smaller ones reading back makes the quick enlargement.
        f"{split}/{c}/{i:02}.jpg": encode(
            picture(70 * i + ord(c) + len(split), 36, 36), quality=90, subsampling="4:4:4"
        )
        for split, count in (("train", 10), ("val", 3), ("test", 4))
        for c in "abc"
        for i in range(count)
    }
    tree = write_files(tmp_path / "tree", files)
    out = pack(tree, tmp_path / "packed", size=36, encoding="jpeg")
    expected = weights(train(tree, tmp_path / "run-1"))
    assert weights(train(out, tmp_path / "run-2")) == expected


class Cut(Exception):
    """Stands in for a kill."""


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_exact_resume(encoding: str, sets: dict[str, Path], tmp_path: Path) -> None:
    whole = train(sets[encoding], tmp_path / "whole")
    real = engine.save_checkpoint

    def save_and_die(root: Path, step: int, **rest: Any) -> Path:
        made = real(root, step, **rest)
        if step == 3:
            raise Cut
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "save_checkpoint", save_and_die)
        with pytest.raises(Cut):
            train(sets[encoding], tmp_path / "cut")
    assert weights(tmp_path / "cut") != weights(whole)
    commands.train(resume=True, run=tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(whole)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_ten_views(encoding: str, sets: dict[str, Path], tmp_path: Path) -> None:
    run = train(sets[encoding], tmp_path / "run", steps=3)
    result = commands.test(run, views=10)
    assert [(row["class"], row["n"]) for row in result["per_class"]] == [(c, 5) for c in "abc"]
    assert np.isfinite(result["loss"])
    assert result["views"] == 10


def test_another_size_is_refused_with_both_numbers(
    sets: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "photos", "--data", str(sets["raw"]), "--run", str(tmp_path / "run")]
    assert main([*words, "--size", "72", "--crop", "64"]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "packed at 36 pixels" in line
    assert "--size 36" in line
    assert "the recipe stores 72" in line


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_damaged_payload_is_named(
    damage: str, encoding: str, sets: dict[str, Path], tmp_path: Path
) -> None:
    names = sorted(manifest(sets[encoding])["payload"])
    assert len(names) >= 10
    for name in names:
        copy = tmp_path / name
        shutil.copytree(sets[encoding], copy)
        if damage == "cut":
            os.truncate(copy / name, (copy / name).stat().st_size - 1)
        else:
            (copy / name).unlink()
        with pytest.raises(DataError, match=f"{name}: missing or cut"):
            train(copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"size": 36}'])
def test_a_damaged_manifest_is_one_line(
    content: bytes, sets: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sets["raw"], copy)
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        train(copy, tmp_path / "run")


def test_the_test_slice_is_not_measured(tmp_path: Path) -> None:
    files = {
        f"{c}/{i:02}.png": encode(picture(100 * ord(c) + i, 36, 36), "PNG")
        for c in "ab"
        for i in range(10)
    }
    out = pack(write_files(tmp_path / "tree", files), tmp_path / "out", size=36)
    dataset = open_dataset(find_recipe("photos").replace(size=36, crop=32), out)
    train = dataset.split("train")
    seen = train.read(np.arange(len(train)))
    np.testing.assert_allclose(dataset.statistics.mean, seen.reshape(-1, 3).mean(0), rtol=1e-9)


# what people do


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    """As subsets of a large set are made; a link that leads back is not followed for ever."""
    tree = write_files(tmp_path / "real", {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2)})
    train = tmp_path / "linked/train"
    train.mkdir(parents=True)
    for name in ("cat", "dog"):
        (train / name).symlink_to(tree / name)
    (tree / "cat/again").symlink_to(train)
    said = manifest(pack(tmp_path / "linked", tmp_path / "out"))
    assert (said["counts"], said["classes"]) == ({"train": 2}, ["cat", "dog"])


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAINING", "testing")])
def test_splits_in_any_case(names: tuple[str, str], tmp_path: Path) -> None:
    """Otherwise test images would be trained on."""
    files = {
        f"{split}/{label}/{i}.jpg": jpeg(10 * i + len(split))
        for split in names
        for label in ("a", "b")
        for i in range(3)
    }
    tree = write_files(tmp_path / "tree", files)
    assert manifest(pack(tree, tmp_path / "out"))["counts"] == {"train": 6, "test": 6}
    assert set(alexnet.data_check(tree)["counts"]) == {"train", "test"}
    assert set(open_source(tree).parts) == {"train", "test"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("train/a/1.jpg", "train/b/1.jpg", "holdout/a/1.jpg"), "beside the splits.*holdout/a"),
        (("learn/a/1.jpg", "learn/b/1.jpg", "val/a/1.jpg"), "beside the splits"),
        (("train/a/1.jpg", "train/b/1.jpg", "train/stray.jpg"), "no class folder.*stray.jpg"),
        (("val/a/1.jpg", "val/b/1.jpg"), "no train"),
        (("1.jpg", "2.jpg"), "no class folder"),
    ],
    ids=["beside", "misnamed", "stray", "val alone", "flat"],
)
def test_what_would_be_used_wrongly(files: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """One line, and `data check` says it too."""
    tree = write_files(tmp_path / "tree", {name: jpeg(i) for i, name in enumerate(files)})
    with pytest.raises(DataError, match=said):
        pack(tree, tmp_path / "out")
    assert re.search(said, alexnet.data_check(tree)["note"])


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


def test_names_that_are_not_utf8_or_hold_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = write_files(tmp_path / "tree", {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2)})
    for name in (b"caf\xe9.jpg", b"red\x1b[31m.jpg", b"two\nlines.jpg"):
        with open(os.path.join(os.fsencode(tree), b"a", name), "wb") as file:
            file.write(jpeg(3) if name[0] != ord("r") else b"text")
    assert main(["data", "pack", str(tree), "--out", str(tmp_path / "out"), "--size", "16"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "red\\x1b[31m.jpg" in out
    lines = (tmp_path / "out/all.names.txt").read_bytes().splitlines()
    assert sorted(lines) == [b"a/1.jpg", b"a/caf\\udce9.jpg", b"a/two\\nlines.jpg", b"b/1.jpg"]
    assert main(["data", "check", str(tree)]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_the_same_image_in_two_splits_is_said(tmp_path: Path) -> None:
    files = {"train/a/1.jpg": jpeg(1), "train/b/1.jpg": jpeg(2), "val/a/9.jpg": jpeg(1)}
    tree = write_files(tmp_path / "tree", {**files, "val/b/9.jpg": jpeg(3)})
    assert commands.data_pack(tree, out=tmp_path / "out", size=8)["across"] == 1


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    """Nobody knows whether 1 is white."""
    data = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(data, "TIFF")
    files = {"a/1.jpg": jpeg(1), "b/1.jpg": jpeg(2), "b/2.tif": data.getvalue()}
    tree = write_files(tmp_path / "tree", files)
    result = commands.data_pack(tree, out=tmp_path / "out", size=8)
    assert [entry["path"] for entry in result["refused"]] == ["b/2.tif"]


def test_a_split_that_is_meant_has_to_be_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no all"):
        pack(tree, tmp_path / "out", expect={"all": 5})


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_signal_saves_what_is_packed(encoding: str, tmp_path: Path) -> None:
    """Raw pixels to the last image that was ready; a shard is written whole or not at all."""
    names = [f"{label}/{i:03d}.jpg" for label in "ab" for i in range(20)]
    tree = write_files(tmp_path / "tree", {name: jpeg(i) for i, name in enumerate(names)})
    real, seen = packer.examine, []

    def slow(*args: Any, **options: Any) -> Any:
        seen.append(args[1])
        if len(seen) == 18:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packer, "examine", slow)
        with pytest.raises(Interrupted):
            pack(tree, tmp_path / "out", encoding=encoding, workers=0)
    state = tmp_path / "out/.packing/state.json"
    done = json.loads(state.read_text())["done"] if state.exists() else {}
    assert done.get("all", 0) >= (16 if encoding == "raw" else 0)
    assert encoding == "raw" or done.get("all", 0) % packer.COMMIT == 0
    whole = pack(tree, tmp_path / "whole", encoding=encoding)
    assert payload(pack(tree, tmp_path / "out", encoding=encoding)) == payload(whole)


def test_what_is_no_image_is_counted(
    tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tree, tmp_path / "source"))
    for name in ("a.txt", "b.txt", "c.csv"):
        (source / name).write_text("x")
    before = manifest(pack(tree, tmp_path / "before"))["others"]
    assert main(["data", "pack", str(source), "--out", str(tmp_path / "out"), "--size", "8"]) == 0
    others = manifest(tmp_path / "out")["others"]
    assert others.get(".txt", 0) == before.get(".txt", 0) + 2
    assert others.get(".csv", 0) == before.get(".csv", 0) + 1
    assert "not read     " in capfd.readouterr().out
