"""alexnet serve: a run behind HTTP, with a page to try it."""

from pathlib import Path

from alexnet.commands.inspected_run import InspectedRun
from alexnet.errors import UsageError
from alexnet.interchange.runtimes import EngineName, refuse_precision, with_engine
from alexnet.predictor import Predictor
from alexnet.recipe import Precision
from alexnet.records import ServeResult
from alexnet.serving.batcher import Engine
from alexnet.serving.explain import Explainer
from alexnet.serving.index import open_index
from alexnet.serving.server import check_address, check_packages, open_socket, serve_on
from alexnet.support.argument_checks import checked
from alexnet.support.options import option


@checked()
def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: EngineName = "torch",
    precision: Precision = "auto",
    token: str | None = None,
    index: bool = False,
    data: str | Path | None = None,
    checkpoint: str = "best",
) -> ServeResult:
    """Serves a run until SIGINT or SIGTERM: POST /classify and /explain, GET /model, /healthz,
    /readyz, /metrics, /openapi.json, and a page at /.

    With `index` answers to /explain show the nearest training images, which are read from the
    run's data (or from `data`, on which `engine` int8 is measured too): whoever may ask sees them.
    The index is built once and kept in the run. An address other than loopback needs a `token`.
    `precision` of the answers is auto, fp32 or bf16. Returns the address once it has stopped.
    """
    check_packages()
    refuse_precision(engine, precision)
    check_address(host, token)
    if data is not None and not index and engine != "int8":
        raise UsageError(
            f"{option('data')} is where the images of {option('index', True)} and "
            f"{option('engine', 'int8')} are: add one of them"
        )

    def prepare() -> tuple[Predictor, Engine, Explainer]:
        opened = InspectedRun(run, data, checkpoint, precision=precision)
        predictor = opened.predictor
        near = open_index(predictor, opened.dataset) if index else None
        answering = with_engine(predictor, engine, data, precision)
        return answering, answering.answer, Explainer(predictor, near)

    with open_socket(host, port) as listening:
        address = listening.getsockname()
        serve_on(prepare, listening, token)
    return ServeResult(run=str(run), host=address[0], port=address[1])
