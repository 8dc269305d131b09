"""What happened in the tunnels of a process: plain numbers, for whoever exports them.

Owns the counts and their names. Must not know frames, sockets, clocks or how metrics are exported. Nothing
here is counted per chunk.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


def _ignore(_seconds: float) -> None:
    """What is done with a measurement that nobody asked for."""


class TunnelStats:
    """Counts since the process began.

    Attributes:
        handshakes: How handshakes ended: `welcomed`, or a word for the refusal.
        ends: How sessions ended, by the reason's word.
        resets: Streams reset, by (`sent` or `received`, the code's name).
        credit_stall_s: Seconds that senders waited for a peer to take what it had been sent.
        on_rtt: Told the seconds from each PING to its PONG.
        on_head: Told the seconds from each OPEN to its HEAD.
    """

    __slots__ = ("credit_stall_s", "ends", "handshakes", "on_head", "on_rtt", "resets")

    def __init__(
        self, on_rtt: Callable[[float], None] = _ignore, on_head: Callable[[float], None] = _ignore
    ) -> None:
        self.handshakes: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.resets: Counter[tuple[str, str]] = Counter()
        self.credit_stall_s = 0.0
        self.on_rtt = on_rtt
        self.on_head = on_head


@dataclass(frozen=True, slots=True)
class TunnelLoad:
    """What the sessions of a process hold at this moment.

    Attributes:
        sessions: How many stand, by state: `live` or `draining`.
        streams: How many are open.
        waiting: Streams that wait to send, by lane: `interactive` or `bulk`.
        unsent_bytes: Queued and in no message yet, control frames included.
        reserved_bytes: What all windows together let peers send.
    """

    sessions: dict[str, int]
    streams: int
    waiting: dict[str, int]
    unsent_bytes: int
    reserved_bytes: int


class Waiting(Protocol):
    """What is asked of a session."""

    @property
    def draining(self) -> bool:
        """It takes no new streams."""

    @property
    def streams(self) -> int:
        """How many are open."""

    @property
    def waiting(self) -> tuple[int, int, int]:
        """How many wait to send, interactive and bulk, and how many bytes are unsent in all."""


def load_of(sessions: Iterable[Waiting], reserved_bytes: int) -> TunnelLoad:
    """Add sessions up."""
    states = {"live": 0, "draining": 0}
    lanes = {"interactive": 0, "bulk": 0}
    streams = unsent = 0
    for session in sessions:
        states["draining" if session.draining else "live"] += 1
        streams += session.streams
        interactive, bulk, unsent_here = session.waiting
        lanes["interactive"] += interactive
        lanes["bulk"] += bulk
        unsent += unsent_here
    return TunnelLoad(states, streams, lanes, unsent, reserved_bytes)
