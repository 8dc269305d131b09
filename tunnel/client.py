"""The node's dialler: keeps one session with the Hub, forever.

Owns dialling, the handshake's node side and when to try again. Must not know what requests mean or
where the credential is kept: callbacks do.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from tunnel.backoff import Backoff
from tunnel.channel import WRITE_LIMIT_BYTES, WebSocketChannel
from tunnel.errors import HandshakeRefused, TunnelError
from tunnel.flow import ByteBudget
from tunnel.frames import MAX_MESSAGE_BYTES
from tunnel.handshake import NODE_HEADER, SUBPROTOCOL, introduce
from tunnel.identity import NodeIdentity
from tunnel.liveness import LivenessTimes
from tunnel.messages import Command, Event, Status, Welcome
from tunnel.protocol import MAX_STREAMS
from tunnel.roles import NodeProtocol
from tunnel.session import InboundStream, NodeSession

DIAL_TIMEOUT_S = 15.0  # TCP, TLS, upgrade and handshake, each
BUFFERED_BYTES = 64 * 1024 * 1024  # of request bodies that wait for an engine; beyond it no window grows
LONGEST_STAY_AWAY_S = 3600.0  # a Hub that errs must not lose its nodes for good
REFUSALS = frozenset({401, 403, 404})  # the Hub does not know us (now): minutes, not seconds

logger = logging.getLogger(__name__)


class TunnelClient:
    """Dials out, serves what the Hub asks, dials again.

    Args:
        url: ws:// or wss://; its host[:port] is what the HELLO is signed for.
        identity: Who we are.
        instance_id: Different in every run of the node.
        handler: Serves one stream; cancelled when the stream is reset or the session lost.
        status: Gives the current report; called every 10 s and soon after `status_changed`.
        on_welcome: The session stands; carries the current credential.
        on_state: Told each of connecting, connected, refused, waiting, stopped.
        on_command: A job from the Hub; must not block.
        agent: What we call ourselves.
        ssl_context: For wss:// with a private CA.
        max_streams: How many streams at once we take.
        backoff: How long to stay away after failures.
    """

    def __init__(
        self,
        *,
        url: str,
        identity: NodeIdentity,
        instance_id: str,
        handler: Callable[[InboundStream], Awaitable[None]],
        status: Callable[[], Status],
        on_welcome: Callable[[Welcome], None],
        on_state: Callable[[str], None],
        on_command: Callable[[Command], None] | None = None,
        agent: str = "",
        ssl_context: ssl.SSLContext | None = None,
        max_streams: int = MAX_STREAMS,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = url
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._identity = identity
        self._instance_id = instance_id
        self._handler = handler
        self._status = status
        self._on_welcome = on_welcome
        self._on_state = on_state
        self._on_command = on_command
        self._agent = agent
        self._ssl_context = ssl_context
        self._max_streams = max_streams
        self._backoff = backoff or Backoff()
        self._budget = ByteBudget(BUFFERED_BYTES)
        self._session: NodeSession | None = None
        self._leaving = False  # draining: the session that ends is the last
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    @property
    def session(self) -> NodeSession | None:
        """The session that stands, if one does."""
        return self._session

    async def run(self) -> None:
        """Dial, serve and dial again until `stop`; no failure of the network or the Hub ends it."""
        self._stopped.clear()
        dialling = asyncio.create_task(self._dial_forever())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({dialling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if dialling.done():
                await dialling  # only a bug ends it: let it be seen
        finally:
            for task in (dialling, stopping):
                task.cancel()
            await asyncio.gather(dialling, stopping, return_exceptions=True)
            self._on_state("stopped")
            self._stopped.set()

    def status_changed(self) -> None:
        """Send a STATUS soon; without a session there is nobody to tell."""
        if self._session is not None:
            self._session.status_changed()

    def send_event(self, event: Event) -> None:
        """Report on a job, if there is a session."""
        if self._session is not None:
            self._session.send_event(event)

    async def stop(self, *, drain_s: float = 0) -> None:
        """Finish what runs for at most `drain_s` seconds, close, and let `run` return."""
        self._leaving = True
        session = self._session
        if session is not None and drain_s > 0:
            await session.drain("going away", drain_s)
        self._stopping.set()
        await self._stopped.wait()

    async def _dial_forever(self) -> None:
        while not self._leaving:
            self._on_state("connecting")
            state, delay = await self._attempt()
            self._on_state(state)
            if not self._leaving:
                await asyncio.sleep(delay)

    async def _attempt(self) -> tuple[str, float]:
        """Dial once and serve to the end; give the state to wait in and for how long."""
        try:
            async with self._dial() as connection:
                return "waiting", await self._serve(WebSocketChannel(connection))
        except InvalidStatus as answer:
            return self._refused(_refusal(answer))
        except HandshakeRefused as refused:
            return self._refused(refused)
        except (OSError, TimeoutError, InvalidHandshake, TunnelError) as error:
            detail = f"{type(error).__name__}: {error}"
            logger.info("dial failed", extra={"event": "dial_failed", "error": detail})
            return "waiting", self._backoff.failed()

    def _refused(self, refusal: HandshakeRefused) -> tuple[str, float]:
        status, retry_after = refusal.status, refusal.retry_after
        logger.warning("dial refused", extra={"event": "dial_refused", "status": status})
        if status in REFUSALS:
            return "refused", self._backoff.refused(retry_after)
        return "waiting", self._backoff.failed(retry_after)

    def _dial(self) -> connect:
        tls: dict[str, Any] = {} if self._ssl_context is None else {"ssl": self._ssl_context}
        return connect(
            self._url,
            additional_headers={NODE_HEADER: self._identity.node_id},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            user_agent_header=self._agent or None,
            compression=None,
            ping_interval=None,
            proxy=None,
            open_timeout=DIAL_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            write_limit=WRITE_LIMIT_BYTES,
            **tls,
        )

    async def _serve(self, channel: WebSocketChannel) -> float:
        """Shake hands, carry the session to its end, give the delay before the next dial."""
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            granted = await introduce(
                channel,
                identity=self._identity,
                instance_id=self._instance_id,
                host=self._host,
                agent=self._agent,
                max_streams=self._max_streams,
            )
        loop = asyncio.get_running_loop()
        began = loop.time()
        session = self._welcomed(channel, granted, began)
        try:
            await session.run()
        finally:
            self._session = None
        self._backoff.connected(loop.time() - began)
        return self._next_dial(session)

    def _welcomed(self, channel: WebSocketChannel, granted: Welcome, now: float) -> NodeSession:
        protocol = NodeProtocol(
            generation=granted.generation,
            now=now,
            max_streams=min(self._max_streams, granted.max_streams),
            times=LivenessTimes.for_heartbeat(granted.heartbeat_s),
            budget=self._budget,
        )
        session = NodeSession(
            channel,
            protocol,
            node_id=self._identity.node_id,
            instance_id=self._instance_id,
            hub_id=granted.hub_id,
            handler=self._handler,
            status=self._status,
            on_command=self._on_command,
        )
        self._session = session
        self._on_welcome(granted)
        self._on_state("connected")
        return session

    def _next_dial(self, session: NodeSession) -> float:
        if session.goaway_received is not None:
            return min(max(0.0, session.goaway_received.reconnect_in), LONGEST_STAY_AWAY_S)
        return self._backoff.failed()


def _refusal(answer: InvalidStatus) -> HandshakeRefused:
    response = answer.response
    retry_after: float | None = None
    with contextlib.suppress(ValueError):  # a date is allowed too; then our own delay must do
        retry_after = min(int(response.headers.get("Retry-After", "")), LONGEST_STAY_AWAY_S)
    return HandshakeRefused(response.status_code, retry_after, response.reason_phrase)
