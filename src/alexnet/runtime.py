"""The machine: device, precision, threads, signals, and what is recorded of them."""

import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.records import Environment
from alexnet.support.launch import process_count
from alexnet.support.plain import is_plain
from alexnet.support.processors import find_processors, given_threads, waiting

HOPELESS = 10  # times as long as in fp32: bf16 that only takes time
PACKAGES = ("alexnet", "torch", "numpy", "pillow", "safetensors")


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU.

    float32 is float32 there: cuDNN's convolutions would take TF32, whose products are of 11 bits.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def choose_precision(asked: str, device: torch.device) -> str:
    """fp32 or bf16: as asked, or for auto bf16 where the hardware multiplies it faster.

    On a processor that is AMX or AVX-512's bf16; elsewhere it is emulated.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if {"amx_bf16", "avx512_bf16"} & set(_cpuinfo().split()) else "fp32"


def precisions(device: torch.device) -> tuple[str, ...]:
    """Those whose steps are worth timing here: fp32, and bf16 unless `bf16_pace` is hopeless."""
    return ("fp32",) if bf16_pace(device) > HOPELESS else ("fp32", "bf16")


@cache
def bf16_pace(device: torch.device) -> float:
    """Times as long as in fp32 that a small matrix multiply takes in bf16; of a GPU 1, unmeasured.

    A processor without AVX-512 has no way to do it but number by number: about a hundred.
    """
    if device.type != "cpu":
        return 1.0
    least = []
    for kind in (torch.float32, torch.bfloat16):
        a, seconds = torch.ones(256, 256, dtype=kind), []
        for _ in range(4):
            began = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - began)
        least.append(min(seconds))
    return least[1] / least[0]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's threads, put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def chance_kept() -> Iterator[None]:
    """The global generators of Python, NumPy and torch are afterwards as they were: a caller's own
    draws do not depend on what a network was built or trained for meanwhile."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16: matrix work in bfloat16; fp32: nothing changes, nor for tensors without numbers."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def cpu_name() -> str:
    """The processor's model, as well as the system knows it."""
    names = (x for x in _cpuinfo().splitlines() if x.startswith("model name"))
    name = next(names, "").partition(":")[2].strip()
    return name or platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def environment() -> Environment:
    """Versions, hardware and the commit of the code, for `environment.json` and records."""
    commit, dirty = _commit()
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return replace(machine(), commit=commit, dirty=dirty, command=command)


def machine() -> Environment:
    """Versions and hardware alone."""
    processors = find_processors()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: metadata.version(name) for name in PACKAGES},
        cpu=cpu_name(),
        cpus=processors.there,
        usable_cpus=processors.usable,
        usable_because=processors.why,
        threads=torch.get_num_threads(),
        threads_given=given_threads(),
        plain=is_plain() or None,
        waiting=waiting(),
        processes=process_count(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the source, and whether it was changed since; None of an installed package."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():  # installed from a wheel: the version says it all
        return None, None

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.TimeoutExpired):
        return None, None
