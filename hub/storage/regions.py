"""The tree of regions.

Owns its queries, and that it stays a tree whose codes mean something: what nodes, keys or tokens name is not
removed. Must not know who may change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from sqlalchemy import Column, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import AlreadyExists, InvalidInput, NotFound
from hub.policy import RegionTree
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.records import Region
from hub.storage.tables import api_keys, join_tokens, nodes, regions


class RegionChange(TypedDict, total=False):
    """What is to be another of a region; a ``parent`` of ``None`` is the top of the tree."""

    parent: str | None
    name: str


class Regions:
    """The operator's regions."""

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
                known = await _parents(connection)
                if code in known:
                    raise AlreadyExists("region", code)
                _check_parent(parent, known)
                await connection.execute(insert(regions).values(code=code, parent=parent, name=name))
                await self._database.tell(connection, "region.added", code, parent=parent, name=name)
        except IntegrityError:  # somebody else added it at the same moment
            raise AlreadyExists("region", code) from None
        return Region(code=code, parent=parent, name=name)

    async def change(self, code: str, **said: Unpack[RegionChange]) -> Region:
        """Call a region something else, or let it lie somewhere else, with all that lies in it.

        Args:
            code: which.
            said: what is to be another; what is not said stays.

        Raises:
            NotFound: there is no such region.
            InvalidInput: the parent is not there, or lies in the region itself.
        """
        async with self._database.change() as connection:
            known = await _parents(connection)
            if code not in known:
                raise NotFound("region", code)
            this = regions.c.code == code
            row = await connection.execute(select(regions).where(this))
            before = codec.region(row.mappings().one())
            after = replace(before, **said)
            _check_parent(after.parent, known)
            if after.parent is not None and RegionTree(known).contains(code, after.parent):
                raise InvalidInput("parent", f"{after.parent!r} lies in {code!r} itself")
            values = {"parent": after.parent, "name": after.name}
            await connection.execute(update(regions).where(this).values(values))
            told = values | {"parent_before": before.parent, "name_before": before.name}
            await self._database.tell(connection, "region.changed", code, **told)
        return after

    async def remove(self, code: str) -> None:
        """Remove a region that nothing names.

        Raises:
            NotFound: there is no such region.
            InvalidInput: something names it; the message counts what.
        """
        async with self._database.change() as connection:
            if code not in await _parents(connection):
                raise NotFound("region", code)
            if used := named_by(await _uses(connection, code)):
                raise InvalidInput("region", f"is still named by {', '.join(used)}")
            await connection.execute(delete(regions).where(regions.c.code == code))
            await self._database.tell(connection, "region.removed", code)

    async def uses(self, code: str) -> Mapping[str, int]:
        """How many of each kind of thing name a region: ended nodes and tokens too, revoked keys not."""
        async with self._database.read() as connection:
            return await _uses(connection, code)

    async def list(self) -> list[Region]:
        """Every region, by code."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(regions).order_by(regions.c.code))
            return [codec.region(row) for row in rows.mappings()]

    async def tree(self) -> RegionTree:
        """The regions as the policy takes them."""
        return RegionTree({region.code: region.parent for region in await self.list()})


async def _parents(connection: AsyncConnection) -> dict[str, str | None]:
    """The tree, as it stays until this transaction ends: two moves at once could close a circle."""
    rows = await connection.execute(select(regions.c.code, regions.c.parent).with_for_update())
    return dict(tuple(row) for row in rows)


def _check_parent(parent: str | None, known: Mapping[str, str | None]) -> None:
    if parent is not None and parent not in known:
        raise InvalidInput("parent", f"there is no region {parent!r} on this Hub")


_KINDS = {
    "region": ("region in it", "regions in it"),
    "node": ("node", "nodes"),
    "join_token": ("join token", "join tokens"),
    "key": ("key", "keys"),
}


def named_by(uses: Mapping[str, int]) -> list[str]:
    """Say what names a region, as `Regions.uses` counts it; nothing where nothing does."""
    return [f"{count} {_KINDS[kind][count != 1]}" for kind, count in uses.items() if count]


async def _uses(connection: AsyncConnection, code: str) -> dict[str, int]:
    """What names a region. Nodes and tokens that ended count: their rows still do."""
    counted = {}
    named: tuple[tuple[str, Column[Any]], ...] = (
        ("region", regions.c.parent),
        ("node", nodes.c.region),
        ("join_token", join_tokens.c.region),
    )
    for kind, column in named:
        counted[kind] = int(await connection.scalar(select(func.count()).where(column == code)) or 0)
    texts = await connection.scalars(select(api_keys.c.regions).where(api_keys.c.revoked_at.is_(None)))
    counted["key"] = sum(code in (codec.read_set(text) or ()) for text in texts)
    return counted
