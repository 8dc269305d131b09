"""The Hub's listener for tunnels: from an accepted connection to the end of its session.

Owns the listening socket, the handshake's course and the set of live sessions. Must not know who may
come in, which is the gate's matter, nor accounts, policies or storage. It is its own listener, not an
ASGI application: an ASGI server closes every websocket on SIGTERM before anything could drain.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from random import random
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tunnel.channel import CLOSE_TIMEOUT_S, WRITE_LIMIT_BYTES, BoundedServerConnection, WebSocketChannel
from tunnel.errors import ChannelClosed, HandshakeRefused, ProtocolViolation, TunnelError
from tunnel.flow import ByteBudget
from tunnel.frames import MAX_MESSAGE_BYTES
from tunnel.gate import DEFAULT_LIMITS, LOOPBACK, Gate, Grant, NodeAuthenticator, TunnelLimits, named
from tunnel.handshake import (
    BUSY_CLOSURE,
    QUARANTINED_CLOSURE,
    QUARANTINED_STATUS,
    REFUSED_CLOSURE,
    SUBPROTOCOL,
    challenge,
    welcome,
)
from tunnel.liveness import LivenessTimes
from tunnel.messages import Event, Hello, Status, Welcome
from tunnel.roles import HubProtocol
from tunnel.session import HubSession
from tunnel.stats import TunnelLoad, TunnelStats, load_of

BACKLOG = 4096  # connections that wait to be accepted: a Hub that comes back is dialled by all at once

logger = logging.getLogger(__name__)


class TunnelServer:
    """Accepts nodes and keeps their sessions until they end.

    Args:
        hub_id: Told to nodes.
        host_names: What a node may have dialled (`host` or `host:port`); a HELLO signed for
            another name is refused. A name without a port stands for any port.
        authenticator: Knows keys and gives generations.
        on_session: A session stands; streams may be opened on it.
        on_status: A session's node reported.
        on_closed: A session that stood has ended.
        on_event: A session's node reported on a command.
        limits: What is allowed.
        ssl_context: To serve wss:// without a proxy.
        stats: Where things are counted.
        trusted_proxies: Addresses or networks whose X-Forwarded-For is believed.
    """

    def __init__(
        self,
        *,
        hub_id: str,
        host_names: Sequence[str],
        authenticator: NodeAuthenticator,
        on_session: Callable[[HubSession], None],
        on_status: Callable[[HubSession, Status], None],
        on_closed: Callable[[HubSession], None],
        on_event: Callable[[HubSession, Event], None] | None = None,
        limits: TunnelLimits = DEFAULT_LIMITS,
        ssl_context: ssl.SSLContext | None = None,
        stats: TunnelStats | None = None,
        trusted_proxies: Sequence[str] = LOOPBACK,
    ) -> None:
        self._hub_id = hub_id
        self._host_names = tuple(host_names)
        self._on_session = on_session
        self._on_status = on_status
        self._on_closed = on_closed
        self._on_event = on_event
        self._limits = limits
        self._ssl_context = ssl_context
        self._stats = stats or TunnelStats()
        self._budget = ByteBudget(limits.buffered_bytes)
        self._gate = Gate(authenticator, limits, self._stats, trusted_proxies)
        self._sessions: set[HubSession] = set()
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The port listened on."""
        if self._server is None:
            raise RuntimeError("not started")
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def sessions(self) -> frozenset[HubSession]:
        """The sessions that stand."""
        return frozenset(self._sessions)

    def load(self) -> TunnelLoad:
        """What the sessions hold at this moment."""
        return load_of(self._sessions, self._budget.reserved)

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one."""
        await self._listen(host=host, port=port)

    async def start_on(self, listener: socket.socket) -> None:
        """Listen on a socket that is bound already; it is the server's from then on."""
        await self._listen(sock=listener)

    async def _listen(self, **where: Any) -> None:
        self._server = await serve(
            self._accept,
            **where,
            process_request=self._gate.screen,
            backlog=BACKLOG,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ssl=self._ssl_context,
            compression=None,
            ping_interval=None,
            open_timeout=self._limits.handshake_timeout_s,
            max_size=MAX_MESSAGE_BYTES,
            write_limit=WRITE_LIMIT_BYTES,
            close_timeout=CLOSE_TIMEOUT_S,
            create_connection=BoundedServerConnection,
            server_header=None,
        )

    async def drain(self, deadline_s: float) -> None:
        """Stop listening and ask every node to dial another Hub, or this one's successor, in its own time.

        Sessions go on until their nodes leave, `close`, or `deadline_s` seconds from now: streams that run
        finish, and new ones may still be opened for as long as a node has nowhere else to go.
        """
        if self._server is None or self._gate.closed:
            return
        self._gate.closed = True
        self._server.close(close_connections=False)
        limits, count = self._limits, len(self._sessions)
        smear_s = min(deadline_s, max(limits.least_smear_s, count / max(limits.handshakes_per_s, 1.0)))
        for session in list(self._sessions):
            moment = smear_s * random()  # noqa: S311 - spreads the nodes' return, guards nothing
            await session.goaway("going away", reconnect_in=moment, deadline=deadline_s)

    async def close(self, *, drain_s: float = 0) -> None:
        """Stop listening, let streams finish for at most `drain_s` seconds, then end every session."""
        if self._server is None:
            return
        await self.drain(drain_s)
        if drain_s > 0 and self._sessions:
            ends = [asyncio.ensure_future(_finished(session)) for session in self._sessions]
            await asyncio.wait(ends, timeout=drain_s)
            for end in ends:
                end.cancel()
        await asyncio.gather(*(session.close("going away") for session in self._sessions))
        self._server.close()
        await self._server.wait_closed()

    # -- one connection ---------------------------------------------------------------------------

    async def _accept(self, connection: ServerConnection) -> None:
        """Carry one connection from its first frame to its end."""
        channel = WebSocketChannel(connection)
        try:
            session = await self._shake_hands(connection, channel)
        except (TimeoutError, TunnelError) as error:
            logger.info("handshake failed", extra={"event": "handshake_failed", "error": str(error)})
            self._stats.handshakes[_result(error)] += 1
            await channel.close(*_parting(error))
            return
        self._stats.handshakes["welcomed"] += 1
        self._sessions.add(session)
        try:
            self._on_session(session)
            await session.run()
        finally:
            self._sessions.discard(session)
            self._on_closed(session)

    async def _shake_hands(self, connection: ServerConnection, channel: WebSocketChannel) -> HubSession:
        with self._gate.handshake(self._address(connection)):
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                return await self._authenticate(connection, channel)

    def _address(self, connection: ServerConnection) -> str:
        return self._gate.address(connection, connection.request)

    async def _authenticate(self, connection: ServerConnection, channel: WebSocketChannel) -> HubSession:
        request = connection.request
        proof = await challenge(
            channel,
            hub_id=self._hub_id,
            node_id=named(request) if request else "",
            host_names=self._host_names,
            public_keys=self._gate.authenticator.public_keys,
        )
        if self._gate.closed:
            raise HandshakeRefused(503, reason="going away")  # it would be left at once
        hello = proof.hello
        grant = await self._gate.authenticator.admit(hello.node_id, hello.instance_id, proof.key)
        max_streams = max(1, min(self._limits.max_streams, hello.max_streams))
        await welcome(channel, self._welcome(grant, max_streams))
        return self._session(connection, channel, hello, grant, max_streams)

    def _welcome(self, grant: Grant, max_streams: int) -> Welcome:
        return Welcome(
            generation=grant.generation,
            hub_id=self._hub_id,
            heartbeat_s=self._limits.heartbeat_s,
            max_streams=max_streams,
            credential=grant.credential,
        )

    def _session(
        self,
        connection: ServerConnection,
        channel: WebSocketChannel,
        hello: Hello,
        grant: Grant,
        max_streams: int,
    ) -> HubSession:
        protocol = HubProtocol(
            generation=grant.generation,
            now=asyncio.get_running_loop().time(),
            max_streams=max_streams,
            times=LivenessTimes.for_heartbeat(self._limits.heartbeat_s),
            budget=self._budget,
            stats=self._stats,
        )
        return HubSession(
            channel,
            protocol,
            node_id=hello.node_id,
            instance_id=hello.instance_id,
            hub_id=self._hub_id,
            remote_address=self._address(connection),
            connected_at=time.time(),
            agent=hello.agent,
            features=hello.features,
            replaces=hello.replaces,
            on_status=self._on_status,
            on_event=self._on_event,
        )


