"""What the live parts ask of storage: keys, facts, usage, the revision, and who may open a tunnel.

Owns the translation between storage's records and what those parts judge. A database that cannot be asked is
`StorageUnavailable` in all of it. Must not know HTTP or sessions.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.budgets import Tokens
from hub.clones import CloneWatch
from hub.cluster.local import ANSWER_S
from hub.errors import StorageUnavailable
from hub.metering import Meter
from hub.policy import NodeFacts, RegionAuthority, RegionTree
from hub.storage.engine import answered
from hub.storage.records import ApiKey, Node
from hub.storage.repositories import Storage
from tunnel.errors import CredentialInvalid, HandshakeRefused
from tunnel.gate import Grant
from tunnel.handshake import QUARANTINED_STATUS
from tunnel.identity import decode_public_key, encode_public_key

log = logging.getLogger(__name__)


class StoredFacts:
    """Keys, nodes and regions as storage has them now."""

    def __init__(self, storage: Storage, authority: RegionAuthority) -> None:
        self._storage = storage
        self._authority = authority

    async def by_hash(self, key_hash: str) -> ApiKey | None:
        """The key stored under this hash."""
        return await self._storage.keys.by_hash(key_hash)

    async def node(self, node_id: str) -> NodeFacts | None:
        """One node, ``None`` where there is no such node."""
        node = await self._storage.nodes.get(node_id)
        return None if node is None else node.facts(self._authority)

    async def nodes(self) -> Sequence[NodeFacts]:
        """Every node that was not revoked."""
        return [node.facts(self._authority) for node in await self._storage.nodes.list()]

    async def regions(self) -> RegionTree:
        """The operator's regions."""
        return await self._storage.regions.tree()

    async def revision(self) -> int:
        """The number that grows with every change; asked each second, so it must not take long to fail."""
        async with answered(ANSWER_S):
            return await self._storage.settings.revision()

    async def mark_seen(self, node_ids: Sequence[str], *, now: float) -> None:
        """Note that these nodes are connected at ``now``."""
        await self._storage.nodes.mark_seen(node_ids, now=now)

    async def mark_used(self, used_at: Mapping[str, float]) -> None:
        """Note when keys were last used, by the hashes of their secrets."""
        await self._storage.keys.mark_used(used_at)


class StoredUsage:
    """Usage as it is stored, once what waits in the spool is stored too."""

    def __init__(self, storage: Storage, meter: Meter) -> None:
        self._storage = storage
        self._meter = meter

    async def tokens(
        self, mark: Callable[[], Tokens], *, since: float, until: float
    ) -> tuple[Tokens, Mapping[str, int]]:
        """Prompt and completion tokens by the id of each key and organisation; see `hub.budgets`."""
        try:
            await self._meter.adopt()
            async with self._meter.settled(mark) as marked:
                return marked, await self._storage.usage.tokens_by_holder(since=since, until=until)
        except OSError as error:
            raise StorageUnavailable(f"the usage spool cannot be read: {error.strerror}") from error


class StoredNodes:
    """Who may open a tunnel: the tunnel server's `NodeAuthenticator`."""

    def __init__(
        self,
        storage: Storage,
        authority: RegionAuthority,
        *,
        credential_for: Callable[[Node], str],
        signed: Callable[[int, NodeFacts], None],
        clones: CloneWatch,
        quarantine: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """Look nodes up in storage.

        Args:
            storage: where they are.
            authority: whose word makes a region count.
            credential_for: signs a node's current credential.
            signed: told the generation and the facts behind each credential handed out.
            clones: notices a credential that two machines use.
            quarantine: told of a node whose credential is, so that its sessions end.
            clock: UTC seconds since the epoch.
        """
        self._storage = storage
        self._authority = authority
        self._credential_for = credential_for
        self._signed = signed
        self._clones = clones
        self._quarantine = quarantine
        self._clock = clock

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        """The node's keys, two while it changes them; none for a node that is unknown or revoked.

        Raises:
            HandshakeRefused: the database cannot be asked; the node is to come back.
        """
        async with _refusing():
            node = await self._storage.nodes.get(node_id)
        if node is None:
            return ()
        return tuple(_readable(node.active_keys(self._clock())))

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        """Give the next generation and the current credential; the next key is the current one from here on.

        The record is read as the generation is drawn: of two sessions, the newer never holds older facts.

        Raises:
            HandshakeRefused: while it shook hands the node was revoked or got another key, or two machines
                use its credential; or the database cannot be asked, which alone gives out generations.
        """
        if not self._clones.admits(node_id, instance_id, self._clock()):
            log.error("two machines use one credential", extra={"event": "node.cloned", "node_id": node_id})
            self._quarantine(node_id)
            raise HandshakeRefused(QUARANTINED_STATUS, reason="quarantined")
        async with _refusing():
            node = await self._storage.nodes.begin_session(node_id, encode_public_key(key), now=self._clock())
        if node is None:
            raise HandshakeRefused(401, reason="revoked")
        self._signed(node.generation, node.facts(self._authority))
        return Grant(generation=node.generation, credential=self._credential_for(node))


@asynccontextmanager
async def _refusing() -> AsyncIterator[None]:
    """Without the database no node is let in: it draws the number that fences a session off from others.

    A handshake has 5 seconds, so that one which is to be refused must be so in fewer.
    """
    try:
        async with answered(ANSWER_S):
            yield
    except StorageUnavailable as error:
        raise HandshakeRefused(HTTPStatus.SERVICE_UNAVAILABLE, reason="database") from error


def _readable(keys: Iterable[str]) -> Iterator[Ed25519PublicKey]:
    """Those that are not stored damaged."""
    for key in keys:
        with suppress(CredentialInvalid):
            yield decode_public_key(key)
