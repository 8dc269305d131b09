"""Facts about this Hub as a whole: its id, and the revision that other processes watch.

Owns the settings table. These are not the operator's settings, which are :mod:`hub.config`'s.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from hub.identifiers import new_id
from hub.storage.engine import REVISION, Database
from hub.storage.tables import settings

_HUB_ID = "hub_id"
_HUB_KEY = "hub_key"


class Settings:
    """Named values, one row each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> str | None:
        """The value under this name."""
        async with self._database.read() as connection:
            value = await connection.scalar(select(settings.c.value).where(settings.c.name == name))
        return None if value is None else str(value)

    async def revision(self) -> int:
        """A number that grows whenever organisations, accounts, keys, nodes, tokens or regions change.

        Liveness (polls, generations, last seen), portal sessions and usage leave it alone, so that a Hub
        which reads everything again at each step is not kept busy by its own traffic.
        """
        return int(await self.get(REVISION) or 0)

    async def hub_id(self) -> str:
        """The Hub's identifier, drawn the first time it is asked for and the same ever after."""
        known = await self.get(_HUB_ID)
        if known is not None:
            return known
        try:
            async with self._database.change() as connection:
                drawn = new_id("hub")
                await connection.execute(insert(settings).values(name=_HUB_ID, value=drawn))
                await self._database.tell(connection, "hub.created", drawn)
        except IntegrityError:
            pass  # another process drew it at the same moment: that one counts
        return str(await self.get(_HUB_ID))

    async def hub_key(self) -> str | None:
        """The public key of the Hub whose database this is; None before there is one."""
        return await self.get(_HUB_KEY)

    async def claim(self, public_key: str) -> str:
        """Make this the database of the Hub with this key, unless it is that of one already.

        Returns:
            The key of the Hub whose database it is.
        """
        if (known := await self.hub_key()) is not None:
            return known
        try:
            async with self._database.note() as connection:
                await connection.execute(insert(settings).values(name=_HUB_KEY, value=public_key))
                await self._database.tell(connection, "hub.key_changed", public_key, before=None)
        except IntegrityError:
            pass  # another process claimed it at the same moment: that one counts
        return str(await self.hub_key())

    async def replace_hub_key(self, public_key: str) -> None:
        """Keep that the Hub has this key now; the audit log tells when it is another than before."""
        try:
            async with self._database.note() as connection:
                mine = settings.c.name == _HUB_KEY
                known = await connection.scalar(select(settings.c.value).where(mine))
                if known == public_key:
                    return
                if known is None:
                    await connection.execute(insert(settings).values(name=_HUB_KEY, value=public_key))
                else:
                    as_seen = mine & (settings.c.value == known)
                    noted = await connection.execute(update(settings).where(as_seen).values(value=public_key))
                    if not noted.rowcount:
                        return  # as below
                await self._database.tell(connection, "hub.key_changed", public_key, before=known)
        except IntegrityError:
            pass  # another process noted it at the same moment
