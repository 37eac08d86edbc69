"""Processors that a process may use, the threads it computes with, and how these wait."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Deep because a machine with other processors, quotas and launchers can be made only as folders and
# variables that these are given.
from alexnet.support.processors import (
    Processors,
    describe_kept_threads,
    describe_threads,
    find_processors,
    given_threads,
    thread_variables,
    waiting,
)
from old_runs import make_digits
from teams import end, torchrun

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
WAIT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
SPOKEN = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ALEXNET_OMP_NUM_THREADS", "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "SLURM_CPUS_PER_TASK", *VARIABLES,
)  # fmt: skip

V1, V2 = "cgroup cgroup rw,cpu,cpuacct", "cgroup2 cgroup2 rw"


class Tree:
    """A made /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def group(self, *lines: str) -> "Tree":
        """Lines of /proc/self/cgroup."""
        self._add("proc/self/cgroup", *lines)
        return self

    def mount(self, point: str, kind: str, top: str = "/") -> "Tree":
        self.count += 1
        line = f"{30 + self.count} 1 0:{self.count} {top} {point} rw,nosuid shared:9 - {kind}"
        self._add("proc/self/mountinfo", line)
        return self

    def limit(self, folder: str, *, v1: str = "", period: str = "100000", v2: str = "") -> "Tree":
        """The files of a control group, with a quota in microseconds of each period."""
        if v2:
            self._add(f"{folder}/cpu.max", v2)
        if v1:
            self._add(f"{folder}/cpu.cfs_quota_us", v1)
            self._add(f"{folder}/cpu.cfs_period_us", period)
        return self

    def usable(self, environ: Mapping[str, str] | None = None, bound: int = 64) -> tuple[int, str]:
        """What a process may use of 64 processors, bound to the first of them."""
        found = find_processors(environ or {}, self.root, range(bound), 64)
        assert found.there == 64
        return found.usable, found.why

    def _add(self, path: str, *lines: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("limit", "usable", "said"),
    [
        ("max 100000", 64, ""),
        ("200000 100000", 2, "2.0"),
        ("149999 100000", 1, "1.5"),
        ("150000 100000", 2, "1.5"),  # half up
        ("250000 100000", 3, "2.5"),
        ("5000 100000", 1, "0.05"),
        ("50000 10000", 5, "5.0"),
        ("9900000 100000", 64, ""),  # more than there are
        ("-1 100000", 64, ""),
        ("200000 0", 64, ""),
        ("two 100000", 64, ""),
        ("2" * 5000 + " 1", 64, ""),
        ("200000", 64, ""),
    ],
    ids=lambda x: str(x)[:20],
)
def test_a_quota_of_version_2(tree: Tree, limit: str, usable: int, said: str) -> None:
    tree.group("0::/a").mount("/sys/fs/cgroup", V2).limit("/sys/fs/cgroup/a", v2=limit)
    assert tree.usable() == (usable, f"a quota of {said} CPUs" if said else "")


@pytest.mark.parametrize(
    ("quota", "period", "usable"),
    [("-1", "100000", 64), ("400000", "100000", 4), ("400000", "", 64), ("75000", "50000", 2)],
)
def test_a_quota_of_version_1(tree: Tree, quota: str, period: str, usable: int) -> None:
    tree.group("5:memory:/b", "4:cpu,cpuacct:/a/b").mount("/sys/fs/cgroup/memory", "cgroup x rw")
    tree.mount("/sys/fs/cgroup/cpu,cpuacct", V1)
    tree.limit("/sys/fs/cgroup/cpu,cpuacct/a/b", v1=quota, period=period)
    assert tree.usable()[0] == usable


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_a_parent_holds_too(tree: Tree, version: int) -> None:
    kind, line = (V1, "3:cpu:/a/b/c") if version == 1 else (V2, "0::/a/b/c")
    tree.group(line).mount("/cg", kind)
    for folder, cpus in (("/cg/a/b/c", 8), ("/cg/a/b", 3), ("/cg/a", 5), ("/cg/other", 1)):
        quota = str(cpus * 100_000)
        tree.limit(folder, **({"v1": quota} if version == 1 else {"v2": f"{quota} 100000"}))
    assert tree.usable() == (3, "a quota of 3.0 CPUs")


