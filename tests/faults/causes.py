"""What goes wrong around a training: each has a cause that is named in one line."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import patterns, write_idx, write_tree
from faults.tally import Tally

WORDS = ["--steps", "4", "--precision", "fp32", "--batch-size", "16", "--doctor", "off"]


def named(count: int, seed: int, folder: Path) -> Tally:
    """Eight conditions of the machine and the loop, each through the real command."""
    tally = Tally()
    for name, condition in list(CONDITIONS.items())[:count]:
        place = folder / name.replace(" ", "-")
        place.mkdir()
        write_idx(place / "data", "train", *patterns(100, seed=1))
        write_idx(place / "data", "t10k", *patterns(20, seed=2))
        status, expected, words = condition(place)
        tally.outcomes[f"{name}: status {status[0]}"] += 1
        lines = [line for line in status[1].splitlines() if line.startswith("alexnet: ")]
        said = " ".join(lines[-1:])
        if status[0] != expected or "Traceback" in status[1]:
            tally.losses.append(f"{name}: status {status[0]}, said {status[1][-600:]!r}")
        elif expected and not all(word in said for word in words):
            tally.losses.append(f"{name}: {said!r} lacks one of {words}")
    return tally


Found = tuple[tuple[int, str], int, tuple[str, ...]]


def _alexnet(
    place: Path, *words: str, before: str = "", limit: Callable[[], None] | None = None, **env: str
) -> tuple[int, str]:
    """Status and standard error of the command, after some lines of Python in its process."""
    program = f"{before}\nimport sys\nfrom alexnet.cli import main\nsys.exit(main(sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=place,
        env={**os.environ, **env},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return ran.returncode, ran.stderr


def _train(place: Path, *words: str, **more: Any) -> tuple[int, str]:
    told = ["train", "digits", "--data", "data", "--run", "run", *WORDS, *words]
    return _alexnet(place, *told, **more)


def _nan(place: Path) -> Found:
    found = _train(place, "--lr", "1e30", "--opt", "sgd", "--steps", "60", "--log-every", "1")
    return found, 1, ("the loss is", "try --lr")


def _memory(place: Path) -> Found:
    limit = "import torch, resource, re\n" + (
        "size = int(re.search(r'VmSize:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "import alexnet.commands\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), -1))"
    )
    write_tree(place / "photos", classes=2, each=80, side=64)
    words = ["train", "paper-2012", "--data", "photos", "--run", "run", *WORDS]
    return _alexnet(place, *words, "--batch-size", "64", before=limit), 2, ("memory",)


def _loader(place: Path) -> Found:
    # Patched because a thread of a loader is killed by nothing that a test could send it.
    killed = (
        "from alexnet.data import Split\n"
        "real = Split.read\n"
        "def read(self, ids):\n"
        "    import threading\n"
        "    if threading.current_thread() is not threading.main_thread():\n"
        "        raise SystemExit('killed')\n"
        "    return real(self, ids)\n"
        "Split.read = read"
    )
    write_tree(place / "photos", classes=2, each=40)
    words = ["train", "photos", "--data", "photos", "--run", "run", *WORDS, "--size", "32"]
    found = _alexnet(place, *words, "--crop", "32", "--model", "alexnet-32", before=killed)
    return found, 2, ("reads images",)


def _descriptors(place: Path) -> Found:
    """64 open files are enough: the training ends as it should."""
    return _train(place, limit=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))), 0, ()


def _home(place: Path) -> Found:
    env = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": "", "XDG_CONFIG_HOME": ""}
    return _train(place, **env), 0, ()


def _read_only(place: Path) -> Found:
    """A folder that nobody may write, root included: one of /proc."""
    found = _train(place, "--run", "/proc/self/run")
    return found, 2, ("/proc/self/run", "choose another")


def _clock(place: Path) -> Found:
    """The clock of the wall goes back a day in the middle."""
    # Patched because a test may not set the clock of the machine.
    back = (
        "import time\n"
        "real, calls = time.time, [0]\n"
        "def moved():\n"
        "    calls[0] += 1\n"
        "    return real() - (86400 if calls[0] > 3 else 0)\n"
        "time.time = moved"
    )
    return _train(place, before=back), 0, ()


def _two_runs(place: Path) -> Found:
    held = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from alexnet.runs import RunDir\n"
        "with RunDir.create(Path('run')).lock():\n"
        "    Path('held').touch()\n"
        "    time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", held], cwd=place)
    try:
        while not (place / "held").exists():
            if holder.poll() is not None:
                return (holder.returncode, "the holder ended"), 2, ()
            time.sleep(0.05)
        return _train(place), 2, ("another process", str(holder.pid))
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        shutil.rmtree(place / "run")


CONDITIONS: dict[str, Callable[[Path], Found]] = {
    "NaN loss": _nan,
    "out of memory": _memory,
    "killed loader thread": _loader,
    "64 open files": _descriptors,
    "no HOME": _home,
    "read-only output": _read_only,
    "clock moved a day": _clock,
    "two runs in one directory": _two_runs,
}
