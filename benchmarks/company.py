"""What busy neighbours cost two trees of the code, in turns: one from before a change, and this.

    python benchmarks/company.py --before TREE [--rounds 3] [--only norm train infer input quota]
        [--seconds 1] [--data PACKED] [--small] [--out results/bench/company-MACHINE.json]

TREE is another checkout, such as `git worktree add TREE COMMIT` makes. Each tree computes in
processes of its own (company_worker.py), which wait while another is timed, so that in each round
every way is timed quiet and in every company, in both trees, one after the other, and the order
turns round. Nobody else may be busy meanwhile. The busy processes are one a usable core, but for
the last:

- nice 10: as a background job of a considerate user; no bar
- lowest: nice 19
- equal: the priority of what is measured
- apart: two a core, each in a session of its own, as programs of other terminals or services are:
  where Linux has autogroups each weighs as much as all that is measured; no bar of its own

`norm` is measured as the program's commands compute and as a library of somebody else's program,
without any setting; everything else as the program's commands. Variables that say how threads wait
are taken out of the environment first; OMP_NUM_THREADS counts, but under a quota. `quota` needs
root on Linux: processes in a control group that may use one CPU's worth of time of all cores,
beside one thread without a quota. The record is written after each task; a run that was ended
begins anew.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from script import obeyed

from alexnet.errors import UsageError
from alexnet.lab.benches.company import COMPANIES, QUIET, busy_processes, in_company
from alexnet.support.files import write_atomic
from alexnet.support.processors import find_processors, given_threads
from alexnet.support.signals import STOP, interrupt_on
from alexnet.support.terminal import progress, say

HERE = Path(__file__).resolve().parent
TASKS = ("norm", "train", "infer", "input")
QUOTA = "quota"
POLITE = "nice 10"
APART = "apart"
BESIDE = (QUIET, POLITE, *COMPANIES, APART)
# Fractions: of the way's own quiet rate, of the quiet rate before, of the one-thread rate.
OF_QUIET = {"lowest": 0.85, "equal": 0.42}
OF_BEFORE, OF_ONE_THREAD = 0.98, 0.85
NORM_RATIO = 3.0  # times torch's own norm in the same company, without a setting
WAITS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ALEXNET_OMP_NUM_THREADS")
PERIOD_US = 100_000  # of a quota


@dataclass
class Worker:
    """A process that computes with one tree's code."""

    tree: str  # before or after
    root: Path
    setting: str  # program or library
    process: subprocess.Popen[str]
    ways: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    def await_ready(self) -> None:
        """Waits until it has built what it is to compute."""
        self.told = self._answer()
        self.ways = self.told["ways"]
        if Path(self.told["package"]) != self.root / "src/alexnet":
            package = self.told["package"]
            raise UsageError(f"{self.root} was to compute, and {package} did: run it elsewhere")

    def images_per_s(self, way: str, seconds: float) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([way, seconds]) + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise UsageError(
                f"a process that computes with {self.root} ended with status {status}, its own "
                "words above: the tree may be too old; where the status is -9 somebody killed it, "
                "or memory ran out"
            )
        return json.loads(line)


@contextmanager
def working(
    tree: str,
    root: Path,
    task: str,
    *words: str,
    setting: str = "program",
    group: Path | None = None,
    **variables: str,
) -> Iterator[Worker]:
    """A worker, in a control group where one is named, which then says how many threads it has."""
    unset = WAITS if given_threads() and group is None else WAITS + THREADS
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ |= {"PYTHONPATH": str(root / "src"), **variables}
    command = [sys.executable, str(HERE / "company_worker.py"), task, setting, *words]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *command]
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Worker(tree, root, setting, process)
    finally:
        process.kill()
        process.communicate()


Speeds = dict[tuple[str, str, str, str], list[float]]
"""images/s of each round by way, setting, company and tree."""


def measure(
    task: str, workers: Sequence[Worker], companies: Sequence[str], rounds: int, seconds: float
) -> Speeds:
    """Every way of a task in each company, by all workers, in turns."""
    ways = workers[0].ways
    speeds: Speeds = {}
    with progress(task, rounds * len(companies) * len(ways) * len(workers), "measurements") as bar:
        for turn in range(rounds):
            for company in companies if turn % 2 else reversed(companies):
                with beside(company):
                    for way in ways if turn % 2 else reversed(ways):
                        for worker in workers if turn % 2 else reversed(workers):
                            found = worker.images_per_s(way, seconds)
                            key = (way, worker.setting, company, worker.tree)
                            speeds.setdefault(key, []).append(found)
                            bar.advance()
    return speeds


