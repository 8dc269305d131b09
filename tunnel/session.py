"""The two ends of a session: the Hub opens streams, the node answers them.

Owns what only one end does. Must not know how the channel came about, policies or what a request
means.
"""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Awaitable, Callable

import msgspec

from tunnel.carrier import Session
from tunnel.channel import Channel
from tunnel.errors import ResetCode, SessionDraining, StreamReset
from tunnel.events import (
    CommandReceived,
    EventReceived,
    GoawayReceived,
    HeadReceived,
    NoticeReceived,
    ResetReceived,
    StatusReceived,
    StreamOpened,
)
from tunnel.messages import Command, Event, Goaway, Notice, Open, Status
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.state import Half, StreamState
from tunnel.stream import InboundStream, OutboundStream, Stream

__all__ = ["HubSession", "InboundStream", "NodeSession", "OutboundStream", "Session", "Stream"]

STATUS_S = 10.0  # between reports when nothing changes
STATUS_GAP_S = 0.1  # between reports at the least: a burst of changes becomes one


class HubSession(Session):
    """The Hub's end: opens streams, hears STATUS.

    Attributes:
        remote_address: The node's address as the listener saw it.
        connected_at: Unix seconds.
        agent: What the node calls itself.
        features: What the node does beyond the first version of the protocol.
        replaces: The generation of the session that the node leaves for this one by itself; 0 for none.
        status: The node's last report, None before the first.
    """

    _protocol: HubProtocol

    def __init__(
        self,
        channel: Channel,
        protocol: HubProtocol,
        *,
        node_id: str,
        instance_id: str,
        hub_id: str,
        remote_address: str = "",
        connected_at: float = 0.0,
        agent: str = "",
        features: tuple[str, ...] = (),
        replaces: int = 0,
        on_status: Callable[["HubSession", Status], None] | None = None,
        on_event: Callable[["HubSession", Event], None] | None = None,
    ) -> None:
        super().__init__(channel, protocol, node_id=node_id, instance_id=instance_id, hub_id=hub_id)
        self.remote_address = remote_address
        self.connected_at = connected_at
        self.agent = agent
        self.features = features
        self.replaces = replaces
        self.status: Status | None = None
        self._status_callback = on_status
        self._event_callback = on_event
        self._suspects: set[int] = set()  # streams only the node believed in at its last STATUS
        self._on[HeadReceived] = lambda event: event.stream.user.feed_head(event.head)
        self._on[StatusReceived] = self._on_status
        self._on[EventReceived] = self._on_event

    async def open(self, request: Open) -> OutboundStream:
        """Open a stream; its `window` is filled in below. Does not wait for the node.

        Raises:
            SessionClosed: the session is over.
            SessionDraining: the node said GOAWAY.
            TooManyStreams: as many as allowed are open.
            ProtocolViolation: (local) the request is over 32 KiB.
        """
        self._require_open()
        if self.draining:
            raise SessionDraining("draining")
        state = self._protocol.open_stream(request)
        stream = OutboundStream(self._protocol, state, self._wake)
        self._wake()
        return stream

    async def command(self, command: Command) -> None:
        """Give the node a job.

        Raises:
            SessionClosed: the session is over.
        """
        self._require_open()
        self._protocol.send_command(command)
        self._wake()

    def notice(self, notice: Notice) -> None:
        """Tell the node's owner what was decided about it; silent when the session is over."""
        if self.close_reason is None:
            self._protocol.send_notice(notice)
            self._wake()

    def _on_status(self, event: StatusReceived) -> None:
        self.status = event.status
        self._reap_orphans(event.status)
        if self._status_callback is not None:
            self._status_callback(self, event.status)

    def _on_goaway(self, event: GoawayReceived) -> None:
        super()._on_goaway(event)
        if not self.draining:
            self.draining = True
            self._spawn(self._finish_after(event.goaway.deadline, "drained"))

    def _on_event(self, event: EventReceived) -> None:
        if self._event_callback is not None:
            self._event_callback(self, event.event)

    def _reap_orphans(self, status: Status) -> None:
        """Reset what the node still runs and we do not know; once may be a RESET on its way, twice is not."""
        unknown = {stream for stream in status.streams if stream not in self._protocol.streams}
        for stream in unknown & self._suspects:
            self._protocol.reset_orphan(stream)
        self._suspects = unknown


