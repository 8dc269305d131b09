"""The Hub's listener for tunnels: who may come in, and the sessions that stand.

Owns the listening socket, the limits before authentication and the set of live sessions. Must not
know accounts, policies or storage: it asks a `NodeAuthenticator`. It is its own listener, not an
ASGI application: an ASGI server closes every websocket on SIGTERM before anything could drain.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from random import random
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tunnel.channel import CLOSE_TIMEOUT_S, WRITE_LIMIT_BYTES, BoundedServerConnection, WebSocketChannel
from tunnel.errors import ChannelClosed, HandshakeRefused, ProtocolViolation, TunnelError
from tunnel.flow import PROCESS_BUDGET, ByteBudget, TokenBucket
from tunnel.frames import MAX_MESSAGE_BYTES
from tunnel.handshake import (
    BUSY_CLOSURE,
    NODE_HEADER,
    QUARANTINED_CLOSURE,
    QUARANTINED_STATUS,
    REFUSED_CLOSURE,
    SUBPROTOCOL,
    challenge,
    welcome,
)
from tunnel.liveness import LivenessTimes
from tunnel.messages import Event, Hello, Status, Welcome
from tunnel.protocol import MAX_STREAMS
from tunnel.roles import HubProtocol
from tunnel.session import HubSession
from tunnel.stats import TunnelLoad, TunnelStats, load_of

BACKLOG = 4096  # connections that wait to be accepted: a Hub that comes back is dialled by all at once

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an admitted node gets: its session's generation and its current credential."""

    generation: int
    credential: str


class NodeAuthenticator(Protocol):
    """What the server asks of the Hub about nodes."""

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        """Give the node's active keys; none means unknown or revoked."""
        ...

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        """Give leave, after the signature was verified.

        Args:
            node_id: Who it is.
            instance_id: Which run of it.
            key: The one of its keys that made the signature.

        Raises:
            HandshakeRefused: not now, or not ever.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLimits:
    """What a server allows. Rates are per second, times in seconds."""

    handshakes_per_s: float = 50.0
    handshake_burst: int = 100
    handshakes_per_address: int = 64  # unfinished at once; many nodes may share one address
    handshake_timeout_s: float = 5.0
    retry_after_s: float = 5.0  # told to who comes too fast, plus as much again at random
    max_streams: int = MAX_STREAMS
    buffered_bytes: int = PROCESS_BUDGET  # of answers that wait for their readers, all sessions together
    least_smear_s: float = 2.0  # over which nodes are asked to come back; longer where they are many
    heartbeat_s: float = 15.0


DEFAULT_LIMITS = TunnelLimits()


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
    ) -> None:
        self._hub_id = hub_id
        self._host_names = tuple(host_names)
        self._authenticator = authenticator
        self._on_session = on_session
        self._on_status = on_status
        self._on_closed = on_closed
        self._on_event = on_event
        self._limits = limits
        self._ssl_context = ssl_context
        self._stats = stats or TunnelStats()
        self._budget = ByteBudget(limits.buffered_bytes)
        self._rate = TokenBucket(rate=limits.handshakes_per_s, burst=limits.handshake_burst)
        self._unfinished: Counter[str] = Counter()  # handshakes by address
        self._sessions: set[HubSession] = set()
        self._server: Server | None = None
        self._draining = False

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
            process_request=self._screen,
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
        if self._server is None or self._draining:
            return
        self._draining = True
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

    # -- before the upgrade -----------------------------------------------------------------------

    async def _screen(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what may not even become a websocket; None lets it through."""
        if self._draining:
            self._stats.handshakes["draining"] += 1
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE)
        if self._unfinished[_address(connection)] >= self._limits.handshakes_per_address:
            self._stats.handshakes["too_many"] += 1
            return self._later(connection, HTTPStatus.TOO_MANY_REQUESTS)
        node_id = _named(request)
        if not node_id or not await self._authenticator.public_keys(node_id):
            self._stats.handshakes["unknown"] += 1
            return connection.respond(HTTPStatus.UNAUTHORIZED, "unknown node\n")
        # Asked last, so that strangers use up nothing of what nodes need to come back.
        if not self._rate.take(time.monotonic()):
            self._stats.handshakes["too_fast"] += 1
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE)
        return None

    def _later(self, connection: ServerConnection, status: HTTPStatus) -> Response:
        response = connection.respond(status, "come back later\n")
        seconds = self._limits.retry_after_s * (1 + random())  # noqa: S311 - as in _drain
        response.headers["Retry-After"] = str(round(seconds))
        return response

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
        address = _address(connection)
        if self._unfinished[address] >= self._limits.handshakes_per_address:
            raise HandshakeRefused(429, reason="too many handshakes")  # all were let through at once
        self._unfinished[address] += 1
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                return await self._authenticate(connection, channel)
        finally:
            self._unfinished[address] -= 1
            if not self._unfinished[address]:
                del self._unfinished[address]

    async def _authenticate(self, connection: ServerConnection, channel: WebSocketChannel) -> HubSession:
        request = connection.request
        proof = await challenge(
            channel,
            hub_id=self._hub_id,
            node_id=_named(request) if request else "",
            host_names=self._host_names,
            public_keys=self._authenticator.public_keys,
        )
        if self._draining:
            raise HandshakeRefused(503, reason="going away")  # it would be left at once
        hello = proof.hello
        grant = await self._authenticator.admit(hello.node_id, hello.instance_id, proof.key)
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
            remote_address=_address(connection),
            connected_at=time.time(),
            agent=hello.agent,
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


def _named(request: Request) -> str:
    """The node that a request names; nothing where it names none, or several."""
    names = request.headers.get_all(NODE_HEADER)
    return names[0] if len(names) == 1 else ""


def _address(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if peer else ""


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
