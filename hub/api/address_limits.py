"""How often one address may knock: a bucket of tokens for each.

Owns the counting, with the time as an argument. Knows nothing of requests. Memory is bounded: beyond a number
of addresses the one that was quiet longest is forgotten, so a flood from many cannot grow it.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from hub.errors import TooManyAttempts

MAX_ADDRESSES = 10_000
IPV6_SITE_BITS = 64  # one subscriber owns at least a /64: counting single addresses would count nothing


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class AddressLimits:
    """Token buckets by address.

    Args:
        per_minute: how fast a bucket fills.
        burst: how much it holds, at least 1.
        max_addresses: how many are remembered.
    """

    def __init__(self, *, per_minute: float, burst: int, max_addresses: int = MAX_ADDRESSES) -> None:
        self._per_second = per_minute / 60
        self._burst = float(burst)
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str, now: float) -> None:
        """Take one token of an address; `now` in seconds, of any clock that does not jump back.

        Raises:
            TooManyAttempts: there is none; it says when the next one comes.
        """
        key = site(address)
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        elapsed = max(now - bucket.filled_at, 0)
        bucket.tokens = min(self._burst, bucket.tokens + elapsed * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            raise TooManyAttempts((1 - bucket.tokens) / self._per_second)
        bucket.tokens -= 1


def site(address: str) -> str:
    """Return what an address is counted as: of IPv6 the /64, all of which its holder can send from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return address
