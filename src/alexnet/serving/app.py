"""The HTTP application: endpoints, metrics and the OpenAPI descriptions."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
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
from alexnet.interchange.certificate import describe_network
from alexnet.predictor import Predictor
from alexnet.serving.batcher import Answer, Batcher, Engine
from alexnet.serving.explain import Explainer
from alexnet.serving.requests import Limits, Refused, RequestFilter, read_images, refusal

DECODERS = 2  # threads
MAX_DRAWN = 40  # pixels a side; the page offers to draw grey images up to this size
BUSY = "the server has too many requests at the moment: try again in a second"
_ONE_PIXEL = b"P5 1 1 255\n\0"  # a PGM image

# Descriptions of requests and refusals in the OpenAPI document.
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": _FORM,
        },
    }
}
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": _IMAGE, "application/octet-stream": _IMAGE},
    }
}
ERROR = {
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
_REFUSAL_REASONS = {
    400: "no image, or a form that cannot be read",
    401: "the token is missing or wrong",
    408: "the request did not arrive in time",
    413: "too many bytes or images",
    415: "neither an image nor a form",
    422: "an image that cannot be decoded or is too large; or top is out of range",
    503: "too many requests: try again after Retry-After seconds",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": why, **ERROR} for status, why in _REFUSAL_REASONS.items()
}


class Metrics:
    """The counters that /metrics shows."""

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
    predictor: Predictor,
    engine: Engine,
    explainer: Explainer,
    limits: Limits,
    network: ThreadPoolExecutor,
    token: str | None = None,
) -> FastAPI:
    """Build the application.

    `engine` runs on the one thread of `network`, `explainer` on one thread of its own.
    `predictor.precision` is that of the engine.
    """
    metrics = Metrics()
    description = _describe_model(predictor, limits)
    decoding = pending = explaining = 0
    batcher: Batcher
    ready = False
    metrics.pending.set_function(lambda: pending)
    decoders = ThreadPoolExecutor(DECODERS, "decoder")
    explaining_thread = ThreadPoolExecutor(1, "explainer")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher, ready
        batcher = Batcher(engine, lambda: decoding, limits.batch, network)
        work = asyncio.create_task(batcher.run())
        side, channels = predictor.preprocess.size, predictor.preprocess.channels
        decode("warm-up", _ONE_PIXEL)  # the first call of each kind is slow
        for n in (1, 2):
            await batcher(np.zeros((n, side, side, channels), np.uint8))
        ready = True
        yield
        ready = False
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        for threads in (decoders, explaining_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=f"alexnet: {predictor.recipe.model}",
        version=metadata.version("alexnet"),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
    )

    app.add_middleware(
        RequestFilter, paths=lambda: _paths(app), token=token, answered=metrics.requests
    )

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        # The rest of the request is not read: a client might send without end.
        close = {"Connection": "close"} if error.status in (408, 413) else None
        return refusal(error.status, str(error), close)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        sentence = f"{request.method} {request.url.path[:200]}: {error.detail}".lower()
        return refusal(error.status_code, sentence, error.headers)

    def decode(name: str, data: bytes) -> NDArray[np.uint8]:
        stored = predictor.preprocess
        return decode_image(
            data, channels=stored.channels, size=stored.size, name=name, max_pixels=limits.pixels,
            orient=predictor.recipe.orient,
        )  # fmt: skip

    async def decode_all(images: Sequence[tuple[str, bytes]]) -> list[NDArray[np.uint8]]:
        nonlocal decoding
        loop = asyncio.get_running_loop()
        decoding += 1
        try:
            work = [loop.run_in_executor(decoders, decode, *one) for one in images]
            return await asyncio.gather(*work)
        except DataError as error:
            raise Refused(422, str(error)) from None
        finally:
            decoding -= 1

    @asynccontextmanager
    async def time_limit() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limits.answer_s):
                yield
        except TimeoutError:
            raise Refused(503, f"no answer within {limits.answer_s:g} s: try again") from None

    @app.post("/classify", openapi_extra=IMAGES_BODY, responses=REFUSALS)
    async def classify(request: Request, top: int = Query(5, ge=1, le=1000)) -> JSONResponse:
        """The likeliest classes of one image (the body) or of several (a form)."""
        nonlocal pending
        began = time.perf_counter()
        if pending >= limits.queue:
            raise Refused(503, BUSY)
        pending += 1
        try:
            images = await read_images(request, limits)
            arrived = time.perf_counter()
            async with time_limit():
                pixels = await decode_all(images)
                ready_at = time.perf_counter()
                answer = await batcher(np.stack(pixels))
        finally:
            pending -= 1
            metrics.seconds.observe(time.perf_counter() - began)
        metrics.images.inc(len(images))
        metrics.batch.observe(answer.batch)
        return JSONResponse(
            {
                "results": [
                    {"name": name, "top": predictor.rank(row, top)}
                    for (name, _), row in zip(images, answer.probabilities, strict=True)
                ],
                "batch": answer.batch,
                "precision": predictor.precision,
                "ms": _timings(began, arrived, ready_at, answer),
            }
        )

    @app.post("/explain", openapi_extra=IMAGE_BODY, responses=REFUSALS)
    async def explain(
        request: Request, label: int | None = Query(None, ge=0, lt=len(predictor.classes))
    ) -> JSONResponse:
        """Where one image has the evidence for a class, which filters respond to the image, and the
        nearest training images if there is an index. `label` is the index of a class, by default
        the likeliest."""
        nonlocal explaining
        if explaining >= limits.explained:
            raise Refused(503, BUSY)
        explaining += 1
        try:
            images = await read_images(request, limits)
            if len(images) > 1:
                raise Refused(413, f"{len(images)} images: send one image to explain at a time")
            async with time_limit():
                (pixels,) = await decode_all(images)
                loop = asyncio.get_running_loop()
                return JSONResponse(
                    await loop.run_in_executor(explaining_thread, explainer, pixels, label)
                )
        finally:
            explaining -= 1

    @app.get("/model")
    async def model() -> JSONResponse:
        """The network, its classes, its input, and the limits of a request."""
        return JSONResponse(description)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"ok": True})

    @app.get("/readyz", responses={503: {"description": "not ready", **ERROR}})
    async def readyz() -> JSONResponse:
        """Whether the server accepts images."""
        return JSONResponse({"ok": True}) if ready else refusal(503, "not ready yet, or stopping")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Counters in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page())

    return app


def _describe_model(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    network = describe_network(predictor).to_json()
    is_drawable = predictor.preprocess.channels == 1 and predictor.preprocess.size <= MAX_DRAWN
    shown = ("model", "classes", "recipe_digest", "metrics", "step")
    return {
        **{key: network[key] for key in shown},
        "precision": predictor.precision,
        "preprocessing": {
            key: network["preprocessing"][key] for key in ("size", "crop", "channels", "orient")
        },
        "limits": {"body": limits.body, "images": limits.images, "pixels": limits.pixels},
        "draw": is_drawable,
    }


def _timings(began: float, arrived: float, ready: float, answer: Answer) -> dict[str, float]:
    """Return the milliseconds of each stage of a request."""
    seconds = {
        "receive": arrived - began,
        "decode": ready - arrived,
        "wait": answer.waited_s,
        "network": answer.network_s,
        "total": time.perf_counter() - began,
    }
    return {key: round(1e3 * stage_s, 3) for key, stage_s in seconds.items()}


@cache
def _page() -> str:
    return resources.files("alexnet.serving").joinpath("page.html").read_text()


def _paths(app: FastAPI) -> set[str]:
    return {getattr(route, "path", "") for route in app.routes}
