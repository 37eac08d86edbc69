"""Half an hour of training with validations, checkpoints and a server that reads them.

    python benchmarks/soak.py [--minutes 30] [--data DIR] [--out results/bench/soak-MACHINE.json]

A training validates and saves every hundred steps. Beside it one server answers all the time, and
each minute another reads the newest checkpoint, answers, and is told to end. Every few seconds
resident memory and open files of the training and of the lasting server are read from /proc, and in
the end what is left: processes, temporary files. Memory counts as flat where the median of the last
fifth is within 2 % of that of the second fifth; the first is where caches fill.
"""

import argparse
import http.client
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from script import obeyed

from alexnet.runtime import environment
from alexnet.support.files import write_json

FLAT = 0.02
EVERY = 5.0  # seconds between two readings
WORDS = ["--eval-every", "0.25", "--save-every", "25", "--log-every", "10", "--workers", "2"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--data", help="IDX files; the 5,000 digits of the demo if not given")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), args.data, 60 * args.minutes)
    print(json.dumps(found, indent=2))
    if args.out:
        write_json(args.out, {**found, "environment": environment()})
    return int(not found["flat"] or bool(found["left"]))


def soak(folder: Path, data: str | None, seconds: float) -> dict[str, Any]:
    """What was read, and what was left over."""
    run, before = folder / "run", _mine()
    words = ["train", "digits", *(["--data", data] if data else []), "--run", str(run)]
    training = _start(folder / "train.log", *words, "--epochs", "100000", *WORDS)
    while not (run / "checkpoints/best").is_symlink():
        _alive(training, folder / "train.log")
        time.sleep(0.2)
    lasting = _Server(folder, run, "best", "lasting")
    samples: dict[str, list[tuple[float, int, int]]] = {"training": [], "server": []}
    began, turns, answers = time.monotonic(), 0, 0
    while (now := time.monotonic() - began) < seconds:
        for name, process in (("training", training), ("server", lasting.process)):
            _alive(process, folder / ("train.log" if name == "training" else "lasting.log"))
            samples[name].append((now, *_reading(process.pid)))
        answers += sum(lasting.answers() for _ in range(10))
        if now > 60 * turns:
            turns += 1
            passing = _Server(folder, run, "last", f"turn-{turns}")
            answers += sum(passing.answers() for _ in range(10))
            passing.end()
        time.sleep(EVERY)
    lasting.end()
    training.send_signal(signal.SIGTERM)
    status = training.wait(120)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = max(event.get("step", 0) for event in events)
    left = [*(_mine() - before), *(str(p.relative_to(folder)) for p in run.rglob(".tmp*"))]
    rows = {name: _summary(rows) for name, rows in samples.items()}
    note = (
        f"{seconds / 60:g} minutes: {steps:,} steps, {1 + turns} servers, {answers:,} answers; "
        f"left over: {', '.join(left) or 'nothing'}"
    )
    table = [
        {"name": name, "resident MiB": row["resident_mib"], "growth": f"{row['growth']:.2%}",
         "open files": row["open_files"], "readings": row["readings"]}
        for name, row in rows.items()
    ]  # fmt: skip
    return {
        "note": note,
        "rows": table,
        "minutes": round(seconds / 60, 1),
        "steps": steps,
        "validations": sum(event["event"] == "val" for event in events),
        "servers_started": 1 + turns,
        "answers": answers,
        "training_status": status,
        **rows,
        "flat": all(row["flat"] for row in rows.values()),
        "left": left,
    }


class _Server:
    """`alexnet serve` in a process of its own, ready to answer."""

    def __init__(self, folder: Path, run: Path, checkpoint: str, name: str) -> None:
        log = folder / f"{name}.log"
        words = ["serve", str(run), "--checkpoint", checkpoint, "--port", "0"]
        self.process = _start(log, *words)
        while not (found := re.search(r"http://[^/]*:(\d+)/", log.read_text())):
            _alive(self.process, log)
            time.sleep(0.1)
        self.port = int(found[1])
        buffer = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        self.image = buffer.getvalue()
        while not self._ask("GET", "/readyz", None):
            time.sleep(0.1)

    def _ask(self, method: str, path: str, body: bytes | None) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
            return connection.getresponse().status == 200
        except ConnectionError:
            return False
        finally:
            connection.close()

    def answers(self) -> int:
        if not self._ask("POST", "/classify", self.image):
            raise SystemExit("the server did not answer an image")
        return 1

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 128 + signal.SIGTERM:
            raise SystemExit(f"the server ended with {self.process.returncode}")


def _start(log: Path, *words: str) -> subprocess.Popen[bytes]:
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "alexnet", *words], stdout=file, stderr=subprocess.STDOUT
        )


def _alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise SystemExit(f"ended with {process.returncode}: {log.read_text()[-2000:]}")


def _reading(pid: int) -> tuple[int, int]:
    """Resident bytes and open files of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident
    return int(resident[1]) * 1024, len(os.listdir(f"/proc/{pid}/fd"))


def _mine() -> set[str]:
    """Command lines of this program's processes, this one left out."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"alexnet" in words and int(place.name) != os.getpid():
            found.add(f"{place.name}: {b' '.join(words).decode(errors='replace')}")
    return found


def _summary(samples: list[tuple[float, int, int]]) -> dict[str, Any]:
    fifth = max(len(samples) // 5, 1)
    early, late = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
    memory = [statistics.median(row[1] for row in part) for part in (early, late)]
    growth = memory[1] / memory[0] - 1
    return {
        "readings": len(samples),
        "resident_mib": [round(m / 2**20, 1) for m in memory],
        "growth": round(growth, 4),
        "open_files": [int(statistics.median(row[2] for row in part)) for part in (early, late)],
        "flat": growth < FLAT and early[0][2] >= min(row[2] for row in late),
    }


if __name__ == "__main__":
    obeyed(main)
