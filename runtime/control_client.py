"""The command line's end of the control API: asks the running daemon over its unix socket.

Owns the connection and what to say when nobody answers. Must not know what is printed.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from runtime.errors import DaemonUnreachable, RuntimeFault
from runtime.listening import reachable

SOCKET_NAME = "porten.sock"
NOT_RUNNING = "the node is not running: start it with `porten run`"
_TIMEOUT = httpx.Timeout(10.0, read=None)  # a pull takes as long as it takes


class ControlClient:
    """The daemon's control API. Use `ControlClient.connect`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, state_dir: Path) -> AsyncIterator["ControlClient"]:
        """Talk to the daemon of this data directory.

        Raises:
            DaemonUnreachable: none runs.
        """
        path = state_dir / SOCKET_NAME
        if not path.exists():
            raise DaemonUnreachable(NOT_RUNNING)
        with reachable(path) as name:
            transport = httpx.AsyncHTTPTransport(uds=name)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://node", timeout=_TIMEOUT, trust_env=False
            ) as client:
                yield cls(client)

    async def status(self) -> dict[str, Any]:
        """The document of `porten status --json`."""
        document: dict[str, Any] = (await self._ask("GET", "/status")).json()
        return document

    async def unload(self, model_id: str) -> None:
        """Stop a model's engines; returns once their memory is back."""
        await self._ask("POST", f"/unload/{model_id}")

    async def remove(self, model_id: str) -> int:
        """Unload a model and delete its weights; returns the bytes freed."""
        freed: int = (await self._ask("DELETE", f"/models/{model_id}")).json()["freed_bytes"]
        return freed

    async def take_up_key(self) -> str:
        """Have the daemon go over to the key that the Hub was told of; returns when that is."""
        taken: str = (await self._ask("POST", "/key")).json()["taken"]
        return taken

    async def pause(self, until: float | None) -> dict[str, Any]:
        """Give the machine back until then (seconds since the epoch) or `resume`; returns how far that is."""
        query = "" if until is None else f"?until={until!r}"
        document: dict[str, Any] = (await self._ask("POST", f"/pause{query}")).json()
        return document

    async def resume(self) -> dict[str, Any]:
        """End the owner's pause; returns what still keeps the node from working."""
        document: dict[str, Any] = (await self._ask("POST", "/resume")).json()
        return document

    async def expect_leave(self) -> None:
        """Say that the owner is about to leave the Hub, so that its refusals alarm nobody."""
        await self._ask("POST", "/leave")

    async def shutdown(self) -> None:
        """Begin the daemon's shutdown; returns at once."""
        await self._ask("POST", "/shutdown")

    async def restart(self) -> None:
        """Begin the daemon's shutdown, to be started again by its service; returns at once."""
        await self._ask("POST", "/restart")

    async def progress(self, action: str, model_id: str) -> AsyncIterator[dict[str, Any]]:
        """The steps of `pull` or `load`, to the end.

        Raises:
            RuntimeFault: it failed; the message is the daemon's.
        """
        try:
            async with self._client.stream("POST", f"/{action}/{model_id}") as answer:
                async for line in answer.aiter_lines():
                    step = json.loads(line)
                    if "error" in step:
                        raise RuntimeFault(step["error"])
                    if "ok" in step:
                        return
                    yield step
        except httpx.HTTPError:
            raise DaemonUnreachable("the node stopped before it was done") from None
        raise DaemonUnreachable("the node stopped before it was done")

    async def _ask(self, method: str, path: str) -> httpx.Response:
        try:
            answer = await self._client.request(method, path)
        except httpx.ConnectError:
            raise DaemonUnreachable(NOT_RUNNING) from None
        except httpx.HTTPError as error:
            raise DaemonUnreachable(f"the node does not answer: {type(error).__name__}") from None
        if answer.status_code >= 400:
            raise RuntimeFault(_error_of(answer))
        return answer


def _error_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the node answered {answer.status_code}"
