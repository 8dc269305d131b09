"""Dialling a Hub by hand, up to any step of the handshake, and a node's backoff that never waits."""

import asyncio
import contextlib

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tunnel.backoff import Backoff
from tunnel.frames import FrameType, decode
from tunnel.messages import Challenge, Hello, decode_message


class Recorded(Backoff):
    """A backoff that never waits and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.asked: asyncio.Queue[tuple[str, float | None]] = asyncio.Queue()

    def failed(self, retry_after: float | None = None) -> float:
        self.asked.put_nowait(("failed", retry_after))
        return 0.0

    def refused(self, retry_after: float | None = None) -> float:
        self.asked.put_nowait(("refused", retry_after))
        return 0.0


async def dial(hub_side, node_id: str = "node_a"):
    headers = {"X-Porten-Node": node_id}
    return await connect(
        hub_side.url,
        additional_headers=headers,
        subprotocols=["porten-tunnel.v1"],
        compression=None,
        proxy=None,
        ping_interval=None,
    )


async def challenged(connection) -> bytes:
    (frame,) = decode(await connection.recv())
    assert frame.type == FrameType.CHALLENGE
    return decode_message(Challenge, frame.payload).nonce


def hello_for(hub_side, **changes: object) -> Hello:
    host = f"127.0.0.1:{hub_side.server.port}"
    return msgspec.structs.replace(Hello(node_id="node_a", instance_id="i", host=host), **changes)


async def closing_code(connection) -> int:
    with contextlib.suppress(ConnectionClosed):
        async for _ in connection:
            pass
    return connection.close_code
