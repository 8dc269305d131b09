"""`x-ratelimit-…`: how a key's limits a minute stand, named and written as OpenAI does.

Owns the headers' names and the form of a length of time in them. Knows nothing of what is limited.
"""

from __future__ import annotations

import math

from hub.quotas import Standing


def rate_headers(requests: Standing | None, tokens: Standing | None) -> list[tuple[bytes, bytes]]:
    """The headers for the limits that there are."""
    found = []
    for name, standing in (("requests", requests), ("tokens", tokens)):
        if standing is not None:
            values = (
                ("limit", str(standing.limit)),
                ("remaining", str(standing.left)),
                ("reset", duration(standing.reset_s)),
            )
            found += [(f"x-ratelimit-{what}-{name}".encode(), value.encode()) for what, value in values]
    return found


def duration(seconds: float) -> str:
    """A length of time as Go writes it and OpenAI's clients read it: ``0s``, ``120ms``, ``8.64s``, ``6m0s``.

    Rounded up to the millisecond: after that time it is so.
    """
    ms = math.ceil(max(seconds, 0.0) * 1000 - 1e-3)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    rest = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}"
    return f"{minutes}m{rest}" if minutes else rest
