"""One stream as the protocol sees it: two halves, each a row in a table of legal transitions.

Owns which signal may follow which. Must not know bytes on the wire, tasks or clocks.
"""

from collections import deque
from enum import Enum
from typing import Any

from tunnel.errors import ProtocolViolation
from tunnel.flow import ReceiveWindow, SendCredit
from tunnel.messages import Open, Trailers


class Half(Enum):
    """One direction of a stream."""

    HEAD = "head"  # nothing yet: a HEAD must come first
    BODY = "body"
    DONE = "done"


class Signal(Enum):
    """What can happen to a half."""

    HEAD = "head"
    DATA = "data"
    FIN = "fin"


# Everything not listed is a violation. A request has no HEAD frame (OPEN is its head): it starts in
# BODY. A response starts in HEAD. RESET ends both halves from any state and is not in the table.
TRANSITIONS: dict[tuple[Half, Signal], Half] = {
    (Half.HEAD, Signal.HEAD): Half.BODY,
    (Half.BODY, Signal.DATA): Half.BODY,
    (Half.BODY, Signal.FIN): Half.DONE,
}


class Lane(Enum):
    """Where a stream stands in the queue to send."""

    IDLE = "idle"
    INTERACTIVE = "interactive"
    BULK = "bulk"


class StreamState:
    """The protocol's record of one live stream.

    Attributes:
        user: For the layer above: its own object for this stream. The protocol never looks at it.
        blocked: A sender waits for room; the protocol reports when there is some.
        discarding: Nobody reads what still arrives: it is counted, credited and dropped.
    """

    __slots__ = (
        "blocked",
        "credit",
        "discarding",
        "fin_pending",
        "id",
        "lane",
        "open",
        "pending",
        "pending_bytes",
        "receiving",
        "sending",
        "trailers",
        "trailers_pending",
        "user",
        "window",
    )

    def __init__(
        self, stream_id: int, request: Open, *, sending: Half, window: ReceiveWindow, credit: SendCredit
    ) -> None:
        self.id = stream_id
        self.open = request
        self.user: Any = None
        self.sending = sending
        self.receiving = Half.HEAD if sending is Half.BODY else Half.BODY
        self.window = window
        self.credit = credit
        self.pending: deque[bytes | memoryview] = deque()
        self.pending_bytes = 0
        self.fin_pending = False
        self.trailers_pending = b""
        self.trailers: Trailers | None = None
        self.lane = Lane.IDLE
        self.blocked = False
        self.discarding = False

    @property
    def over(self) -> bool:
        """Both halves have ended."""
        return self.receiving is Half.DONE and self.sending is Half.DONE

    def received(self, signal: Signal) -> None:
        """Move the receiving half.

        Raises:
            ProtocolViolation: the peer may not send this now.
        """
        self.receiving = _moved(self.receiving, signal, self.id, local=False)

    def sent(self, signal: Signal) -> None:
        """Move the sending half.

        Raises:
            ProtocolViolation: (local) we may not send this now.
        """
        self.sending = _moved(self.sending, signal, self.id, local=True)


def _moved(half: Half, signal: Signal, stream_id: int, *, local: bool) -> Half:
    try:
        return TRANSITIONS[half, signal]
    except KeyError:
        message = f"{signal.value} on stream {stream_id} in state {half.value}"
        raise ProtocolViolation(message, local=local) from None
