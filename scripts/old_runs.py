"""Makes three small runs with the source of 0.1.0, for the tests that later versions read them.

    python -m scripts.old_runs COMMIT [--force]

Writes tests/runs-0.1.0/: a run that was stopped between two epochs, a complete run on a folder of
photos, a run on a packed set from initial weights, the packed set, and expected.json with the
results of that source. The runs are trained below PLACE, a folder that is the same on all machines,
so that their paths do not show where they were made. They are small since their network is the
smallest one, since most weights of two of them start as zeros, stay zeros and compress to nothing,
and since figures and reports are removed.
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
NONZERO_KERNELS = 4  # of each layer, in the initial weights

COMMON = ["--model", MODEL, "--precision", "fp32", "--keep", "1", "--workers", "0", "--log-every",
          "4", "--doctor", "off"]  # fmt: skip
TRAINED = {
    # Its warm-up (12.5 epochs) is longer than its 84 steps, which 0.1.0 did not refuse.
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

# The command line of that commit. With STOP_AT it gets the signal of a preempting cluster at that
# step.
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
    words.add_argument("commit", help="commit of the source that makes the runs")
    words.add_argument("--force", action="store_true", help="replace existing runs")
    args = words.parse_args()
    for place in (PLACE, RUNS):
        if place.exists() and not args.force:
            sys.exit(f"{place} exists: remove it, or add --force")
        shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source = check_out(args.commit, Path(folder))
        try:
            make(source)
        finally:
            shutil.rmtree(PLACE)


def check_out(commit: str, folder: Path) -> Path:
    """Extract the source of a commit. Returns its folder for PYTHONPATH."""
    archive = folder / "source.tar"
    words = ["git", "archive", "--output", str(archive), commit, "src"]
    subprocess.run(words, cwd=ROOT, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def run(source: Path, *words: Any, stop_at: int = 0) -> dict[str, Any]:
    """Run a command of that source. Returns its JSON."""
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
    """Make the data, the runs and expected.json."""
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
        folder = PLACE / "runs" / name
        run(source, "train", *words, *start, "--data", data, "--run", folder, stop_at=stop_at)
        if name != "stopped":  # figures for its certificate
            run(source, "test", folder)
        for removed in ("figures", "report.html", ".lock"):
            path = folder / removed
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    answers = {name: ask(source, name) for name in TRAINED}
    for name in TRAINED:
        shutil.copytree(PLACE / "runs" / name, RUNS / name, symlinks=True)
    shutil.copytree(PLACE / "pack", RUNS / "pack", ignore=shutil.ignore_patterns(".lock"))
    expected = {"machine": machine(), "answers": answers}
    (RUNS / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def sparse_weights(name: str) -> dict[str, torch.Tensor]:
    """Initial weights whose kernels are zero but for the first of each layer. No gradient reaches
    the others, so they stay zero and compress to nothing."""
    torch.manual_seed(0)
    channels, classes = (1, 10) if name == "stopped" else (3, len(KINDS))
    net = build_model(MODEL, classes, channels=channels, size=12 if channels == 1 else 16)
    weights = net.state_dict()
    for key, value in weights.items():
        weights[key] = value.clone()
        if value.dim() == 4:
            value = torch.nn.init.kaiming_normal_(value)
            weights[key] = torch.zeros_like(value)
            inputs = value.shape[1] if key.startswith("conv1") else NONZERO_KERNELS
            weights[key][:NONZERO_KERNELS, :inputs] = value[:NONZERO_KERNELS, :inputs]
    head = torch.nn.init.kaiming_normal_(weights["fc10.weight"])
    head[:, NONZERO_KERNELS * head.shape[1] // 64 :] = 0  # its inputs come from 64 channels
    return weights


def ask(source: Path, name: str) -> dict[str, Any]:
    """The results of that source for a run, each command on its own copy of the run."""
    answers: dict[str, Any] = {}
    copy = PLACE / "copy"
    for question, words in questions(copy, PLACE / DATA[name], PLACE / "photos").items():
        shutil.copytree(PLACE / "runs" / name, copy, symlinks=True)
        answers[question] = kept(question, run(source, *words))
        if question == "resume":
            lines = (copy / "metrics.jsonl").read_text().splitlines()
            events = [json.loads(line) for line in lines]
            answers["losses"] = [e["loss"] for e in events if e["event"] in ("train", "val")]
            digests = json.loads((copy / "checkpoints/last/manifest.json").read_text())["files"]
            answers["weights"] = digests["model.safetensors"]["sha256"]
        shutil.rmtree(copy)
    return answers


if __name__ == "__main__":
    main()