def rows_of(
    workers: Sequence[Worker], speeds: Speeds, companies: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each of our ways in each setting and company."""
    return [
        row_of(way, setting, company, speeds)
        for setting in dict.fromkeys(worker.setting for worker in workers)
        for way in workers[0].ways
        if not is_plain(way)
        for company in companies
    ]


@contextmanager
def beside(company: str) -> Iterator[None]:
    cores = find_processors().usable
    if company == POLITE:
        load = busy_processes(10, cores)
    elif company == APART:
        load = busy_processes(0, 2 * cores, apart=True)
    else:
        load = in_company(company)
    with load:
        yield


def row_of(way: str, setting: str, company: str, speeds: Speeds) -> dict[str, Any]:
    """images/s before and after, what is kept of the quiet rate, and what is asked of after."""
    name = f"{way}, as a library" if setting == "library" else way
    row: dict[str, Any] = {"name": name, "company": company}
    keeps = {}
    for tree in ("before", "after"):
        rounds = speeds[way, setting, company, tree]
        keeps[tree] = statistics.median(rounds) / statistics.median(
            speeds[way, setting, QUIET, tree]
        )
        row |= told(tree, rounds, keeps[tree])
    after = statistics.median(speeds[way, setting, company, "after"])
    bars: dict[str, bool] = {}
    if rival := rival_of(way):
        plain = statistics.median(speeds[rival, setting, company, "after"])
        row["plain"] = rounded(plain)
        if setting == "library":
            bars[f"{NORM_RATIO:g} times torch's norm"] = after >= NORM_RATIO * plain
        else:
            bars["plain PyTorch"] = after >= plain
    if company == QUIET:
        before = statistics.median(speeds[way, setting, company, "before"])
        bars[f"{100 * OF_BEFORE:.0f} % of before"] = after >= OF_BEFORE * before
    elif setting == "program" and company in OF_QUIET:
        bars[f"{100 * OF_QUIET[company]:.0f} % of quiet"] = keeps["after"] >= OF_QUIET[company]
    return row | judged(bars)


def told(tree: str, rounds: Sequence[float], keeps: float) -> dict[str, Any]:
    """A tree's part of a row."""
    return {
        tree: rounded(statistics.median(rounds)),
        f"{tree}_range": [rounded(min(rounds)), rounded(max(rounds))],
        f"{tree}_keeps": round(keeps, 2),
    }


def rounded(images_per_s: float) -> float:
    return round(images_per_s, 1)


def judged(bars: dict[str, bool]) -> dict[str, Any]:
    """At least what a row is asked for, and whether that is so."""
    if not bars:
        return {}
    missed = [bar for bar, is_met in bars.items() if not is_met]
    return {"at_least": ", ".join(bars), "met": f"no: {', '.join(missed)}" if missed else "yes"}


def is_plain(way: str) -> bool:
    return "torch's norm" in way or "plain PyTorch" in way


def rival_of(way: str) -> str:
    """What plain PyTorch has in place of one of our ways; empty where nothing was measured."""
    if is_plain(way):
        return ""
    if "our norm" in way:
        return way.replace("our norm", "torch's norm")
    name, ours, _ = way.partition(", ours, ")
    return f"{name}, plain PyTorch" if ours else ""


@contextmanager
def one_cpu() -> Iterator[Path]:
    """A control group that may use the time of one CPU, of version 1 or 2; OSError where that is
    not allowed, or there is none."""
    version, top = cpu_groups()
    group = top / f"alexnet-bench-{os.getpid()}"
    group.mkdir()
    try:
        if version == 1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(PERIOD_US))
        else:
            (group / "cpu.max").write_text(f"{PERIOD_US} {PERIOD_US}")
        yield group
    finally:
        group.rmdir()


def cpu_groups() -> tuple[int, Path]:
    """The version of the control groups that hold processors' time, and where they are."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        place = Path(before.split()[4])
        if kind == "cgroup" and "cpu" in options.split(","):
            return 1, place
        if kind == "cgroup2" and "cpu" in (place / "cgroup.controllers").read_text().split():
            (place / "cgroup.subtree_control").write_text("+cpu")
            return 2, place
    raise FileNotFoundError("no control groups of processors' time are mounted")


def measure_quota(
    trees: dict[str, Path], size: str, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Training and answers under a quota of one CPU, beside one thread without a quota, each tree
    in turns. OSError where no quota can be set."""
    rows: list[dict[str, Any]] = []
    with one_cpu() as group:
        for task in ("train", "infer"):
            speeds: dict[tuple[str, str, str], list[float]] = {}
            with ExitStack() as stack:
                arms: list[tuple[str, Worker]] = []
                for tree, root in trees.items():
                    limited = working(tree, root, task, size, group=group)
                    alone = working(tree, root, task, size, OMP_NUM_THREADS="1")
                    arms.append(("quota", stack.enter_context(limited)))
                    arms.append(("one thread", stack.enter_context(alone)))
                for _, worker in arms:
                    worker.await_ready()
                ways = [way for way in arms[0][1].ways if not is_plain(way) and ", 1, " not in way]
                total = rounds * len(ways) * len(arms)
                with progress(f"{task} under a quota", total, "measurements") as bar:
                    for turn in range(rounds):
                        for way in ways if turn % 2 else reversed(ways):
                            for arm, worker in arms if turn % 2 else reversed(arms):
                                found = worker.images_per_s(way, seconds)
                                speeds.setdefault((way, arm, worker.tree), []).append(found)
                                bar.advance()
            rows += [quota_row(way, speeds) for way in ways]
    return rows


