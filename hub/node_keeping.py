"""Nodes that are enrolled: their keys, their credentials, their changes and their end.

Owns the telling: every change of a node is published. Who may decide what is :mod:`hub.placement`'s rule.
Must not know HTTP or sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hub.acting import acting_as, proved_as
from hub.changes import Changes, NodeChanged, NodeRevoked
from hub.errors import InvalidInput, NotFound, SignatureRefused
from hub.machines import checked_public_key
from hub.placement import (
    Placement,
    PlacementChange,
    check_seen,
    decide,
    placement_of,
    require_manager,
    require_operator,
)
from hub.policy import PRIVATE, TrustClass
from hub.signed_requests import Asked, claimed_node, verify
from hub.storage.records import Authority, Node
from hub.storage.repositories import Storage
from tunnel.errors import CredentialInvalid
from tunnel.identity import NodeCredential, decode_public_key, issue_credential

log = logging.getLogger(__name__)

NEXT_KEY_LIFETIME_S = 86_400.0
"""How long a key that a node has announced is waited for."""


class NodeKeeper:
    """Changes nodes and tells of it.

    Args:
        storage: where they are kept.
        hub_key: signs credentials.
        hub_id: this Hub's identifier, written into credentials.
        clock: UTC seconds since the epoch.
        changes: told of every node that was made, changed or revoked.
    """

    def __init__(
        self,
        storage: Storage,
        hub_key: Ed25519PrivateKey,
        hub_id: str,
        clock: Callable[[], float],
        changes: Changes,
    ) -> None:
        self._storage = storage
        self._hub_key = hub_key
        self._hub_id = hub_id
        self._clock = clock
        self._changes = changes
        self._nobodys_key = Ed25519PrivateKey.generate().public_key()

    async def leave(self, token: str) -> None:
        """Revoke the node that signed this token.

        Raises:
            SignatureRefused: it is not signed by the key of a node of this Hub, or too old.
        """
        node, _ = await self._signer(token, Asked.LEAVE)
        with acting_as(proved_as(node.id, node.organisation_id)):
            await self.revoke(node.id)

    async def rotate(self, token: str) -> None:
        """Let the node that signed this token go over to the key it names; the first session under it does.

        Until then both keys are active. The same key again waits as long again; another takes its place.

        Raises:
            SignatureRefused: it is not signed by the key of a node of this Hub, or too old.
            InvalidInput: it names no key.
        """
        node, claims = await self._signer(token, Asked.ROTATE)
        public_key = checked_public_key(str(claims.get("public_key")))
        if node.revoked_at is None and public_key == node.public_key:
            return
        expires_at = self._clock() + NEXT_KEY_LIFETIME_S
        with acting_as(proved_as(node.id, node.organisation_id)):
            noted = await self._storage.nodes.set_next_key(node, public_key, expires_at=expires_at)
        if not noted:
            raise SignatureRefused("the node was revoked, or has another key by now")
        log.info("node key announced", extra={"event": "node.key_announced", "node_id": node.id})

    async def _signer(self, token: str, asked: Asked) -> tuple[Node, Mapping[str, Any]]:
        """The node whose current key signed a request, and what it claims.

        A node that is not there costs the same work and gets the same words as a wrong signature: who knows
        the id of another's node must not learn whether it is still enrolled.
        """
        node = await self._storage.nodes.get(claimed_node(token, asked))
        claims = verify(token, self._key_of(node), hub_id=self._hub_id, now=self._clock())
        assert node is not None, "nobody signs with a key that was thrown away"
        return node, claims

    def _key_of(self, node: Node | None) -> Ed25519PublicKey:
        """A node's key; one that nobody has where it is not there, or is stored damaged."""
        try:
            return self._nobodys_key if node is None else decode_public_key(node.public_key)
        except CredentialInvalid:
            return self._nobodys_key

    async def place(self, node_id: str, account: Authority, change: PlacementChange) -> Node:
        """Change what the Hub holds about a node; it counts at once.

        Raises:
            NotAllowed: the account's role does not reach this far.
            NotFound: there is no such node, it was revoked, or it is another organisation's.
            Outdated: its rules are others than the change rests on.
            InvalidInput: a field cannot be accepted.
        """
        require_manager(account)

        async def decided(node: Node) -> Placement:
            check_seen(node, change.seen)
            return await self._decided(account, change.of(node), node, says_region=change.says_region)

        return await self._replace(node_id, account, decided)

    async def set_trust(
        self, node_id: str, account: Authority, trust: TrustClass, *, reason: str, seen: str | None = None
    ) -> Node:
        """Raise or lower a node's trust class, and nothing else; the audit log keeps why.

        Raises:
            NotAllowed: the account is no operator's.
            NotFound: there is no such node, or it was revoked.
            Outdated: its rules are others than were ``seen``, as `hub.placement.rules_seen` says them.
            InvalidInput: what is stored of it cannot be read.
        """
        require_operator(account)

        async def decided(node: Node) -> Placement:
            check_seen(node, seen)
            return replace(placement_of(node), trust=trust)

        return await self._replace(node_id, account, decided, reason=reason)

    async def confirm_region(self, node_id: str, account: Authority, region: str) -> Node:
        """Confirm that a node stands where its owner says, and change nothing else.

        Args:
            node_id: the node.
            account: an operator's.
            region: the one that the operator was shown.

        Raises:
            NotAllowed: the account is no operator's.
            NotFound: there is no such node, or it was revoked.
            InvalidInput: its region is another by now, or what is stored of it cannot be read.
        """
        require_operator(account)

        async def decided(node: Node) -> Placement:
            if node.region != region:
                raise InvalidInput("region", "was changed meanwhile: look at it again")
            return replace(placement_of(node), region_confirmed=True)

        return await self._replace(node_id, account, decided)

    async def _replace(
        self,
        node_id: str,
        account: Authority,
        decide: Callable[[Node], Awaitable[Placement]],
        *,
        reason: str = "",
    ) -> Node:
        placed = None
        while placed is None:  # again whenever somebody else changed the node between our look and our write
            node = await self._storage.nodes.get(node_id)
            if node is None or node.revoked_at is not None or not _is_manager_of(account, node):
                raise NotFound("node", node_id)
            decided = await decide(node)
            with self._changes.announcing(NodeChanged(node.id)):
                placed = await self._storage.nodes.replace_placement(
                    node,
                    name=decided.name,
                    region=decided.region,
                    region_confirmed=decided.region_confirmed,
                    trust=decided.trust,
                    sharing=decided.sharing,
                    reason=reason,
                )
        _note("node.placed", placed)
        return placed

    async def drain(self, node_id: str) -> Node:
        """Give a node no new work from now on; what it is answering goes on. Draining twice is the same.

        Raises:
            NotFound: there is no such node, or it was revoked.
        """
        with self._changes.announcing(NodeChanged(node_id)):
            node = await self._storage.nodes.drain(node_id, now=self._clock())
        _note("node.drained", node)
        return node

    async def resume(self, node_id: str) -> Node:
        """Let a node that is on drain have work again. Resuming one that is on none is the same.

        Raises:
            NotFound: there is no such node, or it was revoked.
        """
        with self._changes.announcing(NodeChanged(node_id)):
            node = await self._storage.nodes.resume(node_id)
        _note("node.resumed", node)
        return node

    async def revoke(self, node_id: str) -> None:
        """End a node at once. Revoking twice does nothing more.

        Raises:
            NotFound: there is no such node.
        """
        with self._changes.announcing(NodeRevoked(node_id)):
            await self._storage.nodes.revoke(node_id, now=self._clock())
        log.info("node revoked", extra={"event": "node.revoked", "node_id": node_id})

    def credential_for(self, node: Node) -> str:
        """What the Hub says of a node now, signed. What could not be read is signed as the narrowest."""
        return issue_credential(
            self._hub_key,
            NodeCredential(
                node_id=node.id,
                owner_id=node.organisation_id,
                region=node.region,
                trust=(node.trust or TrustClass.COMMUNITY).label,
                sharing=(node.sharing or PRIVATE).kind.value,
                hub_id=self._hub_id,
                public_key=node.public_key,
                issued_at=int(self._clock()),
            ),
        )

    async def _decided(
        self, account: Authority, asked: Placement, node: Node | None, *, says_region: bool = True
    ) -> Placement:
        return decide(
            account,
            asked,
            node=node,
            regions=await self._storage.regions.tree(),
            organisations={each.id for each in await self._storage.organisations.list()},
            says_region=says_region,
        )

    def _announce(self, event: str, node: Node) -> None:
        self._changes.publish(NodeChanged(node.id))
        _note(event, node)


def _note(event: str, node: Node) -> None:
    log.info(
        "node %s",
        event.partition(".")[2],
        extra={"event": event, "node_id": node.id, "organisation_id": node.organisation_id},
    )


def _is_manager_of(account: Authority, node: Node) -> bool:
    return account.is_operator or node.organisation_id == account.organisation_id
