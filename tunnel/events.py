"""What the protocol tells the layer above: one small record per thing that happened.

Owns these names. Must not know how they came about or who acts on them.
"""

from typing import NamedTuple

from tunnel.errors import ResetCode
from tunnel.messages import Command, Event, Goaway, Head, Notice, Status
from tunnel.state import StreamState


class StreamOpened(NamedTuple):
    """The Hub opened a stream (node only)."""

    stream: StreamState


class HeadReceived(NamedTuple):
    """The response's head is here (Hub only)."""

    stream: StreamState
    head: Head


class DataReceived(NamedTuple):
    """Bytes arrived; `fin` when they are the last. Trailers, if any, are already on the stream."""

    stream: StreamState
    data: bytes
    fin: bool


class CreditReceived(NamedTuple):
    """A sender that waits may go on."""

    stream: StreamState


class ResetReceived(NamedTuple):
    """The peer ended the stream."""

    stream: StreamState
    code: ResetCode
    reason: str


class StatusReceived(NamedTuple):
    """The node reported (Hub only)."""

    status: Status


class CommandReceived(NamedTuple):
    """The Hub gave a job (node only)."""

    command: Command


class NoticeReceived(NamedTuple):
    """The Hub told what it has decided about the node (node only)."""

    notice: Notice


class EventReceived(NamedTuple):
    """The node reported on a job (Hub only)."""

    event: Event


class GoawayReceived(NamedTuple):
    """The peer wants no new streams on this session."""

    goaway: Goaway


TunnelEvent = (
    StreamOpened
    | HeadReceived
    | DataReceived
    | CreditReceived
    | ResetReceived
    | StatusReceived
    | CommandReceived
    | NoticeReceived
    | EventReceived
    | GoawayReceived
)
