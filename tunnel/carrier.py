"""What both ends of a session share: one protocol over one channel, and the tasks that move its bytes.

Owns the reader, the writer and the timer; when a session ends, every task of it has ended. Must not
know how the channel came about, which end it is, or what a request means.

The reader never waits for a stream: bytes go into the stream's inbox, which its credit bounds. The
writer takes whatever is ready in one turn of the loop as one message.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from tunnel.channel import ABNORMAL_CLOSURE, NORMAL_CLOSURE, Channel
from tunnel.errors import ChannelClosed, ProtocolViolation, ResetCode, SessionClosed, StreamReset
from tunnel.events import CreditReceived, DataReceived, GoawayReceived, ResetReceived, TunnelEvent
from tunnel.messages import Goaway
from tunnel.protocol import TunnelProtocol

# Websocket close codes a node can tell apart; any other reason closes as NORMAL_CLOSURE.
CLOSE_CODES = {
    "going away": 1001,
    "protocol violation": 1002,
    "internal error": 1011,
    "revoked": 4403,
    "quarantined": 4423,
    "superseded": 4409,
    "silent": ABNORMAL_CLOSURE,
    "stalled": ABNORMAL_CLOSURE,
}

# What sessions are counted by at their end; a peer's own words are not among it.
KNOWN_ENDS = frozenset({*CLOSE_CODES, "connection lost", "drained", "closed"})

LONGEST_DRAIN_S = 86_400.0  # whatever a peer asks for

logger = logging.getLogger(__name__)


class Session:
    """One live authenticated tunnel connection, from either end.

    Attributes:
        generation: The fencing number the Hub gave this session.
        closed: Set once the session and everything in it has ended.
        close_reason: The word it ended with; None while it lives.
        draining: The node said GOAWAY: no new streams.
    """

    def __init__(
        self, channel: Channel, protocol: TunnelProtocol, *, node_id: str, instance_id: str, hub_id: str
    ) -> None:
        self.generation = protocol.generation
        self.node_id = node_id
        self.instance_id = instance_id
        self.hub_id = hub_id
        self.closed = asyncio.Event()
        self.close_reason: str | None = None
        self.draining = False
        self._channel = channel
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._close_code = NORMAL_CLOSURE
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._parked: asyncio.Future[None] | None = None  # the writer, when it has nothing to send
        self._idle: asyncio.Event | None = None  # set when `drain` may go on
        self._on: dict[type, Callable[[Any], None]] = {
            CreditReceived: lambda event: event.stream.user.unblock(),
            ResetReceived: self._on_reset,
            GoawayReceived: self._on_goaway,
        }

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._protocol.streams)

    @property
    def waiting(self) -> tuple[int, int, int]:
        """How many streams wait to send, interactive and bulk, and how many bytes are unsent in all."""
        return self._protocol.waiting()

    async def run(self) -> str:
        """Carry frames until the session ends; give the reason. To be called once."""
        self._spawn(self._read())
        self._spawn(self._write())
        self._start()
        self._arm_timer()
        try:
            await self._ending.wait()
        finally:
            await self._tear_down()
        return self.close_reason or "closed"

    async def close(self, reason: str) -> None:
        """End the session and everything in it; returns when it has ended."""
        self._finish(reason)
        await self.closed.wait()

    async def goaway(self, reason: str, *, reconnect_in: float = 0.0, deadline: float = 30.0) -> None:
        """Say that this session is to end.

        The Hub asks the node to dial another; a node says that it takes no new streams here.

        Args:
            reason: One word for the log.
            reconnect_in: Seconds after which the node should dial again.
            deadline: Seconds after which the session ends whatever still runs.
        """
        if self.close_reason is not None:
            return
        last = self._protocol.last_stream
        goaway = Goaway(reason=reason, reconnect_in=reconnect_in, deadline=deadline, last_stream=last)
        self._protocol.send_goaway(goaway)
        self._wake()
        self._spawn(self._finish_after(deadline, reason))

    async def idle(self) -> None:
        """Wait until no stream is open, no handler runs and everything is written."""
        self._idle = asyncio.Event()
        self._check_idle()
        await self._idle.wait()

    # -- tasks ------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what only one side has."""

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _task: work.close())  # where it was cancelled before it began

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Let no task of the session die unseen: its failure is the session's end."""
        try:
            await work
        except ChannelClosed as closed:
            self._finish(closed.reason or "connection lost", ABNORMAL_CLOSURE)
        except ProtocolViolation as violation:
            self._log(logging.WARNING, "protocol_violation", detail=str(violation), local=violation.local)
            self._finish("protocol violation")
        except Exception:
            logger.exception("session task failed", extra=self._fields("session_task_failed"))
            self._finish("internal error")

    async def _read(self) -> None:
        receive, time = self._protocol.receive, self._loop.time
        while True:
            message = await self._channel.receive()
            try:
                events = receive(message, time())
            except ProtocolViolation as violation:
                self._deliver(iter(violation.before))
                raise
            self._deliver(iter(events))
            if self._protocol.wants_to_send:
                self._wake()
            elif self._idle is not None:
                self._check_idle()

    def _deliver(self, events: Iterator[TunnelEvent]) -> None:
        """Tell of each event, even where telling of one fails: somebody may wait for every one."""
        handlers = self._on
        try:
            for event in events:
                if type(event) is DataReceived:
                    event.stream.user.feed(event.data, fin=event.fin)
                else:
                    handlers[type(event)](event)
        except Exception:
            self._deliver(events)
            raise

    async def _write(self) -> None:
        protocol, time, liveness = self._protocol, self._loop.time, self._protocol.liveness
        while True:
            while not protocol.wants_to_send:
                await self._park()
            message = protocol.data_to_send(time())
            for state in protocol.take_unblocked():
                state.user.unblock()
            liveness.writing_since = time()
            await self._channel.send(message)
            liveness.writing_since = None

    async def _park(self) -> None:
        self._parked = self._loop.create_future()
        self._check_idle()
        try:
            await self._parked
        finally:
            self._parked = None

    def _wake(self) -> None:
        parked = self._parked
        if parked is not None and not parked.done():
            parked.set_result(None)

    def _check_idle(self) -> None:
        if self._idle is None or self._protocol.streams or self._handlers:
            return
        if self._parked is not None and not self._protocol.wants_to_send:
            self._idle.set()

    def _arm_timer(self) -> None:
        self._timer = self._loop.call_at(self._protocol.next_deadline(), self._tick)

    def _tick(self) -> None:
        reason = self._protocol.tick(self._loop.time())
        if reason is not None:
            self._log(logging.WARNING, "session_dead", detail=reason)
            self._finish(reason)
            return
        self._wake()
        self._arm_timer()

    # -- the end ------------------------------------------------------------------------------------

    def _finish(self, reason: str, code: int | None = None) -> None:
        """Decide the end; the first reason stands."""
        if self.close_reason is None:
            self.close_reason = reason
            self._close_code = code or CLOSE_CODES.get(reason, NORMAL_CLOSURE)
            self._ending.set()

    async def _finish_after(self, delay: float, reason: str) -> None:
        await asyncio.sleep(min(max(0.0, delay), LONGEST_DRAIN_S))  # what is no number ends it at once
        self._finish(reason)

    async def _tear_down(self) -> None:
        """End every stream and task, then the channel; nothing of the session survives this."""
        self._finish("going away")
        if self._timer is not None:
            self._timer.cancel()
        lost = StreamReset(ResetCode.SESSION_LOST, self.close_reason or "")
        for state in list(self._protocol.streams.values()):
            state.user.fail(lost)
        self._protocol.abandon()
        tasks = [*self._tasks, *self._handlers.values()]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._channel.close(self._close_code, self.close_reason or "")
        finally:
            self.closed.set()
        reason = self.close_reason or ""
        self._protocol.stats.ends[reason.replace(" ", "_") if reason in KNOWN_ENDS else "other"] += 1
        self._log(logging.INFO, "session_closed", detail=self.close_reason)

    # -- events -------------------------------------------------------------------------------------

    def _on_reset(self, event: ResetReceived) -> None:
        event.stream.user.fail(StreamReset(event.code, event.reason))

    def _on_goaway(self, event: GoawayReceived) -> None:
        self._log(logging.INFO, "goaway_received", detail=event.goaway.reason)

    def _require_open(self) -> None:
        if self.close_reason is not None:
            raise SessionClosed(self.close_reason)

    def _log(self, level: int, event: str, **fields: object) -> None:
        logger.log(level, event.replace("_", " "), extra=self._fields(event) | fields)

    def _fields(self, event: str) -> dict[str, object]:
        return {"event": event, "node_id": self.node_id, "generation": self.generation}
