"""What a client may do, and what it is told in one sentence where it does more."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

RETRY_S = "1"


@dataclass(frozen=True)
class Limits:
    """Of a request: bytes of its body, images, pixels an image, seconds to send it and to answer
    it. `queue` requests are worked on at once, and `explained` of those to explain; others are
    turned away. `batch` images go through the network together."""

    body: int = 8 * 2**20
    images: int = 32
    pixels: int = 25_000_000
    queue: int = 64
    explained: int = 4
    batch: int = 64
    read_s: float = 15.0
    answer_s: float = 30.0


class Refused(Exception):
    """An answer that is not 200: a status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to what is refused: one sentence as JSON, and when to come again if busy."""
    retry = {"Retry-After": RETRY_S} if status == 503 else {}
    return JSONResponse({"error": sentence}, status, {**(headers or {}), **retry})


async def read_images(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """The images of a request: the files of a form, or the body itself. (name, bytes) each."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind in ("", "application/octet-stream")):
        raise Refused(415, f"{kind[:80]} is not taken: send an image or a form with images")
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > limits.body:
        raise Refused(413, f"{int(said):,} bytes are too many: the limit is {limits.body:,}")
    body = _body(request, limits)
    try:
        async with asyncio.timeout(limits.read_s):
            found = await (_files(request, body, limits) if form else _one(body))
    except TimeoutError:
        raise Refused(408, f"the request took longer than {limits.read_s:g} s to arrive") from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the request did") from None
    if not found or not all(data for _, data in found):
        raise Refused(400, "there is no image in the request: send one as its body or in a form")
    return found


async def _body(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limits.body:
            raise Refused(413, f"the body has too many bytes: the limit is {limits.body:,}")
        yield chunk


async def _one(body: AsyncIterator[bytes]) -> list[tuple[str, bytes]]:
    return [("image", b"".join([chunk async for chunk in body]))]


async def _files(request: Request, body: Any, limits: Limits) -> list[tuple[str, bytes]]:
    parser = MultiPartParser(request.headers, body, max_files=limits.images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refused(413, f"a request takes at most {limits.images} images") from None
        if "Too many fields" in error.message:
            raise Refused(400, "a part of the form is no file") from None
        raise Refused(400, "the form cannot be read: it is cut short or no multipart") from None
    except (KeyError, ValueError, AssertionError):
        raise Refused(400, "the form cannot be read: it has no boundary") from None
    try:
        found = []
        for _, part in form.multi_items():
            assert not isinstance(part, str)
            found.append(((part.filename or "image")[:200], await part.read()))
        return found
    finally:
        await form.close()
