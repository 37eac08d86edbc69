"""alexnet serve: its arguments and what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet.cli.arguments import Verbs, add_checkpoint, add_engine, add_precision, add_verb

if TYPE_CHECKING:
    from alexnet.records import ServeResult


def add(verbs: Verbs) -> None:
    parser = add_verb(verbs, "serve", "Serve a run over HTTP, with a page.", call, show)
    parser.add_argument("run", help="run directory")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: 127.0.0.1; any but loopback needs --token",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="INT", help="0 takes a free one (default: 8000)"
    )
    add_engine(parser)
    add_precision(parser)
    parser.add_argument(
        "--index", action="store_true", help="show the nearest training images (built once)"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="where those images, or int8's held-out ones, are now"
    )
    parser.add_argument("--token", help="what clients send as Authorization: Bearer TOKEN")
    add_checkpoint(parser)


def call(**options: Any) -> ServeResult:
    from alexnet.commands.serve import serve

    return serve(**options)


def show(r: ServeResult) -> None:
    print(f"served {r.run} at {r.host}:{r.port}; stopped")
