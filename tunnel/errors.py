"""Every way the tunnel can fail, and the codes a stream can be reset with.

Owns the one error tree of the folder. Must not know frames, sockets or tasks.

    TunnelError
    ├── ProtocolViolation       somebody broke SPEC.md; `local` says whether it was us
    ├── ChannelClosed           the byte pipe below a session is gone
    ├── DialFailed              nobody answered at the address, or not as a Hub does
    ├── HandshakeRefused        the other side would not have us; says when to come back
    ├── SessionClosed           the session ended while something wanted to use it
    │   └── SessionDraining     it still runs its streams but takes no new ones
    ├── TooManyStreams          the peer's limit of concurrent streams is reached
    ├── StreamReset             one stream ended before its time; carries a ResetCode
    ├── CredentialInvalid       a NodeCredential does not verify or does not parse
    ├── TicketRefused           a ticket is not for this node or request; names the gate
    ├── ReceiptInvalid          a receipt does not verify; says why
    └── HandoutInvalid          what a Hub says of the program it hands out does not verify; says why
"""

from enum import IntEnum
from typing import Any


class ResetCode(IntEnum):
    """Why a stream was reset. The numbers are on the wire (SPEC.md, "Reset codes")."""

    NO_ERROR = 0
    CANCELLED = 0  # the same answer: whoever asked has gone, nobody failed
    REFUSED = 1  # the node did not start it: another node may be tried
    ENGINE_ERROR = 2
    NODE_ERROR = 3
    DEADLINE = 4
    TICKET_REFUSED = 5
    FLOW_CONTROL = 6
    OVERLOADED = 7
    WARMING = 8
    LOAD_FAILED = 9  # nothing was asked of an engine: another node may be tried
    SESSION_LOST = 255  # never on the wire: the session died under the stream

    @classmethod
    def from_wire(cls, value: int) -> "ResetCode":
        """Read a code a newer peer may have invented; the unknown counts as the node's failure."""
        try:
            code = cls(value)
        except ValueError:
            return cls.NODE_ERROR
        return cls.NODE_ERROR if code is cls.SESSION_LOST else code


class TunnelError(Exception):
    """Root of everything `tunnel` raises on purpose."""


class ProtocolViolation(TunnelError):
    """Bytes or calls that SPEC.md forbids; the session ends.

    Attributes:
        local: True when our own side would have broken the rules, False when the peer did.
        before: The events of the same message that came before it: they have happened, and somebody may
            wait for them.
    """

    def __init__(self, message: str, *, local: bool = False) -> None:
        super().__init__(message)
        self.local = local
        self.before: list[Any] = []


class ChannelClosed(TunnelError):
    """The byte pipe is closed; `code` and `reason` are a websocket's closing words."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"channel closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class DialFailed(TunnelError):
    """Nobody answered at the address, or not as a Hub does; the message says how."""


class HandshakeRefused(TunnelError):
    """The Hub answered the dial with a refusal.

    Attributes:
        status: HTTP status (401, 403, 404, 429, 503, …), or 0 where there was none.
        retry_after: Seconds the Hub asked us to stay away, or None.
    """

    def __init__(self, status: int, retry_after: float | None = None, reason: str = "") -> None:
        super().__init__(f"handshake refused: {status} {reason}".rstrip())
        self.status = status
        self.retry_after = retry_after
        self.reason = reason


class SessionClosed(TunnelError):
    """The session is over; `reason` is the word it ended with."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"session closed: {reason}")
        self.reason = reason


class SessionDraining(SessionClosed):
    """The session finishes what it has and opens nothing new."""


class TooManyStreams(TunnelError):
    """As many streams are open as the session allows."""


class StreamReset(TunnelError):
    """The stream ended before its FIN."""

    def __init__(self, code: ResetCode, reason: str = "") -> None:
        super().__init__(f"stream reset: {code.name} {reason}".rstrip())
        self.code = code
        self.reason = reason


class CredentialInvalid(TunnelError):
    """A NodeCredential is forged, damaged or of another kind."""


class TicketRefused(TunnelError):
    """A ticket does not open this node for this request.

    Attributes:
        gate: The first check that refused: signature, expired, node, owner, region, sharing,
            request, generation or replay.
    """

    def __init__(self, gate: str) -> None:
        super().__init__(f"ticket refused: {gate}")
        self.gate = gate


class ReceiptInvalid(TunnelError):
    """A receipt does not hold; the message is half a sentence that says why."""


class HandoutInvalid(TunnelError):
    """What a Hub says of the program that it hands out was not signed by its key, or is something else."""
