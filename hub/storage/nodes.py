"""Nodes: their queries and the fencing number.

Owns both. Must not know sessions, nor who may change what: that is
:mod:`hub.enrollment`'s to decide before it calls here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.acting import acting_as, proved_as
from hub.errors import NotFound
from hub.identifiers import new_id
from hub.policy import NodeFacts, RegionAuthority, Sharing, TrustClass
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.paging import page_of
from hub.storage.records import Node
from hub.storage.tables import nodes
from tunnel.identity import fingerprint

_FACTS = [
    *(nodes.c.id, nodes.c.organisation_id, nodes.c.region, nodes.c.region_confirmed, nodes.c.trust),
    *(nodes.c.sharing, nodes.c.shared_with),
]


class Nodes:
    """Owners' machines as the Hub holds them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        organisation_id: str,
        *,
        name: str,
        public_key: str,
        region: str | None,
        region_confirmed: bool,
        trust: TrustClass,
        sharing: Sharing,
        machine: Mapping[str, Any],
        now: float,
    ) -> Node:
        """Add a node."""
        node = Node(
            id=new_id("node"),
            organisation_id=organisation_id,
            name=name,
            public_key=public_key,
            region=region,
            region_confirmed=region_confirmed,
            trust=trust,
            sharing=sharing,
            machine=machine,
            generation=0,
            created_at=now,
        )
        async with self._database.change() as connection:
            await insert_node(connection, node)
            await self._database.tell(connection, "node.created", node.id, of=organisation_id, **told(node))
        return node

    async def get(self, node_id: str) -> Node | None:
        """The node with this id, whatever its state."""
        async with self._database.read() as connection:
            row = (
                (await connection.execute(select(nodes).where(nodes.c.id == node_id)))
                .mappings()
                .one_or_none()
            )
        return codec.node(row) if row is not None else None

    async def list(self, organisation_id: str | None = None, *, include_revoked: bool = False) -> list[Node]:
        """The nodes of one organisation, or all of them, by name."""
        query = select(nodes).order_by(nodes.c.name, nodes.c.id)
        if organisation_id is not None:
            query = query.where(nodes.c.organisation_id == organisation_id)
        if not include_revoked:
            query = query.where(nodes.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            return [codec.node(row) for row in (await connection.execute(query)).mappings()]

    async def page(self, organisation_id: str | None, *, after: str | None, limit: int) -> Sequence[Node]:
        """A page of the nodes of one organisation, or of all, revoked ones too; see `hub.storage.paging`."""
        query = page_of(nodes, organisation_id, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.node(row) for row in (await connection.execute(query)).mappings()]

    async def names(
        self, organisation_id: str | None = None, *, include_revoked: bool = False
    ) -> dict[str, str]:
        """What the nodes of one organisation, or all, are called, by their ids: for lists of thousands."""
        query = select(nodes.c.id, nodes.c.name)
        if organisation_id is not None:
            query = query.where(nodes.c.organisation_id == organisation_id)
        if not include_revoked:
            query = query.where(nodes.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return dict(tuple(row) for row in rows)

    async def many(self, node_ids: Sequence[str]) -> Sequence[Node]:
        """The nodes with these ids, a page of them, in that order; those that are not there are left out."""
        query = select(nodes).where(nodes.c.id.in_(node_ids))
        async with self._database.read() as connection:
            found = {row["id"]: codec.node(row) for row in (await connection.execute(query)).mappings()}
        return [found[node_id] for node_id in node_ids if node_id in found]

    async def counts(self) -> dict[str, int]:
        """How many nodes each organisation has."""
        query = select(nodes.c.organisation_id, func.count()).where(nodes.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            rows = (await connection.execute(query.group_by(nodes.c.organisation_id))).all()
        return dict(tuple(row) for row in rows)

    async def counts_by_region(self) -> dict[str, tuple[int, int]]:
        """How many nodes stand in each region itself: those confirmed there, and those that are not."""
        columns = (nodes.c.region, nodes.c.region_confirmed, func.count())
        here = nodes.c.revoked_at.is_(None) & nodes.c.region.is_not(None)
        query = select(*columns).where(here).group_by(nodes.c.region, nodes.c.region_confirmed)
        found: dict[str, tuple[int, int]] = {}
        async with self._database.read() as connection:
            for region, confirmed, count in await connection.execute(query):
                sure, unsure = found.get(region, (0, 0))
                found[region] = (sure + count, unsure) if confirmed else (sure, unsure + count)
        return found

    async def unconfirmed(self, *, limit: int) -> Sequence[Node]:
        """Nodes whose region waits for an operator's word, the oldest first."""
        waiting = nodes.c.revoked_at.is_(None) & nodes.c.region.is_not(None)
        query = select(nodes).where(waiting, nodes.c.region_confirmed.is_(False))
        query = query.order_by(nodes.c.created_at, nodes.c.id).limit(limit)
        async with self._database.read() as connection:
            return [codec.node(row) for row in (await connection.execute(query)).mappings()]

    async def facts(self, organisation_id: str, authority: RegionAuthority) -> Sequence[NodeFacts]:
        """What the policy judges of an organisation's nodes: far cheaper than to read them whole."""
        query = select(*_FACTS).where(
            nodes.c.organisation_id == organisation_id, nodes.c.revoked_at.is_(None)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [codec.node_facts(row, authority) for row in rows]

    async def begin_session(self, node_id: str, public_key: str, *, now: float) -> Node | None:
        """Raise the fencing number of a node that has proved itself with a key, and note that it was seen.

        If that is its next key, it is the only one from now on. The number is raised by one statement: no two
        sessions share one, and once a session has begun under the next key none begins under the old one.

        Returns:
            The node as it is now; ``None`` where there is none, it was revoked, or the key is not active.
        """
        begun = (
            update(nodes)
            .where(nodes.c.id == node_id, nodes.c.revoked_at.is_(None))
            .values(generation=nodes.c.generation + 1, last_seen_at=now)
            .returning(*nodes.c)
        )
        as_before = begun.where(nodes.c.public_key == public_key)
        async with self._database.note(durable=False) as connection:
            row = (await connection.execute(as_before)).mappings().one_or_none()
        if row is not None:
            return codec.node(row)
        announced = (nodes.c.next_public_key == public_key) & (nodes.c.next_key_expires_at > now)
        taken_up = begun.where(announced).values(
            public_key=public_key, next_public_key=None, next_key_expires_at=None
        )
        async with self._database.note() as connection:
            # Of two sessions that take a key up at once, the second finds it taken up.
            await connection.execute(select(nodes.c.id).where(nodes.c.id == node_id).with_for_update())
            row = (await connection.execute(as_before)).mappings().one_or_none()
            if row is not None:
                return codec.node(row)
            row = (await connection.execute(taken_up)).mappings().one_or_none()
            if row is None:
                return None
            key = {"key": fingerprint(public_key)}
            with acting_as(proved_as(node_id, row["organisation_id"])):
                await self._database.tell(connection, "node.key_changed", node_id, **key)
            return codec.node(row)

    async def set_next_key(self, seen: Node, public_key: str, *, expires_at: float) -> bool:
        """Note the key that a node goes over to; whether it still has the key it was seen with."""
        statement = (
            update(nodes)
            .where(
                nodes.c.id == seen.id,
                nodes.c.revoked_at.is_(None),
                nodes.c.public_key == seen.public_key,
            )
            .values(next_public_key=public_key, next_key_expires_at=expires_at)
            .returning(nodes.c.id)
        )
        async with self._database.note() as connection:
            if await connection.scalar(statement) is None:
                return False
            key = {"key": fingerprint(public_key)}
            await self._database.tell(
                connection, "node.key_announced", seen.id, of=seen.organisation_id, **key
            )
        return True

    async def replace_placement(
        self,
        seen: Node,
        *,
        name: str,
        region: str | None,
        region_confirmed: bool,
        trust: TrustClass,
        sharing: Sharing,
        reason: str = "",
    ) -> Node | None:
        """Replace what the Hub holds about a node, if it is still as it was seen.

        What was decided may rest on what was seen (a confirmed region stays confirmed, and whatever is not
        changed stays), so a change by somebody else in between must win. A ``reason`` that was given goes
        into the audit log.

        Returns:
            The node as it is now; ``None`` where it is no longer as seen, or was revoked.
        """
        statement = (
            update(nodes)
            .where(nodes.c.id == seen.id, nodes.c.revoked_at.is_(None))
            .values(
                name=name,
                region=region,
                region_confirmed=region_confirmed,
                trust=trust.label,
                sharing=sharing.kind.value,
                shared_with=codec.write_set(sharing.organisations),
            )
            .returning(*nodes.c)
        )
        async with self._database.change() as connection:
            if not await _is_still(connection, seen):
                return None
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            node = codec.node(row)
            before = {f"{name}_before": value for name, value in told(seen).items()}
            await self._database.tell(
                connection,
                "node.changed",
                node.id,
                of=node.organisation_id,
                renamed=node.name != seen.name,
                **told(node),
                **{name: value for name, value in before.items() if name in _COMPARED},
                **({"reason": reason} if reason else {}),
            )
        return node

    async def drain(self, node_id: str, *, now: float) -> Node:
        """Put a node on drain. Draining twice keeps the first time.

        Raises:
            NotFound: there is no such node, or it was revoked.
        """
        async with self._database.change() as connection:
            node, is_news = await _turn(connection, node_id, nodes.c.draining_since.is_(None), now)
            if is_news:
                await self._database.tell(connection, "node.drained", node.id, of=node.organisation_id)
        return node

    async def resume(self, node_id: str) -> Node:
        """Take a node off drain. Resuming one that is on none does nothing.

        Raises:
            NotFound: there is no such node, or it was revoked.
        """
        async with self._database.change() as connection:
            node, is_news = await _turn(connection, node_id, nodes.c.draining_since.is_not(None), None)
            if is_news:
                await self._database.tell(connection, "node.resumed", node.id, of=node.organisation_id)
        return node

    async def revoke(self, node_id: str, *, now: float) -> None:
        """End a node. Revoking twice keeps the first time.

        Raises:
            NotFound: there is no such node.
        """
        async with self._database.change() as connection:
            of = await connection.scalar(select(nodes.c.organisation_id).where(nodes.c.id == node_id))
            if of is None:
                raise NotFound("node", node_id)
            alive = (nodes.c.id == node_id) & nodes.c.revoked_at.is_(None)
            ended = await connection.execute(update(nodes).where(alive).values(revoked_at=now))
            if ended.rowcount:
                await self._database.tell(connection, "node.revoked", node_id, of=of)

    async def mark_seen(self, node_ids: Iterable[str], *, now: float) -> None:
        """Note that these nodes are connected at ``now``."""
        async with self._database.note(durable=False) as connection:
            await connection.execute(
                update(nodes).where(nodes.c.id.in_(list(node_ids))).values(last_seen_at=now)
            )


async def _turn(
    connection: AsyncConnection, node_id: str, if_: ColumnElement[bool], since: float | None
) -> tuple[Node, bool]:
    """Put a node on drain or off where it is not so yet: the node as it is now, and whether that is news.

    Raises:
        NotFound: there is no such node, or it was revoked.
    """
    alive = (nodes.c.id == node_id) & nodes.c.revoked_at.is_(None)
    turned = update(nodes).where(alive, if_).values(draining_since=since).returning(*nodes.c)
    row = (await connection.execute(turned)).mappings().one_or_none()
    is_news = row is not None
    if row is None:
        row = (await connection.execute(select(nodes).where(alive))).mappings().one_or_none()
    if row is None:
        raise NotFound("node", node_id)
    return codec.node(row), is_news


async def _is_still(connection: AsyncConnection, seen: Node) -> bool:
    """Whether a node is held to be what it was seen to be. It stays so until the transaction ends."""
    query = select(nodes).where(nodes.c.id == seen.id).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return row is not None and _held(codec.node(row)) == _held(seen)


def _held(node: Node) -> tuple[object, ...]:
    return (node.name, node.region, node.region_confirmed, node.trust, node.sharing)


_COMPARED = frozenset({"region_before", "region_confirmed_before", "trust_before"})
"""What `replace_placement` knows to have been so right before: it compares them."""


def told(node: Node) -> dict[str, Any]:
    """What the audit log keeps of a node: no name and nothing that the machine said of itself."""
    return {
        "region": node.region,
        "region_confirmed": node.region_confirmed,
        "trust": None if node.trust is None else node.trust.label,
        "sharing": None if node.sharing is None else node.sharing.kind.value,
        "shared_with": [] if node.sharing is None else sorted(node.sharing.organisations),
        "key": fingerprint(node.public_key),
    }


async def insert_node(connection: AsyncConnection, node: Node) -> None:
    """Insert within the caller's transaction; the node's trust class and sharing must be readable ones."""
    assert node.trust is not None
    assert node.sharing is not None
    values = codec.values_of(node, nodes) | {
        "trust": node.trust.label,
        "sharing": node.sharing.kind.value,
        "shared_with": codec.write_set(node.sharing.organisations),
        "machine": codec.write_map(node.machine),
    }
    await connection.execute(insert(nodes).values(values))
