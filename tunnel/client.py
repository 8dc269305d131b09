"""The node's end of the tunnel: keeps a session with the Hub, and makes the next before it breaks the last.

Owns when to dial and where, and which sessions stand. Must not know what requests mean or where the
credential is kept: callbacks do. How one connection comes about is `dial.py`'s matter.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tunnel.backoff import Backoff
from tunnel.channel import WebSocketChannel
from tunnel.dial import LONGEST_STAY_AWAY_S, Dialler
from tunnel.errors import DialFailed, HandshakeRefused
from tunnel.flow import ByteBudget
from tunnel.handshake import QUARANTINED_STATUS
from tunnel.identity import NodeIdentity
from tunnel.liveness import LivenessTimes
from tunnel.messages import Command, Event, Notice, Status, Welcome
from tunnel.protocol import MAX_STREAMS
from tunnel.roles import NodeProtocol
from tunnel.session import InboundStream, NodeSession
from tunnel.stats import TunnelLoad, TunnelStats, load_of

BUFFERED_BYTES = 64 * 1024 * 1024  # of request bodies that wait for an engine; beyond it no window grows
REPLACED_DRAIN_S = 600.0  # a session that was replaced may finish its streams for so long
REFUSALS = frozenset(
    {401, 403, 404, QUARANTINED_STATUS}
)  # the Hub will not have us (now): minutes, not seconds
STAYS = "credential"  # the reason of a GOAWAY after which the same Hub is dialled again

logger = logging.getLogger(__name__)


class TunnelClient:
    """Dials out, serves what the Hub asks, dials again.

    Args:
        urls: ws:// or wss:// of one Hub or several; another is tried when one fails or leaves. The
            host[:port] of each is what the HELLO is signed for.
        identity: Who we are.
        instance_id: Different in every run of the node.
        handler: Serves one stream; cancelled when the stream is reset or its session lost.
        status: Gives the current report; called every 10 s and soon after `status_changed`.
        on_welcome: A session stands; carries the current credential.
        on_state: Told each of connecting, connected, refused, quarantined, waiting, stopped.
        on_command: A job from the Hub; must not block.
        on_notice: What the Hub has decided about the node, with the generation of the session that tells it.
        agent: What we call ourselves.
        features: What we do beyond the first version of the protocol; told in HELLO.
        ssl_context: For wss:// with a private CA.
        proxy: URL of the HTTP proxy to go through; None dials directly, whatever the environment says.
        max_streams: How many streams at once we take in a session.
        backoff: How long to stay away after failures.
        stats: Where things are counted.
    """

    def __init__(
        self,
        *,
        urls: Sequence[str],
        identity: NodeIdentity,
        instance_id: str,
        handler: Callable[[InboundStream], Awaitable[None]],
        status: Callable[[], Status],
        on_welcome: Callable[[Welcome], None],
        on_state: Callable[[str], None],
        on_command: Callable[[Command], None] | None = None,
        on_notice: Callable[[int, Notice], None] | None = None,
        agent: str = "",
        features: tuple[str, ...] = (),
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        max_streams: int = MAX_STREAMS,
        backoff: Backoff | None = None,
        stats: TunnelStats | None = None,
    ) -> None:
        if not urls:
            raise ValueError("a tunnel needs an address to dial")
        self._urls = tuple(urls)
        self._turn = 0  # which of them is dialled next
        self._dialler = Dialler(
            identity=identity,
            instance_id=instance_id,
            agent=agent,
            ssl_context=ssl_context,
            proxy=proxy,
            max_streams=max_streams,
            features=features,
        )
        self._handler = handler
        self._status = status
        self._on_welcome = on_welcome
        self._on_state = on_state
        self._on_command = on_command
        self._on_notice = on_notice
        self._backoff = backoff or Backoff()
        self._stats = stats or TunnelStats()
        self._budget = ByteBudget(BUFFERED_BYTES)
        self._sessions: list[NodeSession] = []  # the newest last
        self._connections: set[asyncio.Task[None]] = set()
        self._another = asyncio.Event()  # set by `renew`, until the next dial
        self._leaving = False  # draining: no other session is wanted
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    @property
    def session(self) -> NodeSession | None:
        """The newest session that stands, if one does."""
        return self._sessions[-1] if self._sessions else None

    def load(self) -> TunnelLoad:
        """What the sessions hold at this moment."""
        return load_of(self._sessions, self._budget.reserved)

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
            tasks = (dialling, stopping, *self._connections)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._on_state("stopped")
            self._stopped.set()

    def status_changed(self) -> None:
        """Send a STATUS soon; without a session there is nobody to tell."""
        for session in self._sessions:
            session.status_changed()

    def send_event(self, event: Event) -> None:
        """Report on a job, if there is a session."""
        if (session := self.session) is not None:
            session.send_event(event)

    def renew(self, identity: NodeIdentity) -> None:
        """Dial as this from now on, and at once: the session that stands serves until the next one does."""
        self._dialler.renew(identity)
        if not self._leaving:
            self._another.set()

    async def stop(self, *, drain_s: float = 0) -> None:
        """Finish what runs for at most `drain_s` seconds, close, and let `run` return."""
        self._leaving = True
        if drain_s > 0:
            await asyncio.gather(*(each.drain("going away", drain_s) for each in list(self._sessions)))
        self._stopping.set()
        await self._stopped.wait()

    # -- when to dial -----------------------------------------------------------------------------

    async def _dial_forever(self) -> None:
        while True:
            self._on_state("connecting")
            self._another.clear()
            try:
                session, connection = await self._connected()
            except HandshakeRefused as refused:
                state, delay = self._refused(refused)
            except DialFailed:
                self._stats.handshakes["failed"] += 1
                state, delay = "waiting", self._backoff.failed()
                self._turn += 1
            else:
                state, delay = await self._until_another_is_wanted(session, connection)
            if self._leaving:
                await self._stopping.wait()  # an older session may still be finishing its streams
                return
            if state != "connecting":
                self._on_state(state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._another.wait()

    def _refused(self, refusal: HandshakeRefused) -> tuple[str, float]:
        self._turn += 1
        self._stats.handshakes["refused"] += 1
        status, retry_after = refusal.status, refusal.retry_after
        logger.warning("dial refused", extra={"event": "dial_refused", "status": status})
        if status in REFUSALS:
            state = "quarantined" if status == QUARANTINED_STATUS else "refused"
            return state, self._backoff.refused(retry_after)
        return "waiting", self._backoff.failed(retry_after)

    async def _until_another_is_wanted(
        self, session: NodeSession, connection: asyncio.Task[None]
    ) -> tuple[str, float]:
        """Wait for the session's end, or until its Hub or `renew` asks for another; give state and delay.

        A session that is to be left goes on serving until its successor stands.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = [asyncio.create_task(each.wait()) for each in (session.leave_asked, self._another)]
        try:
            await asyncio.wait({connection, *asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in asked:
                each.cancel()
        self._backoff.connected(loop.time() - began)
        goaway = session.goaway_received
        if goaway is None and not connection.done():
            return "connecting", 0.0
        if goaway is None:
            self._turn += 1
            return "waiting", self._backoff.failed()
        if goaway.reason != STAYS:
            self._turn += 1
        due = loop.time() + min(max(0.0, goaway.reconnect_in), LONGEST_STAY_AWAY_S)
        await asyncio.wait({connection}, timeout=max(0.0, due - loop.time()))
        return "connecting" if self._sessions else "waiting", max(0.0, due - loop.time())

    # -- sessions ---------------------------------------------------------------------------------

    async def _connected(self) -> tuple[NodeSession, asyncio.Task[None]]:
        """Dial the next address; give the session that stands and the task that carries it to its end.

        Raises:
            HandshakeRefused: the Hub would not have us.
            DialFailed: nobody answered there.
        """
        standing: asyncio.Future[NodeSession] = asyncio.get_running_loop().create_future()
        url = self._urls[self._turn % len(self._urls)]
        connection = asyncio.create_task(self._carry(url, standing))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        both: set[asyncio.Future[Any]] = {connection, standing}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not standing.done():
            await connection
        return standing.result(), connection

    async def _carry(self, url: str, standing: "asyncio.Future[NodeSession]") -> None:
        """One connection from its dial to its end."""
        replaces = self._sessions[-1].generation if self._sessions else 0
        async with self._dialler.dial(url, replaces=replaces) as (channel, granted):
            session = self._begin(channel, granted)
            standing.set_result(session)
            try:
                await session.run()
            finally:
                self._sessions.remove(session)

    def _begin(self, channel: WebSocketChannel, granted: Welcome) -> NodeSession:
        dialler = self._dialler
        protocol = NodeProtocol(
            generation=granted.generation,
            now=asyncio.get_running_loop().time(),
            max_streams=min(dialler.max_streams, granted.max_streams),
            times=LivenessTimes.for_heartbeat(granted.heartbeat_s),
            budget=self._budget,
            stats=self._stats,
        )
        session = NodeSession(
            channel,
            protocol,
            node_id=dialler.node_id,
            instance_id=dialler.instance_id,
            hub_id=granted.hub_id,
            handler=self._handler,
            status=self._status,
            on_command=self._on_command,
            on_notice=self._on_notice,
        )
        for old in self._sessions:
            old.leave("replaced", REPLACED_DRAIN_S)
        self._on_welcome(granted)  # first: what raises here leaves no session that nobody runs
        self._sessions.append(session)
        self._stats.handshakes["welcomed"] += 1
        self._on_state("connected")
        return session
