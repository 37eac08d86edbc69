"""Requests: their limits, the token, reading their images, and refusals in one sentence."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_S = "1"  # after which a client may try again
OPEN_PATHS = ("/", "/healthz", "/readyz")  # need no token

_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Of one request: bytes of its `body`, number of `images`, `pixels` of an image, seconds to read
    it (`read_s`) and to answer it (`answer_s`). `queue` requests to classify and `explained`
    requests to explain are accepted at once; others are refused. A batch has at most `batch`
    images.
    """

    body: int = 8 * 2**20
    images: int = 32
    pixels: int = 25_000_000
    queue: int = 64
    explained: int = 4
    batch: int = 64
    read_s: float = 15.0
    answer_s: float = 30.0


class Refused(Exception):
    """A request is refused, with an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build the response to a refused request: one sentence as JSON; for 503 also Retry-After."""
    retry = {"Retry-After": RETRY_S} if status == 503 else {}
    return JSONResponse({"error": sentence}, status, {**(headers or {}), **retry})


async def read_images(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Read the images of a request, files of a form or the body itself, as (name, bytes)."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = media_type == "multipart/form-data"
    is_bytes = media_type.startswith("image/") or media_type in ("", "application/octet-stream")
    if not (is_form or is_bytes):
        raise Refused(415, f"content type {media_type[:80]}: send an image, or a form with images")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body:
        raise Refused(413, f"{int(length):,} bytes are too many: the limit is {limits.body:,}")
    body = _limited_body(request, limits)
    try:
        async with asyncio.timeout(limits.read_s):
            images = await (_read_form(request, body, limits) if is_form else _read_body(body))
    except TimeoutError:
        raise Refused(408, f"the request took longer than {limits.read_s:g} s to arrive") from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the request did") from None
    if not images or not all(data for _, data in images):
        raise Refused(400, "there is no image in the request: send one as its body or in a form")
    return images


async def _limited_body(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yield the body; raise Refused when it has too many bytes."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body:
            raise Refused(413, f"the body has too many bytes: the limit is {limits.body:,}")
        yield chunk


async def _read_body(body: AsyncIterator[bytes]) -> list[tuple[str, bytes]]:
    return [("image", b"".join([chunk async for chunk in body]))]


async def _read_form(request: Request, body: Any, limits: Limits) -> list[tuple[str, bytes]]:
    parser = MultiPartParser(request.headers, body, max_files=limits.images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refused(413, f"a request takes at most {limits.images} images") from None
        if "Too many fields" in error.message:
            raise Refused(400, "a part of the form is not a file") from None
        raise Refused(400, "the form cannot be read: it is cut short, or not multipart") from None
    except (KeyError, ValueError, AssertionError):
        raise Refused(400, "the form cannot be read: it has no boundary") from None
    try:
        files = []
        for _, part in form.multi_items():
            assert not isinstance(part, str)
            files.append(((part.filename or "image")[:200], await part.read()))
        return files
    finally:
        await form.close()


class RequestFilter:
    """Middleware that asks for the token, adds security headers and counts answers.

    It is not written as a function, since Starlette runs those in a task for each request.
    """

    def __init__(
        self, app: ASGIApp, paths: Callable[[], set[str]], token: str | None, answered: Counter
    ) -> None:
        self._app, self._paths, self._token, self._answered = app, paths, token, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
                label = path if path in self._paths() else "other"
                self._answered.labels(label, message["status"]).inc()
            await send(message)

        if self._token is None or path in OPEN_PATHS or self._has_token(Headers(scope=scope)):
            return await self._app(scope, receive, answer)
        sentence = "this server needs a token: send the header Authorization: Bearer TOKEN"
        await refusal(401, sentence, {"WWW-Authenticate": "Bearer"})(scope, receive, answer)

    def _has_token(self, headers: Headers) -> bool:
        authorization = headers.get("authorization", "")
        return hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode())
