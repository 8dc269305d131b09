"""HTTP as uvicorn speaks it, with an end to what a peer may send or withhold before anything is known of it.

Owns the limits on heads, trailers and silence, and how many connections the process may hold. Knows nothing
of what is asked. Trailer fields are dropped: nobody here reads them, and as headers they would come too late
to be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hub.api.corked import Corked

HEAD_BYTES = 64 * 1024
"""Bytes of a request's head, and again of what comes after it and is no body."""
HEAD_TIMEOUT_S = 30.0
"""Seconds from the connection's start, or a later request's first byte, until a head is complete."""
LAST_HEAD_TIMEOUT_S = 1.0
"""Seconds in which a connection that was let in just before the end may still say what it came for."""
UNREAD_S = 120.0
"""Seconds a peer may take nothing at all of what waits for it, after which the connection is cut."""
_BETWEEN = len(b": \r\n")

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 32\r\nconnection: close\r\n\r\n"
    b"The request's head is too large."
)


class _TooLarge(Exception):
    """Ends the parsing of what has been read."""


class GuardedHttp(HttpToolsProtocol):
    """One connection."""

    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _refused = False
    _ending = False
    _field_bytes = 0
    _fed = 0
    _barren = 0

    # --- what is read ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came. Bytes out of which nothing has come yet are counted: the parser may keep them."""
        self._fed = len(data)
        self._barren += self._fed
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._barren > HEAD_BYTES:
            self._refused = True
            self.send_400_response("")
        elif self._in_head and self._timer is None:
            self._await_head(HEAD_TIMEOUT_S)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._field_bytes = 0
        # What this read holds of an earlier request is not the new one's.
        self._barren = self._fed if self._exchange is None else 0

    def on_url(self, url: bytes) -> None:
        """Part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailers."""
        self._count(len(name) + len(value) + _BETWEEN)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._field_bytes = 0
        self._barren = 0
        self._forget_timer()
        super().on_headers_complete()
        if self._ending and self._exchange is not None:
            self._exchange.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._barren = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; what comes next is another."""
        self._in_head = True
        self._barren = 0
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > HEAD_BYTES:
            self._refused = True
            raise _TooLarge

    def send_400_response(self, msg: str) -> None:
        """Refuse and close; an answer under way is broken off rather than mixed with another."""
        if self._answering():
            self.transport.close()
        elif self._refused:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _answering(self) -> bool:
        exchange = self._exchange
        return exchange is not None and not exchange.response_complete

    @property
    def _exchange(self) -> RequestResponseCycle | None:
        """The newest request of the connection; uvicorn's type denies that there may be none yet."""
        return self.cycle

    # --- what does not come ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A peer is there, and may now ask."""
        super().connection_made(cast("asyncio.Transport", Corked(transport, self.loop)))
        self._await_head(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._forget_timer()
        self._forget_unread()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close after what is being answered. Whoever has just come is heard once, not hung up on."""
        if self._exchange is not None or self.transport.is_closing():
            super().shutdown()
            return
        self._ending = True
        self._forget_timer()
        self._await_head(LAST_HEAD_TIMEOUT_S)

    # --- what is not taken -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The peer does not take what is written as fast as it comes."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._forget_unread()
        super().resume_writing()

    def _await_taking(self) -> None:
        waits = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(UNREAD_S, self._untaken, waits)

    def _untaken(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() >= waited:
            self.transport.abort()
        else:
            self._await_taking()

    def _forget_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _await_head(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._late)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        """The time is up. Whoever is still being answered may take that long to ask again."""
        if self._answering():
            self._await_head(HEAD_TIMEOUT_S)
        else:
            self._timer = None
            self.transport.close()


def allow_connections() -> None:
    """Let this process hold as many connections as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # where "unlimited" is more than the system takes
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
