"""alexnet serve: a run behind HTTP, with a page to try it."""

from pathlib import Path
from typing import Any

from alexnet.predict import load
from alexnet.serving.engines import EngineName, build_engine
from alexnet.serving.server import check_address, check_packages, open_socket, serve_on


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: EngineName = "torch",
    token: str | None = None,
    checkpoint: str = "best",
) -> dict[str, Any]:
    """Serves a run until SIGINT or SIGTERM: POST /classify, GET /model, /healthz, /readyz,
    /metrics, /openapi.json, and a page at /.

    An address other than loopback needs a `token`. Returns the address once it has stopped.
    """
    check_packages()
    check_address(host, token)
    with open_socket(host, port) as listening:
        address = listening.getsockname()
        predictor = load(run, checkpoint)
        serve_on(predictor, build_engine(predictor, engine), listening, token)
    return {"run": str(run), "host": address[0], "port": address[1]}
