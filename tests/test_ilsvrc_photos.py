"""Real photos in the official shapes: from archives to a classification, and a pack that dies."""

import gzip
import io
import json
import multiprocessing
import random
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet
from alexnet.cli import main
from archives import encode, pack_and_die, picture, train_tar, write_kit, write_tar
from conftest import without_pictures
from official import NAMES


@dataclass(frozen=True)
class Real:
    """Archives in the official shapes from photos of the shared data. `order` is by ID from 1."""

    root: Path
    photos: dict[str, bytes]
    order: tuple[str, ...]
    truth: list[int]
    train: int
    planted: dict[str, list[str]]
    broken: str


def write_real(shared: Path, root: Path, count: int) -> Real:
    """So many classes of ImageNet, two or more photos each, with odd files planted."""
    photos: dict[str, bytes] = {}
    with tarfile.open(shared / "data/imagenet-samples.tar") as archive:
        for member in archive:
            if member.isreg() and member.name.endswith(".JPEG") and member.size < 250_000:
                stream = archive.extractfile(member)
                assert stream is not None
                photos[member.name.split("/")[0]] = stream.read()
    known = ("n02105855", "n02747177")  # of files that TensorFlow's list names
    step = max(len(photos) // count, 1)
    chosen = sorted({*known, *sorted(photos)[::step]} & photos.keys())[:count]
    shuffled = tuple(chosen[i] for i in np.random.default_rng(0).permutation(len(chosen)))
    classes, val = {}, {}
    truth = [int(i) for i in np.random.default_rng(1).permutation(len(chosen)) + 1]
    for wnid in chosen:
        image = Image.open(io.BytesIO(photos[wnid])).convert("RGB")
        image.thumbnail((160, 160))
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        classes[wnid] = {f"{wnid}_10.JPEG": photos[wnid], f"{wnid}_9.JPEG": encode(mirrored)}
    for number, one in enumerate(truth, 1):
        image = Image.open(io.BytesIO(photos[shuffled[one - 1]])).convert("RGB")
        val[f"ILSVRC2012_val_{number:08d}.JPEG"] = encode(image.resize((90, 70)))
    odd = picture(0, 90, 80)
    first, second = chosen[0], chosen[1]
    classes[first][f"{first}_1.JPEG"] = gzip.compress(photos[first])
    classes[second][f"{second}_1.JPEG"] = encode(odd.convert("CMYK"))
    classes[second][f"{second}_2.JPEG"] = photos[second] + b"\0" * 7
    classes[second][f"{second}_3.JPEG"] = photos[second][:-3000]
    classes[known[0]]["n02105855_2933.JPEG"] = encode(odd, "PNG")
    counts = {wnid: len(files) for wnid, files in classes.items()}
    write_kit(root, "ILSVRC2012", counts, truth, shuffled, {})
    (root / NAMES["ILSVRC2012"]["train"]).write_bytes(train_tar(classes))
    write_tar(root / NAMES["ILSVRC2012"]["val"], val)
    planted = {
        f"{first}_1.JPEG": ["gzip-compressed"],
        f"{second}_1.JPEG": ["CMYK"],
        f"{second}_2.JPEG": ["7 bytes after the end"],
        "n02105855_2933.JPEG": ["PNG named .JPEG"],
    }
    train = sum(counts.values())
    return Real(root, photos, shuffled, truth, train, planted, f"{second}_3.JPEG")


@pytest.mark.data
def test_real_photos_from_archives_to_a_classification(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 classes of ImageNet in the official shapes with odd files, packed, trained on, tested."""
    without_pictures(monkeypatch)
    real = write_real(shared, tmp_path / "archives", 40)
    chosen = sorted(real.order)
    assert len(chosen) == 40
    out, run = tmp_path / "packed", tmp_path / "run"
    words = ["data", "pack", str(real.root), "--out", str(out), "--size", "64"]
    assert main([*words, "--expect", f"train={real.train}", "val=40"]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == chosen
    assert manifest["counts"] == {"train": 84, "val": 40}
    assert [Path(x["path"]).name for x in manifest["refused"]] == [real.broken]
    repairs = {Path(x["path"]).name: x["repairs"] for x in manifest["repairs"]}
    assert real.planted.items() <= repairs.items()
    labels = np.load(out / "val.labels.npy").tolist()
    assert [chosen[label] for label in labels] == [real.order[one - 1] for one in real.truth]

    fields = {"size": 64, "crop": 32, "steps": 3, "batch_size": 16, "model": "cuda-convnet-18"}
    fields |= {"precision": "fp32", "eval_batch": 40, "dropout": None}
    fields |= {"doctor": "off"}
    alexnet.train("photos", data=out, run=run, **fields)
    result = alexnet.test(run, views=10)
    assert [row.n for row in result.per_class] == [1] * 40
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(real.photos[chosen[0]])
    (one,) = alexnet.classify(run, [photo], views=10).results
    assert len(one.top) == 5
    assert {entry.class_name for entry in one.top} <= set(chosen)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_twenty_kills_of_a_pack_of_real_photos(encoding: str, shared: Path, tmp_path: Path) -> None:
    """All the photos in the official shapes, at 256 pixels, killed by the clock."""
    real = write_real(shared, tmp_path / "archives", 500)
    forked = multiprocessing.get_context("forkserver")
    shuffle = random.Random(7)

    def run(out: Path, seconds: float | None) -> int | None:
        words = (str(real.root), str(out), encoding, 32, 10**9, 256)
        process = forked.Process(target=pack_and_die, args=words)
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode

    began = time.monotonic()
    assert run(tmp_path / "whole", None) == 0
    whole = time.monotonic() - began
    kills, out = 0, tmp_path / "out"
    while kills < 20:
        # Mostly too short to end; a pack that ended is begun anew.
        if run(out, shuffle.uniform(0.2, 1) * whole / 4) == 0:
            shutil.rmtree(out)
        else:
            kills += 1
            assert not (out / "manifest.json").exists() or run(out, None) == 0
    assert run(out, None) == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()} - {".lock"}  # of a process
    assert {path.name for path in out.iterdir()} - {".lock"} == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
