"""The HTTP interface of a run."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib import metadata, resources
from typing import Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException

from alexnet.data.images import decode_image
from alexnet.errors import DataError
from alexnet.interchange.certificate import describe
from alexnet.predict import Predictor
from alexnet.serving.batcher import Batcher
from alexnet.serving.engines import Engine
from alexnet.serving.limits import Limits, Refused, read_images

DECODERS = 2  # threads
OPEN = ("/", "/healthz", "/readyz")  # without a token
DRAWN = 40  # pixels; grey images up to this size are drawn by hand
RETRY_S = "1"
_DOT = b"P5 1 1 255\n\0"  # an image

_SECURE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": _FORM,
        },
    }
}
_ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    }
}
_SAID = {
    400: "no image, or a form that cannot be read",
    401: "the token is missing or wrong",
    408: "the request did not arrive in time",
    413: "too many bytes or images",
    415: "neither an image nor a form",
    422: "not an image that can be decoded, or too large a one; or top is out of range",
    503: "too much to do: try again after Retry-After seconds",
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": said, **_ERROR} for status, said in _SAID.items()
}


class Metrics:
    """What /metrics counts."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "alexnet_requests", "Requests answered", ("path", "status"), registry=own
        )
        self.images = Counter("alexnet_images", "Images classified", registry=own)
        self.pending = Gauge("alexnet_pending", "Requests being worked on", registry=own)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self.batch = Histogram("alexnet_batch_images", "A batch", registry=own, buckets=sizes)
        self.seconds = Histogram("alexnet_classify_seconds", "Of /classify", registry=own)


def build_app(
    predictor: Predictor, engine: Engine, limits: Limits, token: str | None = None
) -> FastAPI:
    """The application; `engine` is called on a thread of its own, never twice at once."""
    metrics = Metrics()
    about = _about(predictor, limits)
    decoding = pending = 0
    batcher: Batcher
    ready = False
    metrics.pending.set_function(lambda: pending)
    decoders = ThreadPoolExecutor(DECODERS, "decoder")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher, ready
        batcher = Batcher(engine, lambda: decoding)
        work = asyncio.create_task(batcher.run())
        side, channels = predictor.preprocess.size, predictor.preprocess.channels
        decode("warm-up", _DOT)  # the first of each kind takes long
        for n in (1, 2):
            await batcher(np.zeros((n, side, side, channels), np.uint8))
        ready = True
        yield
        ready = False
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        decoders.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=f"alexnet: {predictor.recipe.model}",
        version=metadata.version("alexnet"),
        lifespan=lifespan,
        docs_url=None,  # theirs come from another host
        redoc_url=None,
    )

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        if token is not None and path not in OPEN and not _knows(request, token):
            answer: Response = _refuse(401, "this server wants its token: Authorization: Bearer …")
            answer.headers["WWW-Authenticate"] = "Bearer"
        else:
            answer = await go_on(request)
        answer.headers.update(_SECURE)
        known = path if path in _paths(app) else "other"
        metrics.requests.labels(known, answer.status_code).inc()
        return answer

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _refuse(error.status, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refuse(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        said = f"{request.method} {request.url.path[:200]}: {error.detail}".lower()
        return _refuse(error.status_code, said, error.headers)

    def decode(name: str, data: bytes) -> NDArray[np.uint8]:
        given = predictor.preprocess
        return decode_image(
            data, channels=given.channels, size=given.size, name=name, max_pixels=limits.pixels
        )

    @app.post("/classify", openapi_extra=_BODY, responses=_ANSWERS)
    async def classify(request: Request, top: int = Query(5, ge=1, le=1000)) -> JSONResponse:
        """The likeliest classes of one image (the body) or of several (a form)."""
        nonlocal decoding, pending
        began = time.perf_counter()
        if pending >= limits.queue:
            raise Refused(503, "there is too much to do at the moment: try again in a second")
        pending += 1
        try:
            images = await read_images(request, limits)
            arrived = time.perf_counter()
            try:
                async with asyncio.timeout(limits.answer_s):
                    decoding += 1
                    try:
                        loop = asyncio.get_running_loop()
                        pixels = await asyncio.gather(
                            *(loop.run_in_executor(decoders, decode, *one) for one in images)
                        )
                    except DataError as error:
                        raise Refused(422, str(error)) from None
                    finally:
                        decoding -= 1
                    decoded = time.perf_counter()
                    answer = await batcher(np.stack(pixels))
            except TimeoutError:
                raise Refused(503, f"no answer within {limits.answer_s:g} s: try again") from None
        finally:
            pending -= 1
            metrics.seconds.observe(time.perf_counter() - began)
        metrics.images.inc(len(images))
        metrics.batch.observe(answer.batch)
        rows = zip(images, answer.probabilities, strict=True)
        spent = {
            "receive": arrived - began,
            "decode": decoded - arrived,
            "wait": answer.waited_s,
            "network": answer.network_s,
            "total": time.perf_counter() - began,
        }
        return JSONResponse(
            {
                "results": [
                    {"name": name, "top": _ranked(row, predictor.classes, top)}
                    for (name, _), row in rows
                ],
                "batch": answer.batch,
                "ms": {key: round(1e3 * seconds, 3) for key, seconds in spent.items()},
            }
        )

    @app.get("/model")
    async def model() -> JSONResponse:
        """The network, its classes, what it expects, and the limits of a request."""
        return JSONResponse(about)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"ok": True})

    @app.get("/readyz", responses={503: {"description": "not ready", **_ERROR}})
    async def readyz() -> JSONResponse:
        """Whether images are taken."""
        return JSONResponse({"ok": True}) if ready else _refuse(503, "not ready yet, or stopping")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def counted() -> Response:
        """Counters in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page())

    return app


def _about(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    said = describe(predictor)
    grey = predictor.preprocess.channels == 1 and predictor.preprocess.size <= DRAWN
    kept = ("model", "classes", "recipe_digest", "metrics", "step")
    return {
        **{key: said[key] for key in kept},
        "preprocessing": {k: said["preprocessing"][k] for k in ("size", "crop", "channels")},
        "limits": {"body": limits.body, "images": limits.images, "pixels": limits.pixels},
        "draw": grey,
    }


def _ranked(row: NDArray[np.float32], classes: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    best = np.argsort(-row, kind="stable")[:top]
    return [{"class": classes[i], "index": int(i), "probability": float(row[i])} for i in best]


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _refuse(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    retry = {"Retry-After": RETRY_S} if status == 503 else {}
    return JSONResponse({"error": sentence}, status, {**(headers or {}), **retry})


@cache
def _page() -> str:
    return resources.files("alexnet.serving").joinpath("page.html").read_text()


def _paths(app: FastAPI) -> set[str]:
    return {getattr(route, "path", "") for route in app.routes}
