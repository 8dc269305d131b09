"""Credit and rates: how much a side may send, and when it gets leave for more.

Owns the arithmetic. Must not know frames, streams or clocks (`now` is passed in, seconds).
Offsets are absolute byte counts from the beginning of a stream's direction, so that a CREDIT lost,
repeated or reordered does no harm.
"""

from tunnel.errors import ProtocolViolation

INITIAL_WINDOW = 256 * 1024  # bytes a side may send before it has heard of any credit
REQUEST_WINDOW_LIMIT = 1024 * 1024  # bytes a request body's window may grow to
MAX_OUTSTANDING_CREDIT = 16 * 1024 * 1024  # bytes; more is a broken or hostile peer


class ReceiveWindow:
    """What we let the peer send on one stream: `size` bytes ahead of what was consumed."""

    __slots__ = ("consumed", "granted", "limit", "received", "size")

    def __init__(self, size: int = INITIAL_WINDOW, limit: int = INITIAL_WINDOW) -> None:
        self.received = 0
        self.consumed = 0
        self.granted = size
        self.size = size
        self.limit = max(size, limit)

    def accept(self, count: int) -> None:
        """Count bytes that arrived.

        Raises:
            ProtocolViolation: the peer sent more than it was granted.
        """
        received = self.received + count
        if received > self.granted:
            raise ProtocolViolation(f"sent {received} bytes with credit for {self.granted}")
        self.received = received

    def consume(self, count: int) -> int | None:
        """Count bytes the reader took; give the new offset to grant once half a window is used.

        A reader that takes half a window has shown that it keeps up: the window doubles up to its limit.
        """
        self.consumed += count
        if self.granted - self.consumed > self.size // 2:
            return None
        self.size = min(self.size * 2, self.limit)
        self.granted = self.consumed + self.size
        return self.granted


class SendCredit:
    """What the peer lets us send on one stream."""

    __slots__ = ("granted", "used")

    def __init__(self, granted: int = INITIAL_WINDOW) -> None:
        self.used = 0
        self.granted = granted

    def grant(self, offset: int) -> bool:
        """Take a CREDIT; False when it says nothing new.

        Raises:
            ProtocolViolation: more than any honest window.
        """
        if offset > self.used + MAX_OUTSTANDING_CREDIT:
            raise ProtocolViolation(f"credit up to {offset} with {self.used} bytes sent")
        if offset <= self.granted:
            return False
        self.granted = offset
        return True


class TokenBucket:
    """A rate with a burst: `burst` at once, then `rate` a second."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one token, if there is one."""
        elapsed = max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
