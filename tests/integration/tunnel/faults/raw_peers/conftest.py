"""Peers that write their frames by hand: a node that was welcomed, a Hub that welcomes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tunnel.channel import WebSocketChannel
from tunnel.frames import Frame, FrameType, decode
from tunnel.handshake import challenge, signed_hello, welcome
from tunnel.identity import NodeIdentity
from tunnel.messages import Challenge, Hello, Welcome, decode_message
from tunnel.session import HubSession

SUBPROTOCOLS = ["porten-tunnel.v1"]


@dataclass
class RawPeer:
    """The bare websocket of one end."""

    connection: ClientConnection | ServerConnection
    _frames: deque[Frame] = field(default_factory=deque)

    async def send(self, message: bytes | str) -> None:
        await self.connection.send(message)

    async def next(self, kind: FrameType) -> Frame:
        """Read until a frame of that kind has come; what came before it is dropped."""
        while True:
            while self._frames:
                if (frame := self._frames.popleft()).type == kind:
                    return frame
            self._frames.extend(decode(await self.connection.recv()))

    async def closing_code(self) -> int | None:
        """Read until the other side closes."""
        try:
            async for _ in self.connection:
                pass
        except ConnectionClosed:
            pass
        await self.connection.wait_closed()
        return self.connection.close_code


class RawHub:
    """A Hub that welcomes its node and leaves the rest to the test."""

    def __init__(self) -> None:
        self.shake_hands = self._shake_hands
        self.identity = NodeIdentity("node_a", Ed25519PrivateKey.generate())
        self.peers: asyncio.Queue[RawPeer] = asyncio.Queue()
        self.url = ""
        self._generation = 0

    async def accept(self, connection: ServerConnection) -> None:
        await self.shake_hands(WebSocketChannel(connection))
        self.peers.put_nowait(RawPeer(connection))
        await connection.wait_closed()

    async def _shake_hands(self, channel: WebSocketChannel) -> None:
        async def public_keys(node_id: str) -> tuple[Any, ...]:
            return (self.identity.private_key.public_key(),)

        names = ("127.0.0.1",)
        node_id = self.identity.node_id
        await challenge(channel, hub_id="hub", node_id=node_id, host_names=names, public_keys=public_keys)
        self._generation += 1
        granted = {"generation": self._generation, "heartbeat_s": 15.0, "max_streams": 256}
        await welcome(channel, Welcome(hub_id="hub", credential="c", **granted))


@pytest.fixture
async def dial_raw() -> AsyncIterator[Callable[..., Awaitable[RawPeer]]]:
    """Dial a Hub by hand, as far as its CHALLENGE."""
    connections = []

    async def dialling(hub_side: Any, node_id: str = "node_a") -> RawPeer:
        connections.append(
            await connect(
                hub_side.url,
                additional_headers={"X-Porten-Node": node_id},
                subprotocols=SUBPROTOCOLS,
                compression=None,
                proxy=None,
                max_size=None,
                ping_interval=None,
            )
        )
        return RawPeer(connections[-1])

    yield dialling
    for connection in connections:
        await connection.close()


@pytest.fixture
def raw_node(dial_raw: Any) -> Callable[..., Awaitable[tuple[RawPeer, HubSession]]]:
    """A node that the Hub has welcomed: its bare websocket, and the Hub's session with it."""

    async def coming_in(hub_side: Any, node_id: str = "node_a") -> tuple[RawPeer, HubSession]:
        identity = hub_side.know(node_id)
        peer = await dial_raw(hub_side, node_id)
        nonce = decode_message(Challenge, (await peer.next(FrameType.CHALLENGE)).payload).nonce
        host = f"127.0.0.1:{hub_side.server.port}"
        await peer.send(signed_hello(Hello(node_id=node_id, instance_id="raw", host=host), nonce, identity))
        await peer.next(FrameType.WELCOME)
        return peer, await hub_side.sessions.get()

    return coming_in


@pytest.fixture
async def raw_hub() -> AsyncIterator[RawHub]:
    hub = RawHub()
    options: dict[str, Any] = {"subprotocols": SUBPROTOCOLS, "compression": None, "max_size": None}
    async with serve(hub.accept, "127.0.0.1", 0, ping_interval=None, **options) as server:
        hub.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tunnel"
        yield hub
