"""Nodes, and the tree of regions they stand in.

Owns their queries and the fencing number. Must not know sessions, nor who may change what: that is
:mod:`hub.enrollment`'s to decide before it calls here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, case, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import AlreadyExists, InvalidInput, NotFound
from hub.identifiers import new_id
from hub.policy import RegionTree, Sharing, TrustClass
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.records import Node, Region
from hub.storage.tables import nodes, regions


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

    async def begin_session(self, node_id: str, public_key: str, *, now: float) -> Node | None:
        """Raise the fencing number of a node that has proved itself with a key, and note that it was seen.

        If that is its next key, it is the only one from now on. One statement: no two sessions share a
        number, and once a session has begun under the next key none begins under the old one.

        Returns:
            The node as it is now; ``None`` where there is none, it was revoked, or the key is not active.
        """
        announced = (nodes.c.next_public_key == public_key) & (nodes.c.next_key_expires_at > now)
        as_before = nodes.c.public_key == public_key
        statement = (
            update(nodes)
            .where(nodes.c.id == node_id, nodes.c.revoked_at.is_(None), as_before | announced)
            .values(
                generation=nodes.c.generation + 1,
                last_seen_at=now,
                public_key=public_key,
                next_public_key=case((as_before, nodes.c.next_public_key)),
                next_key_expires_at=case((as_before, nodes.c.next_key_expires_at)),
            )
            .returning(*nodes.c)
        )
        async with self._database.note(durable=False) as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return codec.node(row) if row is not None else None

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
            return await connection.scalar(statement) is not None

    async def replace_placement(
        self,
        seen: Node,
        *,
        name: str,
        region: str | None,
        region_confirmed: bool,
        trust: TrustClass,
        sharing: Sharing,
    ) -> Node | None:
        """Replace what the Hub holds about a node, if it is still as it was seen.

        What was decided may rest on what was seen (a confirmed region stays confirmed), so a change by
        somebody else in between must win.

        Returns:
            The node as it is now; ``None`` where it is no longer as seen, or was revoked.
        """
        statement = (
            update(nodes)
            .where(nodes.c.id == seen.id, nodes.c.revoked_at.is_(None), _still(seen))
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
            row = (await connection.execute(statement)).mappings().one_or_none()
        return codec.node(row) if row is not None else None

    async def revoke(self, node_id: str, *, now: float) -> None:
        """End a node. Revoking twice keeps the first time.

        Raises:
            NotFound: there is no such node.
        """
        async with self._database.change() as connection:
            if await connection.scalar(select(nodes.c.id).where(nodes.c.id == node_id)) is None:
                raise NotFound("node", node_id)
            alive = (nodes.c.id == node_id) & nodes.c.revoked_at.is_(None)
            await connection.execute(update(nodes).where(alive).values(revoked_at=now))

    async def mark_seen(self, node_ids: Iterable[str], *, now: float) -> None:
        """Note that these nodes are connected at ``now``."""
        async with self._database.note(durable=False) as connection:
            await connection.execute(
                update(nodes).where(nodes.c.id.in_(list(node_ids))).values(last_seen_at=now)
            )


def _still(seen: Node) -> ColumnElement[bool]:
    """Region and trust class are as they were. A trust class that cannot be read may be replaced by any."""
    same = nodes.c.region.is_not_distinct_from(seen.region) & (
        nodes.c.region_confirmed == seen.region_confirmed
    )
    return same if seen.trust is None else same & (nodes.c.trust == seen.trust.label)


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


class Regions:
    """The operator's tree of regions. Codes are never removed or moved: keys and credentials name them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, code: str, parent: str | None, name: str) -> Region:
        """Add a code under a parent that exists; so the tree can have no cycle.

        Raises:
            AlreadyExists: the code is there.
            InvalidInput: the parent is not.
        """
        try:
            async with self._database.change() as connection:
                known = set(await connection.scalars(select(regions.c.code)))
                if code in known:
                    raise AlreadyExists("region", code)
                if parent is not None and parent not in known:
                    raise InvalidInput("parent", f"there is no region {parent!r} on this Hub")
                await connection.execute(insert(regions).values(code=code, parent=parent, name=name))
        except IntegrityError:  # somebody else added it at the same moment
            raise AlreadyExists("region", code) from None
        return Region(code=code, parent=parent, name=name)

    async def list(self) -> list[Region]:
        """Every region, by code."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(regions).order_by(regions.c.code))
            return [codec.region(row) for row in rows.mappings()]

    async def tree(self) -> RegionTree:
        """The regions as the policy takes them."""
        return RegionTree({region.code: region.parent for region in await self.list()})