class NodeSession(Session):
    """The node's end: answers streams, reports STATUS.

    Attributes:
        goaway_received: The Hub's GOAWAY, once there was one.
        leave_asked: Set with it. Until `leave` the session goes on taking streams.
    """

    _protocol: NodeProtocol

    def __init__(
        self,
        channel: Channel,
        protocol: NodeProtocol,
        *,
        node_id: str,
        instance_id: str,
        hub_id: str,
        handler: Callable[[InboundStream], Awaitable[None]],
        status: Callable[[], Status],
        on_command: Callable[[Command], None] | None = None,
        on_notice: Callable[[int, Notice], None] | None = None,
        status_s: float = STATUS_S,
    ) -> None:
        super().__init__(channel, protocol, node_id=node_id, instance_id=instance_id, hub_id=hub_id)
        self.goaway_received: Goaway | None = None
        self.leave_asked = asyncio.Event()
        self._handler = handler
        self._status = status
        self._status_s = status_s
        self._command_callback = on_command
        self._notice_callback = on_notice
        self._changed = asyncio.Event()
        self._sequence = 0
        self._on[StreamOpened] = self._on_open
        self._on[CommandReceived] = self._on_command
        self._on[NoticeReceived] = self._on_notice

    def status_changed(self) -> None:
        """Send a STATUS soon; many calls at once make one."""
        self._changed.set()

    def send_event(self, event: Event) -> None:
        """Report on a job; silent when the session is over."""
        if self.close_reason is None:
            self._protocol.send_event(event)
            self._wake()

    async def goaway(self, reason: str, *, reconnect_in: float = 0.0, deadline: float = 30.0) -> None:
        """Say that no new streams are taken here; those that come nevertheless are refused."""
        self.draining = True
        await super().goaway(reason, reconnect_in=reconnect_in, deadline=deadline)

    def leave(self, reason: str, deadline: float) -> None:
        """Drain without being waited for: another session stands in this one's place."""
        if self.close_reason is None:
            self._spawn(self._leave(reason, deadline))

    async def _leave(self, reason: str, deadline: float) -> None:
        await self.goaway(reason, deadline=deadline)
        await self.idle()
        self._finish("drained")

    async def drain(self, reason: str, deadline: float) -> None:
        """Take no new streams, finish what runs for at most `deadline` seconds, then close."""
        await self.goaway(reason, deadline=deadline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self.idle()
        await self.close(reason)

    def _start(self) -> None:
        self._spawn(self._report())

    async def _report(self) -> None:
        while True:
            self._changed.clear()
            self._sequence += 1
            live = tuple(self._protocol.streams)
            status = msgspec.structs.replace(self._status(), sequence=self._sequence, streams=live)
            self._protocol.send_status(status)
            self._wake()
            await asyncio.sleep(STATUS_GAP_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._status_s):
                    await self._changed.wait()

    def _on_open(self, event: StreamOpened) -> None:
        stream = InboundStream(self._protocol, event.stream, self._wake)
        task = self._loop.create_task(self._serve(stream, event.stream))
        self._handlers[stream.id] = task
        task.add_done_callback(lambda _: self._handler_done(stream.id))

    def _on_reset(self, event: ResetReceived) -> None:
        super()._on_reset(event)
        handler = self._handlers.get(event.stream.id)
        if handler is not None:
            handler.cancel()

    def _on_goaway(self, event: GoawayReceived) -> None:
        super()._on_goaway(event)
        if self.goaway_received is None:
            self.goaway_received = event.goaway
            self.leave_asked.set()
            self._spawn(self._finish_after(event.goaway.deadline, "drained"))

    def _on_command(self, event: CommandReceived) -> None:
        if self._command_callback is not None:
            self._command_callback(event.command)

    def _on_notice(self, event: NoticeReceived) -> None:
        if self._notice_callback is not None:
            self._notice_callback(self.generation, event.notice)

    async def _serve(self, stream: InboundStream, state: StreamState) -> None:
        """Run the handler and leave no stream half done, whatever it does."""
        try:
            await self._handler(stream)
        except StreamReset:
            pass  # the handler tripped over its stream's end; the Hub knows
        except Exception as error:  # noqa: BLE001 - a handler's bug ends its stream, never the session
            self._log_handler_failure(stream, error)
            stream.reset(ResetCode.NODE_ERROR, "handler failed")
        finally:
            if state.sending is not Half.DONE and not state.fin_pending:
                stream.reset(ResetCode.NODE_ERROR, "handler ended early")
            stream.discard()

    def _handler_done(self, stream_id: int) -> None:
        del self._handlers[stream_id]
        self._check_idle()

    def _log_handler_failure(self, stream: InboundStream, error: Exception) -> None:
        """Say where it failed and as what, without its message: that may quote a prompt."""
        fields: dict[str, object] = {
            "stream": stream.id,
            "request_id": stream.open.uid,
            "error": type(error).__name__,
            "where": [f"{at.filename}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)],
        }
        self._log(logging.ERROR, "handler_failed", **fields)
