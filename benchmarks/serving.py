"""What `alexnet serve` stands: load, latency, memory and abuse, beside the bare network.

    python benchmarks/serving.py RUN IMAGES [--seconds 120] [--engine torch] [--out FILE]

The server is a process of its own; who asks is this one, on the same machine. IMAGES is a folder of
JPEGs. `one image` compares a request over HTTP with `Predictor.predict` of the same bytes in this
process, which the bar is about, and with `Predictor.answer` of their pixels, decoded before, all
three in turns. `batching` is two servers in turns, one of which takes one image at a time.
`company` is eight connections, quiet and beside a busy process a core, of the lowest and of an
equal priority, in turns. Memory is resident bytes of the server, once it has warmed up under the
same load and at the end.
"""

import argparse
import asyncio
import itertools
import json
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from script import obeyed

from alexnet.data.images import is_image
from alexnet.errors import UsageError
from alexnet.interchange.runtimes import with_engine
from alexnet.lab.benches.company import COMPANIES, QUIET, in_company, no_company
from alexnet.lab.benches.rounds import companies_by_round
from alexnet.predictor import Predictor, load
from alexnet.runtime import environment
from alexnet.serving.batcher import Engine
from alexnet.serving.explain import Explainer
from alexnet.serving.server import open_socket, serve_on
from alexnet.support.files import write_atomic
from alexnet.support.terminal import say

CONNECTIONS, FEW, HALF_OPEN, BOMBS = 32, 8, 300, 50
ROUNDS = 5  # of comparisons in turns
BARS = {"batching": 1.5, "latency": 1.2, "growth_bytes": 50 * 2**20, "company": 3.0}


@dataclass
class Heard:
    """Seconds of each answer, and how often each status came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Requests that were answered with 200, until the last had its answer."""
        return self.statuses["200"] / self.wall_s

    def row(self) -> dict[str, Any]:
        percentile = np.percentile(self.seconds, (50, 99)) if self.seconds else (np.nan, np.nan)
        return {
            "requests": len(self.seconds),
            "requests_per_s": round(self.per_s, 1),
            "p50_ms": round(1e3 * float(percentile[0]), 2),
            "p99_ms": round(1e3 * float(percentile[1]), 2),
            "statuses": dict(sorted(self.statuses.items())),
        }


@dataclass
class Server:
    port: int
    pid: int

    @property
    def bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


@contextmanager
def serving(run: Path, engine: str, batch: int) -> Iterator[Server]:
    """A server that is ready."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, __file__, str(run), "-", "--engine", engine]
        process = subprocess.Popen([*command, "--serve", str(batch)], stderr=log)
        try:
            while True:
                log.seek(0)
                if process.poll() is not None:
                    raise UsageError(f"the server ended: {log.read()}")
                if found := re.search(r"http://127.0.0.1:(\d+)/", log.read()):
                    server = Server(int(found[1]), process.pid)
                    if asyncio.run(ready(server.port)):
                        break
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait()


async def ready(port: int) -> bool:
    try:
        return (
            await ask(*await asyncio.open_connection("127.0.0.1", port), GET % b"/readyz") == "200"
        )
    except OSError:
        return False


GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


def request(image: bytes) -> bytes:
    head = "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: "
    return f"{head}{len(image)}\r\n\r\n".encode() + image


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> str:
    """The status of an answer, read whole."""
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return head[9:12].decode()


async def knock(port: int, requests: Sequence[bytes], seconds: float, connections: int) -> Heard:
    """Asks over and over, on so many connections at once."""
    heard, turn = Heard(), itertools.count()
    start = time.perf_counter()
    until = start + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            sent = requests[next(turn) % len(requests)]
            heard.statuses[await ask(reader, writer, sent)] += 1
            heard.seconds.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    heard.wall_s = time.perf_counter() - start
    return heard


async def health(port: int) -> float:
    """Seconds that /healthz takes on a connection of its own."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await ask(reader, writer, GET % b"/healthz") == "200"
    writer.close()
    return time.perf_counter() - began


