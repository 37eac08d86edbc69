"""Three small runs as 0.1.0 made them, by its own source, for tests that later ones read.

    python -m scripts.old_runs COMMIT [--force]

Writes tests/runs-0.1.0/: a run that was stopped between two epochs, one on a folder of photos that
was trained to its end, one on a packed set from given weights, the packed set, and in expected.json
what that source then answers. The runs are trained below a folder of no machine's own, so that the
paths in them say nothing of where they were made. They are small because their network is the
smallest there is; because weights that start as zeros between zeros stay zeros, so that most of two
of the runs packs to nothing; and because what can be drawn anew is left out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.old_runs import (
    DATA,
    KINDS,
    PLACE,
    RUNS,
    kept,
    machine,
    make_data,
    make_photos,
    questions,
)

from alexnet.models.zoo import build_model

ROOT = Path(__file__).resolve().parents[1]
MODEL = "cuda-convnet-18"
STOP_AT = 60  # updates, of seven an epoch
ALIVE = 4  # kernels of each layer that do not start as zeros

COMMON = ["--model", MODEL, "--precision", "fp32", "--keep", "1", "--workers", "0", "--log-every",
          "4", "--doctor", "off"]  # fmt: skip
TRAINED = {
    # Its warm-up, which is in epochs, is longer than its steps: that was not refused then.
    "stopped": [
        "digits", *COMMON, "--size", "12", "--crop", "12", "--batch-size", "16", "--steps", "84",
        "--eval-every", "1.7", "--shift", "1", "--lr", "3e-2", "--warmup-epochs",
        "12.5", "--schedule", "cosine",
    ],
    "photos": [
        "photos", *COMMON, "--size", "20", "--crop", "16", "--batch-size", "8", "--epochs", "20",
        "--eval-every", "2", "--lr", "0.3", "--schedule", "steps", "--drops", "15", "--normalize",
        "centre", "--colour", "0.1", "--cutmix", "0.5", "--cutout", "4", "--freeze",
        "conv1..conv3", "--val-fraction", "0.25", "--test-fraction", "0.25",
    ],
    "packed": [
        "photos", *COMMON, "--size", "20", "--crop", "16", "--batch-size", "8", "--epochs", "20",
        "--eval-every", "2", "--opt", "sgd", "--lr", "0.1", "--schedule", "plateau", "--normalize",
        "std", "--no-whiten",
        "--freeze", "conv1", "--part-lr", "fc10=2", "--class-weights", "balanced", "--views", "1",
        "--cutout", "0", "--area", "0.6",
    ],
}  # fmt: skip

# Runs that commit's command line; with STOP_AT it gets a signal, as of a cluster that preempts it.
COMMAND = """
import os, signal, sys
from alexnet.cli import main
if at := int(os.environ.get("STOP_AT", "0")):
    from alexnet.engine import train
    step = train.train_step
    def stopping(model, optimizer, batch, *rest):
        if batch.step + 1 == at:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(model, optimizer, batch, *rest)
    train.train_step = stopping
sys.argv[0] = "alexnet"
sys.exit(main(sys.argv[1:]))
"""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("commit", help="of the source that makes them")
    words.add_argument("--force", action="store_true", help="replace those that are there")
    args = words.parse_args()
    for place in (PLACE, RUNS):
        if place.exists() and not args.force:
            sys.exit(f"{place} is there: remove it, or add --force")
        shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source = check_out(args.commit, Path(folder))
        try:
            make(source)
        finally:
            shutil.rmtree(PLACE)


def check_out(commit: str, folder: Path) -> Path:
    """The package of a commit, as a folder for PYTHONPATH."""
    archive = folder / "source.tar"
    words = ["git", "archive", "--output", str(archive), commit, "src"]
    subprocess.run(words, cwd=ROOT, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def run(source: Path, *words: Any, stop_at: int = 0) -> dict[str, Any]:
    """What a command of that source answers."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        cwd=PLACE,
        env={**environment, "STOP_AT": str(stop_at)},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != (138 if stop_at else 0):
        sys.exit(f"{words}: ended with {done.returncode}")
    return json.loads(done.stdout) if "--json" in words else {}


def make(source: Path) -> None:
    make_data(PLACE)
    split = PLACE / "split"
    make_photos(split / "train", KINDS, 8)
    make_photos(split / "val", KINDS, 3)
    run(source, "data", "pack", split, "--out", PLACE / "pack", "--size", 20, "--encoding", "raw")
    for name, words in TRAINED.items():
        data, start = PLACE / DATA[name], []
        if name != "photos":
            save_file(sparse_weights(name), PLACE / "start.safetensors")
            start = ["--init", PLACE / "start.safetensors"]
        stop_at = STOP_AT if name == "stopped" else 0
        made = PLACE / "runs" / name
        run(source, "train", *words, *start, "--data", data, "--run", made, stop_at=stop_at)
        if name != "stopped":  # figures for its certificate
            run(source, "test", made)
        for drawn in ("figures", "report.html", ".lock"):
            place = made / drawn
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    answers = {name: answer(source, name) for name in TRAINED}
    for name in TRAINED:
        shutil.copytree(PLACE / "runs" / name, RUNS / name, symlinks=True)
    shutil.copytree(PLACE / "pack", RUNS / "pack", ignore=shutil.ignore_patterns(".lock"))
    expected = {"machine": machine(), "answers": answers}
    (RUNS / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def sparse_weights(name: str) -> dict[str, torch.Tensor]:
    """A network of which only the first kernels of each layer are not zeros: no gradient reaches
    the others, and nothing of them is to be kept."""
    torch.manual_seed(0)
    small, classes = (1, 10) if name == "stopped" else (3, len(KINDS))
    net = build_model(MODEL, classes, channels=small, size=12 if small == 1 else 16)
    weights = net.state_dict()
    for key, value in weights.items():
        weights[key] = value.clone()
        if value.dim() == 4:
            value = torch.nn.init.kaiming_normal_(value)
            weights[key] = torch.zeros_like(value)
            seen = value.shape[1] if key.startswith("conv1") else ALIVE
            weights[key][:ALIVE, :seen] = value[:ALIVE, :seen]
    head = torch.nn.init.kaiming_normal_(weights["fc10.weight"])
    head[:, ALIVE * head.shape[1] // 64 :] = 0  # of 64 maps, a few places each
    return weights


def answer(source: Path, name: str) -> dict[str, Any]:
    """What that source says of a run, each question asked of a copy of its own."""
    answers: dict[str, Any] = {}
    copy = PLACE / "copy"
    for asked, words in questions(copy, PLACE / DATA[name], PLACE / "photos").items():
        shutil.copytree(PLACE / "runs" / name, copy, symlinks=True)
        answers[asked] = kept(asked, run(source, *words))
        if asked == "resume":
            lines = (copy / "metrics.jsonl").read_text().splitlines()
            events = [json.loads(line) for line in lines]
            answers["losses"] = [e["loss"] for e in events if e["event"] in ("train", "val")]
            digests = json.loads((copy / "checkpoints/last/manifest.json").read_text())["files"]
            answers["weights"] = digests["model.safetensors"]["sha256"]
        shutil.rmtree(copy)
    return answers


if __name__ == "__main__":
    main()