def quota_row(way: str, speeds: dict[tuple[str, str, str], list[float]]) -> dict[str, Any]:
    """What is kept here is of the rate of one thread."""
    row: dict[str, Any] = {"name": way}
    row["company"] = f"a quota of one CPU on {find_processors().usable} cores"
    keeps = {}
    for tree in ("before", "after"):
        limited, alone = speeds[way, "quota", tree], speeds[way, "one thread", tree]
        keeps[tree] = statistics.median(limited) / statistics.median(alone)
        row |= told(tree, limited, keeps[tree])
    bar = f"{100 * OF_ONE_THREAD:.0f} % of one thread without a quota"
    return row | judged({bar: keeps["after"] >= OF_ONE_THREAD})


@contextmanager
def packed_photos() -> Iterator[Path]:
    """Photos' like, packed as JPEGs."""
    from alexnet.data.forms import open_image_set
    from alexnet.data.packing import PackOptions, pack_images
    from alexnet.lab.benches.input import make_photos

    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        work = Path(folder)
        tree = make_photos(work / "photos", 512)
        pack_images(
            open_image_set(tree),
            work / "packed",
            PackOptions(encoding="jpeg"),
            expect=None,
            workers=2,
        )
        yield work / "packed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, metavar="TREE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement, at least")
    parser.add_argument("--only", nargs="+", choices=(*TASKS, QUOTA), default=[*TASKS, QUOTA])
    parser.add_argument("--data", type=Path, help="set packed as JPEGs (default: photos are made)")
    parser.add_argument("--small", action="store_true", help="small networks: to see it work")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    trees = {"before": args.before.expanduser().resolve(), "after": HERE.parent}
    for root in trees.values():
        if not (root / "src/alexnet").is_dir():
            raise UsageError(f"{root} has no src/alexnet: name another checkout of this project")
    if args.rounds < 1:
        raise UsageError(f"--rounds {args.rounds}: it takes 1 or more")
    size = "small" if args.small else "full"
    rows: list[dict[str, Any]] = []
    rates: dict[str, dict[str, list[float]]] = {}
    sources: dict[str, Any] = {}
    missing: list[str] = []

    def keep() -> None:
        record = record_of(args, rows, rates, sources, missing)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.out, json.dumps(record, indent=1) + "\n")

    for task in (one for one in TASKS if one in args.only):
        say(task)
        with ExitStack() as stack:
            words = [size]
            if task == "input":
                place = nullcontext(args.data) if args.data else packed_photos()
                words.append(str(stack.enter_context(place)))
            workers = [
                stack.enter_context(working(tree, root, task, *words, setting=setting))
                for setting in (("library", "program") if task == "norm" else ("program",))
                for tree, root in trees.items()
            ]
            for worker in workers:
                worker.await_ready()
                sources.setdefault(f"{worker.tree}, {worker.setting}", source_of(worker))
            speeds = measure(task, workers, BESIDE, args.rounds, args.seconds)
        rows += rows_of(workers, speeds, BESIDE)
        for key, found in speeds.items():
            rates.setdefault(key[0], {})[", ".join(key[1:])] = [rounded(one) for one in found]
        keep()
    if QUOTA in args.only:
        say(QUOTA)
        try:
            rows += measure_quota(trees, size, args.rounds, args.seconds)
        except OSError as error:
            missing.append(f"under a quota of one CPU, which needs root and Linux: {error}")
        keep()
    print(json.dumps(record_of(args, rows, rates, sources, missing), indent=1))


def source_of(worker: Worker) -> dict[str, Any]:
    """Which code computed, with what variables."""
    environment = worker.told["environment"]
    return {
        "commit": environment["commit"],
        "dirty": environment["dirty"],
        "threads": environment["threads"],
        "variables": worker.told["variables"],
    }


def record_of(
    args: argparse.Namespace,
    rows: list[dict[str, Any]],
    rates: dict[str, dict[str, list[float]]],
    sources: dict[str, Any],
    missing: list[str],
) -> dict[str, Any]:
    from alexnet.runtime import environment

    before = next((one for name, one in sources.items() if name.startswith("before")), None)
    commit = f". Before is {before['commit'][:10]}" if before and before["commit"] else ""
    return {
        "note": f"Images/s, medians of {args.rounds} rounds, each with both trees in every company "
        "of one busy process a core; apart, of two in sessions of their own. What is kept is of "
        "the same tree's quiet rate, under a quota of its rate with one thread and no quota; plain "
        "is plain PyTorch (of a norm, torch's own) in the same company. A call of a norm is 32 "
        f"images; as a library nothing is set in the environment{commit}",
        "rounds": args.rounds,
        "seconds": args.seconds,
        "cores": find_processors().usable,
        "bars_met": sum(row.get("met") == "yes" for row in rows),
        "bars_missed": [
            f"{row['name']}, {row['company']}: {row['met']}"
            for row in rows
            if row.get("met", "yes") != "yes"
        ],
        "trees": sources,
        "rows": rows,
        "rates": rates,
        "missing": missing,
        "environment": environment(),
    }


if __name__ == "__main__":
    with interrupt_on(STOP):
        obeyed(main, "the same command begins anew")