async def loaded(port: int, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """The load, while somebody looks each second whether the server is well."""
    work = asyncio.create_task(knock(port, requests, seconds, CONNECTIONS))
    looks = []
    while not work.done():
        looks.append(await health(port))
        await asyncio.wait([work], timeout=1)
    return {**work.result().row(), "healthz_most_ms": round(1e3 * max(looks), 1)}


def one_image(server: Server, run: Path, images: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """A request over HTTP beside the model called here with the same bytes, and beside its network
    alone, in turns; medians of rounds."""
    predictor = load(run)
    pixels = [predictor.decode(image)[None] for image in images]
    requests = [request(image) for image in images]
    share = seconds / (3 * ROUNDS + 3)
    arms: dict[str, Callable[[], list[float]]] = {
        "served": lambda: asyncio.run(knock(server.port, requests, share, 1)).seconds,
        "called": lambda: timed(lambda image: predictor.predict([image]), images, share),
        "network": lambda: timed(predictor.answer, pixels, share),
    }
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(ROUNDS + 1):
        for name in list(arms) if i % 2 else reversed(list(arms)):
            found = statistics.median(arms[name]())
            if i:  # the first warms up
                spent[name].append(found)

    def beside(name: str) -> tuple[float, list[float]]:
        rounds = [a / b for a, b in zip(spent["served"], spent[name], strict=True)]
        return round(statistics.median(rounds), 3), [round(min(rounds), 3), round(max(rounds), 3)]

    (ratio, extent), (alone, alone_extent) = beside("called"), beside("network")
    return {
        **{f"{name}_ms": round(1e3 * statistics.median(found), 3) for name, found in spent.items()},
        "ratio": ratio,
        "range": extent,
        "ratio_to_network": alone,
        "range_to_network": alone_extent,
    }


def timed(call: Callable[[Any], object], given: Sequence[Any], seconds: float) -> list[float]:
    """Seconds of each call, one after the other."""
    until, spent = time.perf_counter() + seconds, []
    for one in itertools.cycle(given):
        began = time.perf_counter()
        call(one)
        spent.append(time.perf_counter() - began)
        if time.perf_counter() > until:
            return spent
    raise AssertionError("nothing was given")


def abused(server: Server) -> dict[str, Any]:
    """300 half-open connections while /healthz answers, then 50 pixel bombs at once."""
    opened = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(HALF_OPEN)]
    for one in opened:
        one.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\n")
    took = [asyncio.run(health(server.port)) for _ in range(5)]
    for one in opened:
        one.close()
    before, began = server.bytes, time.perf_counter()
    heard = asyncio.run(at_once(server.port, request(bomb()), BOMBS))
    return {
        "half_open": {"connections": HALF_OPEN, "healthz_most_ms": round(1e3 * max(took), 1)},
        "bombs": {
            "count": BOMBS,
            "statuses": dict(heard),
            "wall_s": round(time.perf_counter() - began, 2),
            "extra_bytes": server.bytes - before,
        },
    }


def bomb() -> bytes:
    """A few kilobytes that say they are 100 million pixels."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "png")
    return out.getvalue()


async def at_once(port: int, sent: bytes, count: int) -> Counter[str]:
    async def one() -> str:
        return await ask(*await asyncio.open_connection("127.0.0.1", port), sent)

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


def batching(
    servers: dict[str, Server], requests: Sequence[bytes], seconds: float
) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {name: [] for name in servers}
    for turn in range(ROUNDS + 1):
        for name in list(servers) if turn % 2 else reversed(list(servers)):
            share = seconds / (2 * ROUNDS + 2)
            heard = asyncio.run(knock(servers[name].port, requests, share, CONNECTIONS))
            if turn:
                speeds[name].append(heard.per_s)
    rounds = [a / b for a, b in zip(speeds["together"], speeds["one by one"], strict=True)]
    return {
        **{name: round(statistics.median(found), 1) for name, found in speeds.items()},
        "unit": "requests/s",
        "ratio": round(statistics.median(rounds), 2),
        "range": [round(min(rounds), 2), round(max(rounds), 2)],
    }


def in_companies(
    server: Server, requests: Sequence[bytes], seconds: float
) -> dict[str, dict[str, Any]]:
    """Eight connections, quiet and in each company: what was heard in all rounds together, and how
    many times the quiet p99 that of a company is, with the rounds' own."""
    heard: dict[str, list[Heard]] = {}
    beside = companies_by_round(3, () if no_company() else COMPANIES)
    share = seconds / sum(map(len, beside))
    for company in itertools.chain.from_iterable(beside):
        with in_company(company):
            found = asyncio.run(knock(server.port, requests, share, FEW))
        heard.setdefault(company, []).append(found)
    rows = {}
    for company in (QUIET, *(name for name in COMPANIES if name in heard)):
        rounds = heard[company]
        statuses = sum((one.statuses for one in rounds), Counter[str]())
        spent = [second for one in rounds for second in one.seconds]
        rows[company] = Heard(spent, statuses, sum(one.wall_s for one in rounds)).row()
        p99 = [one.row()["p99_ms"] for one in rounds]
        rows[company] |= {
            "p99_of_quiet": round(rows[company]["p99_ms"] / rows[QUIET]["p99_ms"], 2),
            "p99_range_ms": [min(p99), max(p99)],
        }
    return rows


def measure(run: Path, images: Sequence[bytes], seconds: float, engine: str) -> dict[str, Any]:
    requests = [request(image) for image in images]
    with serving(run, engine, 64) as together:
        say("one image")
        single = one_image(together, run, images, max(seconds / 4, 3))
        say("batching beside one by one")
        with serving(run, engine, 1) as alone:
            servers = {"together": together, "one by one": alone}
            batched = batching(servers, requests, max(seconds / 2, 6))
        asyncio.run(knock(together.port, requests, max(seconds / 12, 2), CONNECTIONS))
        say(f"{FEW} connections, quiet and in company")
        company = in_companies(together, requests, max(seconds / 2, 9))
        say(f"{CONNECTIONS} connections for {seconds:g} s")
        before = together.bytes
        load = asyncio.run(loaded(together.port, requests, seconds))
        growth = together.bytes - before
        say("abuse")
        abuse = abused(together)
    errors = [s for s in load["statuses"] if s[0] == "5" and s != "503"]
    return {
        "connections": CONNECTIONS,
        "seconds": seconds,
        "images": len(images),
        "engine": engine,
        "load": {**load, "resident_bytes": before, "growth_bytes": growth, "errors": errors},
        "one_image": single,
        "batching": batched,
        "company": company,
        "abuse": abuse,
        "bars": BARS,
        "meets": {
            "no error but 503": not errors,
            "growth": growth < BARS["growth_bytes"],
            "latency": single["ratio"] <= BARS["latency"],
            "batching": batched["ratio"] >= BARS["batching"],
            **{
                f"beside {name}": row["p99_of_quiet"] <= BARS["company"]
                for name, row in company.items()
                if name != QUIET
            },
            "healthz": abuse["half_open"]["healthz_most_ms"] < 1000,
        },
    }


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The record's table: what was done, its figure, and the bar it is held to."""
    load_, one, many = found["load"], found["one_image"], found["batching"]
    slow = f"p50 {load_['p50_ms']:.0f} ms, p99 {load_['p99_ms']:.0f} ms"
    took = f"{one['served_ms']:.1f} ms served, {one['called_ms']:.1f} ms called from Python"
    alone = f"{one['ratio_to_network']:.2f} times the network alone, {one['network_ms']:.1f} ms"
    turns = f"{many['together']:.1f} requests/s together, {many['one by one']:.1f} one by one"
    grown = f"{load_['growth_bytes'] / 2**20:.1f} MiB"
    met = {bar: "yes" if kept else "no" for bar, kept in found["meets"].items()}
    return [
        {"name": f"{found['connections']} connections for {found['seconds']:g} s",
         "figure": f"{load_['requests_per_s']:.1f} requests/s, {slow}",
         "met": met["no error but 503"]},
        {"name": "growth of memory meanwhile", "figure": grown, "met": met["growth"]},
        {"name": "requests taken together", "figure": f"{turns}: {many['ratio']:.2f}",
         "met": met["batching"]},
        {"name": "one image", "figure": f"{took}: {one['ratio']:.2f}; {alone}",
         "met": met["latency"]},
        *(
            {"name": f"{FEW} connections, " + (
                QUIET if name == QUIET else f"beside a busy process a core of {name} priority"),
             "figure": f"{row['requests_per_s']:.1f} requests/s, p50 {row['p50_ms']:.0f} ms, "
                       f"p99 {row['p99_ms']:.0f} ms: {row['p99_of_quiet']:.2f} times quiet",
             "met": met.get(f"beside {name}", "")}
            for name, row in found["company"].items()
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, help="folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=int, metavar="BATCH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        from alexnet.serving.requests import Limits

        def prepare() -> tuple[Predictor, Engine, Explainer]:
            predictor = load(args.run)
            answering = with_engine(predictor, args.engine)
            return answering, answering.answer, Explainer(predictor)

        with open_socket("127.0.0.1", 0) as listening:
            serve_on(prepare, listening, None, Limits(batch=args.serve))
        return
    files = sorted(p for p in args.images.rglob("*") if is_image(p.name))
    files = files[:: max(len(files) // 500, 1)][:500]  # of all classes
    if not files:
        raise UsageError(f"{args.images} holds no image files; name a folder of JPEGs")
    found = measure(args.run, [p.read_bytes() for p in files], args.seconds, args.engine)
    described = load(args.run).recipe
    found = {"rows": rows_of(found), **found}
    record = {"model": described.model, **found, "environment": environment()}
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    obeyed(main)
