"""Who may become a websocket on the Hub, and how many handshakes are under way at once.

Owns what is refused before the upgrade and the count of unfinished handshakes by address. Must not know
sessions, accounts or storage: it asks a `NodeAuthenticator`.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from random import random
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tunnel.errors import HandshakeRefused
from tunnel.flow import PROCESS_BUDGET, TokenBucket
from tunnel.handshake import NODE_HEADER
from tunnel.protocol import MAX_STREAMS
from tunnel.stats import TunnelStats

LOOPBACK = ("127.0.0.1", "::1")
_MAX_ADDRESS_CHARACTERS = 64

Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True, slots=True)
class Grant:
    """What an admitted node gets: its session's generation and its current credential."""

    generation: int
    credential: str


class NodeAuthenticator(Protocol):
    """What the tunnel asks of the Hub about nodes."""

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        """Give the node's active keys; none means unknown or revoked.

        Raises:
            HandshakeRefused: nobody can say now; the node comes back.
        """
        ...

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        """Give leave, after the signature was verified.

        Args:
            node_id: Who it is.
            instance_id: Which run of it.
            key: The one of its keys that made the signature.

        Raises:
            HandshakeRefused: not now, or not ever.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLimits:
    """What a server allows. Rates are per second, times in seconds."""

    handshakes_per_s: float = 50.0
    handshake_burst: int = 100
    handshakes_per_address: int = 64  # unfinished at once; many nodes may share one address
    handshake_timeout_s: float = 5.0
    retry_after_s: float = 5.0  # told to who comes too fast, plus as much again at random
    max_streams: int = MAX_STREAMS
    buffered_bytes: int = PROCESS_BUDGET  # of answers that wait for their readers, all sessions together
    least_smear_s: float = 2.0  # over which nodes are asked to come back; longer where they are many
    heartbeat_s: float = 15.0


DEFAULT_LIMITS = TunnelLimits()


class Gate:
    """Lets knocking nodes through, or says when to come back.

    Attributes:
        authenticator: Knows which nodes there are.
        closed: Nobody is let through any more; whoever knocks is told to come back later.
    """

    def __init__(
        self,
        authenticator: NodeAuthenticator,
        limits: TunnelLimits,
        stats: TunnelStats,
        trusted_proxies: Sequence[str] = LOOPBACK,
    ) -> None:
        """Begin with nobody at the gate.

        Args:
            authenticator: Knows which nodes there are.
            limits: What is allowed.
            stats: Where refusals are counted.
            trusted_proxies: Addresses or networks whose X-Forwarded-For is believed.

        Raises:
            ValueError: one of them is no address and no network.
        """
        self.closed = False
        self.authenticator = authenticator
        self._limits = limits
        self._stats = stats
        self._trusted = [ip_network(each) for each in trusted_proxies]
        self._rate = TokenBucket(rate=limits.handshakes_per_s, burst=limits.handshake_burst)
        self._unfinished: Counter[str] = Counter()

    async def screen(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what may not even become a websocket; None lets it through."""
        if self.closed:
            self._stats.handshakes["draining"] += 1
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE)
        if self._full(self.address(connection, request)):
            self._stats.handshakes["too_many"] += 1
            return self._later(connection, HTTPStatus.TOO_MANY_REQUESTS)
        node_id = named(request)
        try:
            known = bool(node_id) and bool(await self.authenticator.public_keys(node_id))
        except HandshakeRefused:
            self._stats.handshakes["refused"] += 1
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE)
        if not known:
            self._stats.handshakes["unknown"] += 1
            return connection.respond(HTTPStatus.UNAUTHORIZED, "unknown node\n")
        # Asked last, so that strangers use up nothing of what nodes need to come back.
        if not self._rate.take(time.monotonic()):
            self._stats.handshakes["too_fast"] += 1
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE)
        return None

    @contextmanager
    def handshake(self, address: str) -> Iterator[None]:
        """Count a handshake for as long as it lasts.

        Raises:
            HandshakeRefused: as many as allowed are under way from there.
        """
        if self._full(address):
            raise HandshakeRefused(429, reason="too many handshakes")  # all were let through at once
        self._unfinished[address] += 1
        try:
            yield
        finally:
            self._unfinished[address] -= 1
            if not self._unfinished[address]:
                del self._unfinished[address]

    def address(self, connection: ServerConnection, request: Request | None) -> str:
        """Where a node dials from, as far as its own proxy does not hide it."""
        peer = connection.remote_address
        forwarded = request.headers.get_all("X-Forwarded-For") if request is not None else []
        return client_address(str(peer[0]) if peer else "", forwarded, self._trusted)

    def _full(self, address: str) -> bool:
        return self._unfinished[address] >= self._limits.handshakes_per_address

    def _later(self, connection: ServerConnection, status: HTTPStatus) -> Response:
        response = connection.respond(status, "come back later\n")
        seconds = self._limits.retry_after_s * (1 + random())  # noqa: S311 - spreads returns, guards nothing
        response.headers["Retry-After"] = str(round(seconds))
        return response


def named(request: Request) -> str:
    """Give the node that a request names; nothing where it names none, or several."""
    names = request.headers.get_all(NODE_HEADER)
    return names[0] if len(names) == 1 else ""


def client_address(peer: str, forwarded: Sequence[str], trusted: Networks) -> str:
    """Give the nearest address that no trusted proxy has: what each of them added last, backwards.

    Args:
        peer: Who is connected to us.
        forwarded: The values of X-Forwarded-For, in order. Anybody may send them; only the words of trusted
            proxies count.
        trusted: Where those proxies are.
    """
    hops = [hop.strip()[:_MAX_ADDRESS_CHARACTERS] for value in forwarded for hop in value.split(",")]
    address = peer
    while hops and _lies_in(address, trusted):
        address = hops.pop() or address
    return address


def _lies_in(address: str, networks: Networks) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
