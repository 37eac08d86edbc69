"""An HTTP protocol that drops connections whose request does not arrive in time.

uvicorn itself waits for ever. No other module uses internals of uvicorn. If this version of uvicorn
lacks one that is needed, its own protocol serves and a line says so; ALEXNET_PLAIN=1 always uses
uvicorn's own.
"""

import asyncio
from typing import Any

from alexnet.support.plain import is_plain, report_missing

HEADERS_S = 5.0  # from the connection or the last answer to the end of the next request's headers
PLAIN = "h11"  # uvicorn's own protocol, by the name that its settings take
METHODS = ("connection_made", "data_received", "on_response_complete", "connection_lost")


def choose_protocol(headers_s: float = HEADERS_S) -> type[asyncio.Protocol] | str:
    """Return the value of uvicorn's setting `http`: our protocol, or the name of uvicorn's own."""
    if is_plain():
        return PLAIN
    try:
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError:
        H11Protocol = None  # type: ignore[assignment, misc]
    if not all(hasattr(H11Protocol, name) for name in METHODS):
        report_missing("uvicorn's H11Protocol as it was", "slow requests are never dropped")
        return PLAIN
    return _with_timeout(H11Protocol, headers_s)


def _with_timeout(plain: Any, headers_s: float) -> type[asyncio.Protocol]:
    class ImpatientProtocol(plain):  # type: ignore[misc]
        """HTTP protocol that drops a connection whose request does not arrive in time."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering() and self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._is_answering():
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start_timer(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(headers_s, self._drop)

        def _drop(self) -> None:
            self._timer = None
            if not self._is_answering():
                self.transport.abort()

    return ImpatientProtocol
