"""An ASGI application served within the daemon's own event loop, on a socket that the daemon opened.

Owns the server's life. Must not know what is served. The server handles no signals: one place in the daemon
decides what a signal means.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

_DATE_S = 1.0


class AppServer:
    """One application on one listening socket."""

    def __init__(self, app: ASGIApp, listener: socket.socket, *, grace_s: float = 1.0) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serve until `stop`; answers in flight get the grace, then they are cut."""
        await self._server.serve(sockets=[self._listener])

    def stop(self, *, at_once: bool = False) -> None:
        """Let `serve` return, `at_once` without waiting for answers in flight."""
        self._server.ask_to_stop(at_once=at_once)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked = asyncio.Event()

    def ask_to_stop(self, *, at_once: bool) -> None:
        """End `main_loop`, and with `at_once` what is still answered too."""
        self.should_exit = True
        self.force_exit = at_once
        self._asked.set()

    async def main_loop(self) -> None:
        """Wait to be stopped, and keep the `Date` header right; uvicorn's own wakes ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _DATE_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield
