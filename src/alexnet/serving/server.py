"""The server process: one socket, one worker, drained on SIGTERM."""

import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from alexnet.errors import UsageError
from alexnet.interchange.optional_packages import missing_package
from alexnet.options import Placeholder, option
from alexnet.predictor import Predictor
from alexnet.serving.batcher import Engine
from alexnet.serving.explain import Explainer
from alexnet.terminal import say

if TYPE_CHECKING:
    from alexnet.serving.limits import Limits  # needs the extra

DRAIN_S = 20
KEEP_S = 5  # an idle connection stays open


def check_address(host: str, token: str | None) -> None:
    """Loopback needs no token; every other address does."""
    if token == "" or (token is not None and not token.isascii()):
        raise UsageError(
            f"{option('token')} is empty or not plain ASCII: give some letters and digits"
        )
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UsageError(
            f"{option('host', Placeholder(repr(host)))}: give an address, as 127.0.0.1 or 0.0.0.0"
        ) from None
    if not loopback and token is None:
        raise UsageError(
            f"{option('host', host)} can be reached by others: give a {option('token')} that "
            "they need"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """Bound and not yet listening; port 0 takes a free one."""
    if not 0 <= port < 2**16:
        raise UsageError(f"{option('port', port)}: give 0 to 65535")
    place = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in place else socket.AF_INET
    # Of sockets that do not say TCP asyncio leaves Nagle's algorithm on: the body of an answer then
    # waits for the client's delayed acknowledgement of its head, 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((place, port))
    except OSError as error:
        found.close()
        raise UsageError(
            f"{host}:{port} cannot be served from ({error.strerror}): choose another "
            f"{option('port')}"
        ) from None
    return found


def check_packages() -> None:
    """The one line where the extra is not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_package(str(error.name), "serve") from None


def serve_on(
    prepare: Callable[[], tuple[Predictor, Engine, Explainer]],
    listening: socket.socket,
    token: str | None,
    limits: "Limits | None" = None,
) -> None:
    """Serves what `prepare` makes until a signal; requests that have begun are answered first.

    It is made on the thread that will compute: OpenMP makes a team for each thread that ever did,
    and where teams are more than the processors their threads no longer wait awake.
    """
    import uvicorn

    from alexnet.serving.app import build_app
    from alexnet.serving.limits import Limits
    from alexnet.serving.protocol import choose_protocol

    with ThreadPoolExecutor(1, "network") as network:
        predictor, engine, explainer = network.submit(prepare).result()
        config = uvicorn.Config(
            build_app(predictor, engine, explainer, limits or Limits(), network, token),
            http=choose_protocol(),
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_S,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=512,
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {predictor.run.path} at http://{shown}:{port}/ (stop with Ctrl-C)")
        uvicorn.Server(config).run(sockets=[listening])
