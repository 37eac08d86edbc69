"""The server process: one socket, one worker; SIGTERM lets open requests finish."""

import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from alexnet.errors import UsageError
from alexnet.interchange.optional_packages import missing_package
from alexnet.predictor import Predictor
from alexnet.serving.batcher import Engine
from alexnet.serving.explain import Explainer
from alexnet.support.options import Placeholder, option
from alexnet.support.terminal import say

if TYPE_CHECKING:
    from alexnet.serving.requests import Limits  # needs the extra

DRAIN_S = 20  # for open requests to finish after a signal
KEEP_ALIVE_S = 5  # that an idle connection stays open


def check_address(host: str, token: str | None) -> None:
    """Raise UsageError unless host and token are valid. Only loopback needs no token."""
    if token == "" or (token is not None and not token.isascii()):
        raise UsageError(f"{option('token')} is empty or not ASCII: give letters and digits")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UsageError(
            f"{option('host', Placeholder(repr(host)))}: give an address, as 127.0.0.1 or 0.0.0.0"
        ) from None
    if not loopback and token is None:
        raise UsageError(
            f"other machines can reach {option('host', host)}: add a {option('token')}, which "
            "clients then have to send"
        )


def open_socket(host: str, port: int) -> socket.socket:
    """Bind a socket, without listening yet; port 0 takes a free port."""
    if not 0 <= port < 2**16:
        raise UsageError(f"{option('port', port)}: give 0 to 65535")
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Without IPPROTO_TCP asyncio leaves Nagle's algorithm on. The body of an answer would then wait
    # 40 ms for the client's delayed acknowledgement of its headers.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise UsageError(
            f"the server cannot listen at {host}:{port} ({error.strerror}): choose another "
            f"{option('port')}"
        ) from None
    return bound


def check_packages() -> None:
    """Raise Unavailable, with the line to install it, if a package of the extra is missing."""
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
    """Serve the network that `prepare` loads, until a signal; open requests are answered first.

    `prepare` runs on the thread that will compute. OpenMP starts a team of threads for each thread
    that ever computed. Once the teams exceed the processors, idle threads sleep and wake slowly.
    """
    import uvicorn

    from alexnet.serving.app import build_app
    from alexnet.serving.protocol import choose_protocol
    from alexnet.serving.requests import Limits

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
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=512,
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        say(f"serving {predictor.run.path} at http://{shown}:{port}/ (stop with Ctrl-C)")
        uvicorn.Server(config).run(sockets=[listening])
