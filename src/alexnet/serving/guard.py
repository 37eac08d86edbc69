"""What every request passes: the token, headers that keep a browser safe, and a count."""

import hmac
from collections.abc import Callable

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alexnet.serving.limits import refusal

OPEN = ("/", "/healthz", "/readyz")  # without a token

_SECURE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Asks for the token, adds the headers that keep a browser safe, and counts answers.

    By hand, since Starlette's middleware for functions runs each request in a task of its own.
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
                MutableHeaders(scope=message).update(_SECURE)
                known = path if path in self._paths() else "other"
                self._answered.labels(known, message["status"]).inc()
            await send(message)

        if self._token is None or path in OPEN or self._knows(Headers(scope=scope)):
            return await self._app(scope, receive, answer)
        said = "this server wants its token: Authorization: Bearer …"
        await refusal(401, said, {"WWW-Authenticate": "Bearer"})(scope, receive, answer)

    def _knows(self, headers: Headers) -> bool:
        given = headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())
