"""Credit and rates: how much a side may send, and when it gets leave for more.

Owns the arithmetic. Must not know frames, streams or clocks (`now` is passed in, seconds).
Offsets are absolute byte counts from the beginning of a stream's direction, so that a CREDIT lost,
repeated or reordered does no harm.
"""

from tunnel.errors import ProtocolViolation

INITIAL_WINDOW = 256 * 1024  # bytes a side may send before it has heard of any credit
REQUEST_WINDOW_LIMIT = 1024 * 1024  # bytes a request body's window may grow to
LEAST_WINDOW = 16 * 1024  # bytes a stream is let send even where the process's budget is spent
PROCESS_BUDGET = 256 * 1024 * 1024  # bytes that all windows of a process may let peers send
MAX_OUTSTANDING_CREDIT = 16 * 1024 * 1024  # bytes; more is a broken or hostile peer


class ByteBudget:
    """Bytes that all windows of a process together let peers send: what it may have to hold, at most.

    Every window is reserved here while its stream lives. Where the budget is spent no window grows and new
    ones begin at `LEAST_WINDOW`, so that memory is bounded and still nobody is stuck.
    """

    __slots__ = ("limit", "reserved")

    def __init__(self, limit: int = PROCESS_BUDGET) -> None:
        self.limit = limit
        self.reserved = 0

    def begin(self, wish: int) -> int:
        """Reserve a new window: as large as wished where there is room, else the least."""
        size = wish if self.reserved + wish <= self.limit else min(wish, LEAST_WINDOW)
        self.reserved += size
        return size

    def begin_at(self, size: int) -> int:
        """Reserve a window whose size the protocol fixes, whether there is room or not."""
        self.reserved += size
        return size

    def extend(self, count: int) -> bool:
        """Reserve that much more, if there is room."""
        if self.reserved + count > self.limit:
            return False
        self.reserved += count
        return True

    def release(self, count: int) -> None:
        """Give bytes back."""
        self.reserved -= count


class ReceiveWindow:
    """What we let the peer send on one stream: `size` bytes ahead of what was consumed.

    Args:
        size: Reserved in the budget already, if there is one.
        limit: What it may grow to.
        budget: Where it reserves its growth, and gives everything back at its end.
    """

    __slots__ = ("_budget", "closed", "consumed", "granted", "limit", "received", "size")

    def __init__(
        self, size: int = INITIAL_WINDOW, limit: int = INITIAL_WINDOW, budget: ByteBudget | None = None
    ) -> None:
        self.received = 0
        self.consumed = 0
        self.granted = size
        self.size = size
        self.limit = max(size, limit)
        self.closed = False
        self._budget = budget

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

        A reader that takes half a window has shown that it keeps up: the window doubles up to its limit, as
        far as the budget goes.
        """
        self.consumed += count
        if self.closed:
            self._shrink(min(count, self.size))
            return None
        if self.granted - self.consumed > self.size // 2:
            return None
        growth = min(self.size, self.limit - self.size)
        if growth and (self._budget is None or self._budget.extend(growth)):
            self.size += growth
        self.granted = self.consumed + self.size
        return self.granted

    def close(self) -> None:
        """Nothing more will arrive: what is not consumed yet stays reserved until it is."""
        if not self.closed:
            self.closed = True
            self._shrink(self.size - (self.received - self.consumed))

    def abandon(self) -> None:
        """Nothing more will arrive, and nobody reads what has."""
        self.closed = True
        self._shrink(self.size)

    def _shrink(self, count: int) -> None:
        self.size -= count
        if self._budget is not None:
            self._budget.release(count)


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
