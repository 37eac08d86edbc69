"""The HTTP interface of a run."""

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
from alexnet.serving.guard import Guard
from alexnet.serving.limits import Limits, Refused, read_images, refusal

DECODERS = 2  # threads
DRAWN = 40  # pixels; grey images up to this size are drawn by hand
BUSY = "there is too much to do at the moment: try again in a second"
_DOT = b"P5 1 1 255\n\0"  # an image

# What the OpenAPI document says of requests and refusals.
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _IMAGE,
            "application/octet-stream": _IMAGE,
            "multipart/form-data": _FORM,
        },
    }
}
ONE: dict[str, Any] = {
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
_REFUSALS = {
    400: "no image, or a form that cannot be read",
    401: "the token is missing or wrong",
    408: "the request did not arrive in time",
    413: "too many bytes or images",
    415: "neither an image nor a form",
    422: "not an image that can be decoded, or too large a one; or top is out of range",
    503: "too much to do: try again after Retry-After seconds",
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": why, **ERROR} for status, why in _REFUSALS.items()
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
    predictor: Predictor,
    engine: Engine,
    explainer: Explainer,
    limits: Limits,
    network: ThreadPoolExecutor,
    token: str | None = None,
) -> FastAPI:
    """The application; `engine` is called on the one thread of `network` and `explainer` on one of
    its own, never twice at once. `predictor.precision` is that of the engine."""
    metrics = Metrics()
    about = _about(predictor, limits)
    decoding = pending = explaining = 0
    batcher: Batcher
    ready = False
    metrics.pending.set_function(lambda: pending)
    decoders = ThreadPoolExecutor(DECODERS, "decoder")
    thinker = ThreadPoolExecutor(1, "explainer")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher, ready
        batcher = Batcher(engine, lambda: decoding, limits.batch, network)
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
        for threads in (decoders, thinker):
            threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=f"alexnet: {predictor.recipe.model}",
        version=metadata.version("alexnet"),
        lifespan=lifespan,
        docs_url=None,  # theirs come from another host
        redoc_url=None,
    )

    app.add_middleware(Guard, paths=lambda: _paths(app), token=token, answered=metrics.requests)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        # What is still to come of it is not read: whoever sends without an end would go on.
        close = {"Connection": "close"} if error.status in (408, 413) else None
        return refusal(error.status, str(error), close)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refusal(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        said = f"{request.method} {request.url.path[:200]}: {error.detail}".lower()
        return refusal(error.status_code, said, error.headers)

    def decode(name: str, data: bytes) -> NDArray[np.uint8]:
        given = predictor.preprocess
        return decode_image(
            data, channels=given.channels, size=given.size, name=name, max_pixels=limits.pixels,
            orient=predictor.recipe.orient,
        )  # fmt: skip

    async def decoded(images: Sequence[tuple[str, bytes]]) -> list[NDArray[np.uint8]]:
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
    async def in_time() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limits.answer_s):
                yield
        except TimeoutError:
            raise Refused(503, f"no answer within {limits.answer_s:g} s: try again") from None

    @app.post("/classify", openapi_extra=BODY, responses=ANSWERS)
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
            async with in_time():
                pixels = await decoded(images)
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
                "ms": _spent(began, arrived, ready_at, answer),
            }
        )

    @app.post("/explain", openapi_extra=ONE, responses=ANSWERS)
    async def explain(
        request: Request, label: int | None = Query(None, ge=0, lt=len(predictor.classes))
    ) -> JSONResponse:
        """Where in one image the evidence for a class (`label`, an index; the likeliest without
        it) lies, the filters that it excites, and the nearest training images if there is an
        index."""
        nonlocal explaining
        if explaining >= limits.explained:
            raise Refused(503, BUSY)
        explaining += 1
        try:
            images = await read_images(request, limits)
            if len(images) > 1:
                raise Refused(413, f"one image is explained at a time, and {len(images)} were sent")
            async with in_time():
                (pixels,) = await decoded(images)
                loop = asyncio.get_running_loop()
                return JSONResponse(await loop.run_in_executor(thinker, explainer, pixels, label))
        finally:
            explaining -= 1

    @app.get("/model")
    async def model() -> JSONResponse:
        """The network, its classes, what it expects, and the limits of a request."""
        return JSONResponse(about)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"ok": True})

    @app.get("/readyz", responses={503: {"description": "not ready", **ERROR}})
    async def readyz() -> JSONResponse:
        """Whether images are taken."""
        return JSONResponse({"ok": True}) if ready else refusal(503, "not ready yet, or stopping")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def counted() -> Response:
        """Counters in Prometheus's text format."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page())

    return app


def _about(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    said = describe_network(predictor)
    grey = predictor.preprocess.channels == 1 and predictor.preprocess.size <= DRAWN
    kept = ("model", "classes", "recipe_digest", "metrics", "step")
    found = said.to_json()
    return {
        **{key: found[key] for key in kept},
        "precision": predictor.precision,
        "preprocessing": {
            k: found["preprocessing"][k] for k in ("size", "crop", "channels", "orient")
        },
        "limits": {"body": limits.body, "images": limits.images, "pixels": limits.pixels},
        "draw": grey,
    }


def _spent(began: float, arrived: float, ready: float, answer: Answer) -> dict[str, float]:
    """Where the time of a request went, in milliseconds."""
    spent = {
        "receive": arrived - began,
        "decode": ready - arrived,
        "wait": answer.waited_s,
        "network": answer.network_s,
        "total": time.perf_counter() - began,
    }
    return {key: round(1e3 * seconds, 3) for key, seconds in spent.items()}


@cache
def _page() -> str:
    return resources.files("alexnet.serving").joinpath("page.html").read_text()


def _paths(app: FastAPI) -> set[str]:
    return {getattr(route, "path", "") for route in app.routes}