async def _finished(session: HubSession) -> None:
    """Wait until a session has ended or has nothing left to do."""
    idle, closed = (asyncio.ensure_future(each) for each in (session.idle(), session.closed.wait()))
    try:
        await asyncio.wait({idle, closed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        idle.cancel()
        closed.cancel()


def _result(error: Exception) -> str:
    """What a failed handshake is counted as."""
    match error:
        case HandshakeRefused(status=status) if status == QUARANTINED_STATUS:
            return "quarantined"
        case HandshakeRefused(status=429):
            return "too_many"
        case HandshakeRefused():
            return "refused"
        case ProtocolViolation():
            return "violation"
        case ChannelClosed():
            return "lost"
        case _:
            return "timed_out"


def _parting(error: Exception) -> tuple[int, str]:
    """Websocket close code and reason for a handshake that failed."""
    match error:
        case HandshakeRefused(status=503 | 429):
            return BUSY_CLOSURE, error.reason
        case HandshakeRefused(status=status) if status == QUARANTINED_STATUS:
            return QUARANTINED_CLOSURE, error.reason
        case HandshakeRefused():
            return REFUSED_CLOSURE, error.reason
        case ProtocolViolation():
            return 1002, "protocol violation"
        case ChannelClosed():
            return error.code, error.reason
        case _:
            return 1008, "handshake timed out"
