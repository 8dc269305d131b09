"""Sessions and streams."""

import asyncio

from tunnel.errors import ResetCode
from tunnel.messages import Command, Event, Goaway, Head, Open, Status, Trailers


class Stream:
    """One exchange inside a session, seen from either end."""

    id: int
    open: Open
    trailers: Trailers | None
    finished: bool

    async def send(self, data: bytes, *, fin: bool = False, trailers: Trailers | None = None) -> None:
        """Send bytes; returns once they are queued within the peer's credit."""
        raise NotImplementedError

    async def receive(self) -> bytes | None:
        """Give the next bytes, None after FIN."""
        raise NotImplementedError

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """End the stream at once; a stream already over stays as it is."""
        raise NotImplementedError


class OutboundStream(Stream):
    """The Hub's end."""

    async def head(self) -> Head:
        """Wait for the response's head."""
        raise NotImplementedError


class InboundStream(Stream):
    """The node's end."""

    async def send_head(self, head: Head) -> None:
        """Send the response's head."""
        raise NotImplementedError


class Session:
    """One live authenticated tunnel connection."""

    generation: int
    node_id: str
    instance_id: str
    hub_id: str
    closed: asyncio.Event
    close_reason: str | None
    draining: bool

    async def goaway(self, reason: str, *, reconnect_in: float = 0.0, deadline: float = 30.0) -> None:
        """Say that no new streams are wanted here."""
        raise NotImplementedError

    async def close(self, reason: str) -> None:
        """End the session and everything in it."""
        raise NotImplementedError


class HubSession(Session):
    """The Hub's end: opens streams."""

    remote_address: str
    connected_at: float
    status: Status | None
    agent: str

    async def open(self, request: Open) -> OutboundStream:
        """Open a stream."""
        raise NotImplementedError

    async def command(self, command: Command) -> None:
        """Give the node a job."""
        raise NotImplementedError


class NodeSession(Session):
    """The node's end: answers streams."""

    goaway_received: Goaway | None

    def send_event(self, event: Event) -> None:
        """Report on a job."""
        raise NotImplementedError
