"""What `alexnet data pack` writes: pixels, labels, shards, statistics and the manifest."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives import encode, pack_in_blocks, picture, write_files, write_tar, write_zip
from conftest import patterns, write_idx
from packs import BROKEN, FILES, ODD, SIZE, manifest, pack, payload
from packs import raw as raw
from packs import tree as tree

KEYS = {
    *("format", "key", "kind", "classes", "titles", "counts", "size", "channels", "encoding"),
    *("orient", "source", "mean", "std", "covariance", "repairs", "refused", "across", "others"),
    *("payload", "pca"),
}


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


@pytest.fixture(scope="module")
def shards(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "jpeg"
    return pack_in_blocks(tree, out, encoding="jpeg", block=8)


GOOD = FILES | {k: gzip.decompress(v) if "gz" in k else v for k, v in ODD.items()}


def names_of(split: str) -> list[str]:
    return sorted(name for name in GOOD if name.startswith(f"{split}/"))


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
    container: str, encoding: str, raw: Path, tree: Path, tmp_path: Path, shards: Path
) -> None:
    form, workers = container.split()
    source = tree
    if form != "folder":
        write = {"tar": write_tar, "zip": write_zip}[form]
        source = write(tmp_path / f"set.{form}", FILES | ODD | BROKEN)
    block = {"raw": 1024, "jpeg": 8}[encoding]
    out = pack_in_blocks(
        source, tmp_path / "out", encoding=encoding, workers=int(workers), block=block, piece=3
    )
    expected = {"raw": raw, "jpeg": shards}[encoding]
    assert payload(out) == payload(expected)
    mine, theirs = manifest(out), manifest(expected)
    mine["source"]["name"] = theirs["source"]["name"]
    data = source.read_bytes() if source.is_file() else b""
    archive = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert mine["source"].pop("archives") == ({source.name: archive} if data else {})
    assert theirs["source"].pop("archives") == {}
    assert mine == theirs


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
