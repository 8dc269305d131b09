"""A connection's transport on which a response's head leaves together with what follows it.

Owns the holding back of a head until the body's first bytes, or the end of the loop's turn where none come.
uvicorn writes the two apart, and each write is a system call: a short answer needs one, not two. Knows
nothing of HTTP but how a response begins.
"""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "


class Corked:
    """Stands before a transport; all but writing and ending is the transport's own."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send, or hold a head back for a moment."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._let_go)
            return
        self._transport.write(data)

    def _let_go(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)

    def close(self) -> None:
        """End the connection, once all that was written has left."""
        self._let_go()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol, with nothing held back."""
        self._let_go()
        self._transport.set_protocol(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