def test_both_versions_at_once(tree: Tree) -> None:
    """Version 1 has the processors, as where version 2 is mounted beside it for systemd."""
    tree.group("2:cpuacct:/x", "1:cpu:/a", "0::/u").mount("/sys/fs/cgroup/cpu", "cgroup c rw,cpu")
    tree.mount("/sys/fs/cgroup/unified", V2).limit("/sys/fs/cgroup/cpu/a", v1="200000")
    (tree.root / "sys/fs/cgroup/unified/u").mkdir(parents=True)
    assert tree.usable() == (2, "a quota of 2.0 CPUs")


@pytest.mark.parametrize(
    ("group", "top", "folder"),
    [
        ("/docker/0a1b", "/docker/0a1b", ""),  # of the host, and only this group is mounted
        ("/docker/0a1b/in", "/docker/0a1b", "/in"),
        ("/docker/0a1b", "/", ""),  # of the host, whose folders are not seen
        ("/", "/", ""),  # a namespace of its own
        ("/../0a1b", "/", ""),  # moved out of its namespace
        ("/docker/0a1b", "/kubepods/pod1", ""),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container(tree: Tree, version: int, group: str, top: str, folder: str) -> None:
    kind, line = (V1, f"3:cpu:{group}") if version == 1 else (V2, f"0::{group}")
    tree.group(line).mount("/sys/fs/cgroup", kind, top)
    files = {"v1": "200000"} if version == 1 else {"v2": "200000 100000"}
    tree.limit(f"/sys/fs/cgroup{folder}", **files)
    tree.limit("/sys/fs/0a1b", v1="100000", v2="100000 100000")  # outside of the mount
    assert tree.usable() == (2, "a quota of 2.0 CPUs")


def test_a_mount_point_may_have_a_space(tree: Tree) -> None:
    tree.group("0::/a").mount(r"/my\040groups", V2).limit("/my groups/a", v2="300000 100000")
    assert tree.usable() == (3, "a quota of 3.0 CPUs")


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"cgroup": "0::/a\n"},
        {"cgroup": "0::/a\n", "mountinfo": "\n1 2\n- -\n1 2 3 / /cg rw - cgroup2\n"},
        {"cgroup": "garbage\n::\n0\n\udcff:cpu\n", "mountinfo": f"1 2 0:1 / /cg rw - {V2}\n"},
    ],
)
def test_what_cannot_be_read_limits_nothing(made: dict[str, str], tree: Tree) -> None:
    folder = tree.root / "proc/self"
    folder.mkdir(parents=True)
    (tree.root / "cg/cpu.max").mkdir(parents=True)  # a folder where a file should be
    for name, text in made.items():
        (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    assert tree.usable() == (64, "")


@pytest.mark.parametrize(
    ("word", "usable"),
    [("4", 4), ("100", 64), ("", 64), ("0", 64), ("-3", 64), ("x", 64), ("4.5", 64), ("4 ", 64)],
)
def test_slurm(tree: Tree, word: str, usable: int) -> None:
    why = f"SLURM_CPUS_PER_TASK={word}" if usable < 64 else ""
    assert tree.usable({"SLURM_CPUS_PER_TASK": word}) == (usable, why)


def test_the_least_limit_is_the_one_that_is_said(tree: Tree) -> None:
    tree.group("0::/a").mount("/cg", V2).limit("/cg/a", v2="600000 100000")
    assert tree.usable({"SLURM_CPUS_PER_TASK": "8"}) == (6, "a quota of 6.0 CPUs")
    assert tree.usable({"SLURM_CPUS_PER_TASK": "4"}) == (4, "SLURM_CPUS_PER_TASK=4")
    assert tree.usable({"SLURM_CPUS_PER_TASK": "4"}, bound=3) == (3, "CPU affinity")


def test_processes_of_torchrun_share(tree: Tree) -> None:
    words = dict(zip(VARIABLES, ("1", "8", "1", "127.0.0.1", "29511"), strict=True))
    run = {**words, "LOCAL_WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "none"}
    assert tree.usable(run) == (8, "shared by 8 processes of torchrun")
    assert tree.usable(run, bound=4) == (1, "CPU affinity, shared by 8 processes of torchrun")
    assert tree.usable({"LOCAL_WORLD_SIZE": "8"}) == (64, ""), "left in a shell"
    # Other launchers bind each process to processors of its own.
    assert tree.usable({**words, "LOCAL_WORLD_SIZE": "8"}, bound=8) == (8, "CPU affinity")


def test_hyper_threads_of_a_core_are_one_place_to_compute(tree: Tree) -> None:
    """As many threads as cores, where less than all of a machine may be used; torch itself knows
    where all may be."""
    for number in range(64):
        tree._add(
            f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list",
            f"{number % 32},{number % 32 + 32}",
        )

    def threads(bound: Any, **environ: str) -> int:
        return find_processors(environ, tree.root, bound, 64).threads

    assert threads(range(16)) == 16
    assert threads([0, 32]) == 1
    assert threads([0, 1, 32, 33], SLURM_CPUS_PER_TASK="3") == 2
    assert threads(range(64), SLURM_CPUS_PER_TASK="48") == 32
    assert threads(range(64), SLURM_CPUS_PER_TASK="4") == 4


def of(tree: Tree, usable: int) -> Any:
    return find_processors({"SLURM_CPUS_PER_TASK": str(usable)}, tree.root, range(64), 64)


def test_variables_are_set_only_where_the_user_has_not(tree: Tree) -> None:
    limited = {"OMP_NUM_THREADS": "2", "ALEXNET_OMP_NUM_THREADS": "2"}
    assert thread_variables({}, of(tree, 64)) == WAIT, "torch knows a whole machine"
    assert thread_variables({}, of(tree, 2)) == {**WAIT, **limited}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        assert thread_variables({name: "7"}, of(tree, 2)) == WAIT
        assert given_threads({name: "7"}) == f"{name}=7"
        assert thread_variables({name: ""}, of(tree, 2)) == {**WAIT, **limited}, "empty is unset"
    spin, block = ({k: v} for k, v in WAIT.items())
    for spoken, rest in (
        ({"GOMP_SPINCOUNT": "9"}, block),
        ({"KMP_BLOCKTIME": "9"}, spin),
        ({"KMP_LIBRARY": "turnaround"}, spin),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ):
        assert thread_variables(spoken, of(tree, 64)) == rest
        assert waiting(spoken) == ", ".join(f"{k}={v}" for k, v in spoken.items())


def test_a_child_knows_that_a_command_chose_its_threads(tree: Tree) -> None:
    child = thread_variables({}, of(tree, 4))
    assert given_threads(child) == ""
    assert thread_variables(child, of(tree, 2))["OMP_NUM_THREADS"] == "2"
    assert given_threads({**child, "OMP_NUM_THREADS": "3"}) == "OMP_NUM_THREADS=3"


@pytest.mark.parametrize(
    ("count", "usable", "environ", "line"),
    [
        (64, 64, {}, ""),
        (32, 64, {}, ""),  # torch counts cores
        (2, 2, {}, "2 threads: SLURM_CPUS_PER_TASK=2; 64 processors are there"),
        (1, 2, {"OMP_NUM_THREADS": "1"}, "1 thread: OMP_NUM_THREADS=1; 64 processors are there"),
        (8, 2, {}, "8 threads: 2 of 64 processors may be used (SLURM_CPUS_PER_TASK=2); "
                   "OMP_NUM_THREADS=2 would be faster"),
        (99, 64, {}, "99 threads: 64 of 64 processors may be used; "
                     "OMP_NUM_THREADS=64 would be faster"),
    ],
)  # fmt: skip
def test_threads_in_a_line(
    tree: Tree, count: int, usable: int, environ: dict[str, str], line: str
) -> None:
    assert describe_threads(count, of(tree, usable), environ) == line


@pytest.mark.parametrize(
    ("count", "own", "environ", "line"),
    [
        (2, 2, {}, ""),
        (1, 2, {}, ""),  # chosen by its first steps, and said then
        (64, 2, {}, "64 threads, as this run began, so that its bits stay; a new run would have 2 "
                    "(SLURM_CPUS_PER_TASK=2)"),
        (1, 2, {"OMP_NUM_THREADS": "2"}, "1 thread, as this run began, so that its bits stay; "
                                         "a new run would have 2 (OMP_NUM_THREADS=2)"),
    ],
)  # fmt: skip
def test_kept_threads_in_a_line(
    tree: Tree, count: int, own: int, environ: dict[str, str], line: str
) -> None:
    assert describe_kept_threads(count, own, of(tree, 2), environ) == line


# What follows starts processes: these variables are read once, as torch is loaded.


def clean(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    return {k: v for k, v in os.environ.items() if k not in SPOKEN} | more


def python(code: str, **more: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([sys.executable, "-c", code], env=clean(**more), capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


AFTER = """
import json, os
before = dict(os.environ)
{}
print(json.dumps({{k: v for k, v in os.environ.items() if before.get(k) != v}}))
"""


def changed(code: str, **more: str) -> tuple[dict[str, str], str]:
    """The variables that the code has changed, and what it said on standard error."""
    done = python(AFTER.format(code), **more)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    found.pop("THP_MEM_ALLOC_ENABLE", None)  # of memory
    return found, done.stderr


COMMAND = "from alexnet.cli import main; main(['recipes', '--json'])"


def test_a_command_sets_them() -> None:
    """And GNU's OpenMP, which prints what it took as torch is loaded, hears of it."""
    found, said = changed(COMMAND, SLURM_CPUS_PER_TASK="1", OMP_DISPLAY_ENV="verbose")
    expected = {"OMP_NUM_THREADS": "1", "ALEXNET_OMP_NUM_THREADS": "1"}
    assert found == WAIT | ({} if os.cpu_count() == 1 else expected)
    if "GOMP_SPINCOUNT" not in said:
        return  # torch has another OpenMP runtime here
    assert "GOMP_SPINCOUNT = '1000'" in said
    if os.cpu_count() != 1:
        assert "OMP_NUM_THREADS = '1'" in said


def test_a_command_leaves_what_a_user_has_set() -> None:
    assert changed(COMMAND, SLURM_CPUS_PER_TASK="1", OMP_NUM_THREADS="2",
                   OMP_WAIT_POLICY="passive")[0] == {}  # fmt: skip


def test_the_library_sets_nothing() -> None:
    """Nor does a command in a program that has loaded torch already."""
    assert changed(f"import alexnet, torch; alexnet.response_norm(torch.ones(1, 8, 3, 3))\n"
                   f"{COMMAND}", SLURM_CPUS_PER_TASK="1")[0] == {}  # fmt: skip


def test_help_and_mistakes_load_no_torch() -> None:
    done = python(
        "import sys; from alexnet.cli import main\n"
        "print(main(['trian']), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert done.stdout == "2 False False\n"


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.stem)
def test_a_bench_sets_up_threads_before_it_loads_torch(script: Path) -> None:
    """Importing `script` does that: first, beside what does so in turn. Two scripts compute as a
    library in somebody else's program does, or as they are told to, which is what they measure."""
    body = ast.parse(script.read_text()).body
    names = [n.names[0].name if isinstance(n, ast.Import) else n.module or "" for n in body
             if isinstance(n, ast.Import | ast.ImportFrom)]  # fmt: skip
    loads = [i for i, name in enumerate(names) if name.split(".")[0] in ("torch", "alexnet")]
    own = ("script", "trainings", "keras_steps", "response_norm", "company_worker")
    if script.stem in own:
        return
    assert min(names.index(one) for one in ("script", "accuracy") if one in names) < min(loads)


# Small machines, as a user meets them.

WORDS = ["train", "digits", "--model", "cuda-convnet-18", "--size", "12", "--crop", "12",
         "--batch-size", "16", "--precision", "fp32", "--workers", "1", "--steps", "3",
         "--doctor", "off"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder)
    return folder


class Small:
    """Trains with the real command, as a user of some machine would."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder, self.count = data, folder, 0
        self.said: list[str] = []

    def train(self, *before: str, run: Path | None = None, **environ: str) -> tuple[Any, bytes]:
        """Its environment.json and its weights. `before` are words in front of the command."""
        self.count += 1
        words = [*WORDS, "--data", self.data] if run is None else ["train", "--resume"]
        run = run or self.folder / str(self.count)
        done = subprocess.run(
            [*before, sys.executable, "-m", "alexnet", *map(str, words), "--run", str(run)],
            env=clean(**environ), cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.said = [line for line in done.stderr.splitlines() if " thread" in line]
        return read(run)


def read(run: Path) -> tuple[Any, bytes]:
    known = json.loads((run / "environment.json").read_text())
    return known, (run / "checkpoints/last/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def small(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(data, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def one(small: Small) -> bytes:
    """The weights that one thread gives."""
    known, weights = small.train(OMP_NUM_THREADS="1")
    assert (known["threads"], known["threads_given"]) == (1, "OMP_NUM_THREADS=1")
    there = os.cpu_count()
    expected = [f"1 thread: OMP_NUM_THREADS=1; {there} processors are there"]
    assert small.said == (expected if there != 1 else [])
    return weights


@contextmanager
def quota(cpus: float) -> Iterator[list[str]]:
    """A control group with a quota, as Docker's --cpus makes one: words that start a program in it.

    Skips where this user may not make one.
    """
    group = make_group(f"{100_000 * cpus:.0f}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        remove(group)


def make_group(microseconds: str) -> Path:
    for parent, name, limit in (
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", microseconds),
        ("/sys/fs/cgroup", "cpu.max", f"{microseconds} 100000"),
    ):
        group = Path(parent) / f"alexnet-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():  # a hierarchy that has processors' time
                (group / name).write_text(limit)
                return group
        except OSError:
            pass
        remove(group)
    pytest.skip("a control group with a quota cannot be made here (root may, on most machines)")


def remove(group: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    for _ in range(100):
        try:
            return group.rmdir()
        except OSError:  # until those are gone
            time.sleep(0.05)
    raise AssertionError(f"{group} is left behind")


two_processors = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="of one processor")


@two_processors
def test_a_quota_of_one_of_two_processors(small: Small, one: bytes) -> None:
    with quota(1.0) as inside:
        known, weights = small.train(*inside)
    assert small.said == [f"1 thread: a quota of 1.0 CPUs; {os.cpu_count()} processors are there"]
    assert (known["threads"], known["usable_cpus"]) == (1, 1)
    assert known["usable_because"] == "a quota of 1.0 CPUs"
    assert known["threads_given"] == ""
    assert known["waiting"] == "GOMP_SPINCOUNT=1000, KMP_BLOCKTIME=1"
    assert weights == one


@pytest.mark.slow
@two_processors
def test_a_run_goes_on_with_its_threads_under_a_quota(small: Small) -> None:
    began, _ = small.train(OMP_NUM_THREADS="2")
    assert began["threads"] == 2
    with quota(1.0) as inside:
        small.train(*inside, run=small.folder / str(small.count))
    line = "2 threads, as this run began, so that its bits stay; a new run would have 1"
    assert small.said == [f"{line} (a quota of 1.0 CPUs)"]


@pytest.mark.slow
@two_processors
@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset")
def test_bound_to_one_processor(small: Small, one: bytes) -> None:
    first = min(os.sched_getaffinity(0))
    known, weights = small.train("taskset", "-c", str(first))
    assert (known["threads"], known["usable_because"]) == (1, "CPU affinity")
    assert weights == one


@pytest.mark.slow
@two_processors
def test_more_threads_than_processors(small: Small, one: bytes) -> None:
    """Equal numbers of threads give equal weights, however they came about."""
    weights = {1: one}
    for environ in (*({"OMP_NUM_THREADS": str(n)} for n in (2, 4, 8)), {},
                    {"SLURM_CPUS_PER_TASK": "1"}, {"MKL_NUM_THREADS": "1"},
                    {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}):  # fmt: skip
        known, found = small.train(**environ)
        asked = int(environ.get("OMP_NUM_THREADS", 0))
        assert known["threads"] <= (asked or known["cpus"])
        assert weights.setdefault(known["threads"], found) == found, environ
    known, found = small.train("nice", "-n", "19")
    assert weights[known["threads"]] == found
    assert 2 in weights


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
def test_a_program_with_more_threads_than_processors(small: Small, count: int) -> None:
    """The library takes its caller's threads, and says where they are too many."""
    run = small.folder / f"library-{count}"
    fields = "size=12, crop=12, batch_size=16, precision='fp32', steps=3, doctor='off'"
    done = python(
        f"import torch; torch.set_num_threads({count}); import alexnet\n"
        f"alexnet.train('digits', model='cuda-convnet-18', data={str(small.data)!r},"
        f" run={str(run)!r}, {fields})"
    )
    known, _ = read(run)
    assert known["threads"] == count
    assert known["waiting"] == ""
    if count > known["usable_cpus"]:
        assert f"\n{count} threads: " in done.stderr


@pytest.mark.slow
@two_processors
def test_half_a_processor(small: Small, one: bytes) -> None:
    with quota(0.5) as inside:
        known, weights = small.train(*inside)
    assert (known["threads"], known["usable_because"]) == (1, "a quota of 0.5 CPUs")
    assert weights == one


@pytest.mark.slow
@two_processors
@pytest.mark.parametrize("given", ["", "2"])
def test_processes_of_torchrun_have_its_number(
    small: Small, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread each where nothing is said, which is torchrun's own rule; said once."""
    words, log = [*WORDS, "--data", small.data, "--run", tmp_path / "run"], tmp_path / "log"
    number = given or "1"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process = torchrun(2, words, log, **({"OMP_NUM_THREADS": given} if given else {}))
    try:
        assert process.wait(120) == 0, log.read_text()
    finally:
        end(process)
    known, _ = read(tmp_path / "run")
    assert (known["threads"], known["processes"]) == (int(number), 2)
    assert known["threads_given"] == f"OMP_NUM_THREADS={number}"
    assert log.read_text().count(f"OMP_NUM_THREADS={number}; ") == (number == "1")


@pytest.mark.parametrize(
    ("name", "nonsense", "good"),
    [
        ("OMP_NUM_THREADS", "abc", "3"),
        ("OMP_NUM_THREADS", "0", "4,2"),
        ("OMP_WAIT_POLICY", "nonsense", "PASSIVE"),
        ("GOMP_SPINCOUNT", "abc", "2k"),
        ("GOMP_SPINCOUNT", "-1", "infinite"),
    ],
)
def test_what_a_runtime_does_not_understand_says_nothing(
    name: str, nonsense: str, good: str
) -> None:
    limited = Processors(8, 2, "a quota of 2.0 CPUs", 2)
    added = thread_variables({name: nonsense}, limited)
    assert (added["OMP_NUM_THREADS"], added["GOMP_SPINCOUNT"]) == ("2", "1000")
    assert not given_threads({name: nonsense})
    assert not waiting({name: nonsense})
    assert name not in thread_variables({name: good}, limited)
    assert f"{name}={good}" in given_threads({name: good}) + waiting({name: good})
