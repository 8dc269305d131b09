"""The second step at sign-in: sealed secrets, the last step that was taken, and recovery codes.

Owns their queries. Each code is spent in one statement, so that of two who come with it at once one is let
in. Must not know secrets, codes or the clock: hashes and steps are arguments.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import NotFound
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.people import organisation_of
from hub.storage.records import SecondStep
from hub.storage.tables import accounts, recovery_codes, second_steps


class SecondSteps:
    """What accounts' codes come from."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, account_id: str) -> SecondStep | None:
        """An account's second step, confirmed or not."""
        query = select(second_steps).where(second_steps.c.account_id == account_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.second_step(row) if row is not None else None

    async def confirmed(self, account_ids: Collection[str]) -> set[str]:
        """Those of the accounts that have a second step which counts."""
        query = select(second_steps.c.account_id).where(
            second_steps.c.account_id.in_(list(account_ids)), second_steps.c.confirmed_at.is_not(None)
        )
        async with self._database.read() as connection:
            return {str(found) for found in await connection.scalars(query)}

    async def begin(self, account_id: str, sealed_secret: str, *, now: float) -> bool:
        """Keep a secret that is yet to be confirmed, in place of an earlier such.

        Returns:
            Whether it is kept; not where a confirmed one is there already.
        """
        mine = second_steps.c.account_id == account_id
        async with self._database.note() as connection:
            await _hold(connection, account_id)
            await connection.execute(delete(second_steps).where(mine, second_steps.c.confirmed_at.is_(None)))
            if await connection.scalar(select(second_steps.c.account_id).where(mine)) is not None:
                return False
            await connection.execute(
                insert(second_steps).values(
                    account_id=account_id, sealed_secret=sealed_secret, created_at=now, last_step=0
                )
            )
        return True

    async def confirm(
        self, account_id: str, *, sealed_secret: str, step: int, code_hashes: Collection[str], now: float
    ) -> bool:
        """Let the secret count from here on, with these recovery codes.

        Returns:
            Whether it does; not where another secret has taken its place, or it counts already.
        """
        mine = (second_steps.c.account_id == account_id) & (second_steps.c.sealed_secret == sealed_secret)
        pending = mine & second_steps.c.confirmed_at.is_(None)
        async with self._database.change() as connection:
            done = await connection.execute(
                update(second_steps).where(pending).values(confirmed_at=now, last_step=step)
            )
            if not done.rowcount:
                return False
            await _replace_codes(connection, account_id, code_hashes)
            of = await organisation_of(connection, account_id)
            await self._database.tell(connection, "account.second_step_on", account_id, of=of)
        return True

    async def spend_step(self, account_id: str, step: int) -> bool:
        """Take the code of a time step; whether it is later than any taken before."""
        columns = second_steps.c
        later = (columns.account_id == account_id) & (columns.last_step < step)
        async with self._database.note() as connection:
            statement = update(second_steps).where(later, columns.confirmed_at.is_not(None))
            return bool((await connection.execute(statement.values(last_step=step))).rowcount)

    async def spend_code(self, account_id: str, code_hash: str) -> bool:
        """Take a recovery code, which is then gone; whether there was one."""
        columns = recovery_codes.c
        mine = (columns.account_id == account_id) & (columns.hash == code_hash)
        async with self._database.note() as connection:
            if not (await connection.execute(delete(recovery_codes).where(mine))).rowcount:
                return False
            left = select(func.count()).select_from(recovery_codes).where(columns.account_id == account_id)
            told = {"left": int(await connection.scalar(left) or 0)}
            of = await organisation_of(connection, account_id)
            await self._database.tell(connection, "account.recovery_code_used", account_id, of=of, **told)
        return True

    async def codes_left(self, account_id: str) -> int:
        """How many recovery codes an account has."""
        query = select(func.count()).select_from(recovery_codes)
        async with self._database.read() as connection:
            return int(await connection.scalar(query.where(recovery_codes.c.account_id == account_id)) or 0)

    async def replace_codes(self, account_id: str, code_hashes: Collection[str]) -> None:
        """Put other recovery codes in place of those there are.

        Raises:
            NotFound: the account has no second step any more.
        """
        async with self._database.note() as connection:
            await _hold(connection, account_id)
            mine = select(second_steps.c.account_id).where(second_steps.c.account_id == account_id)
            if await connection.scalar(mine) is None:
                raise NotFound("second step", account_id)
            await _replace_codes(connection, account_id, code_hashes)
            of = await organisation_of(connection, account_id)
            await self._database.tell(connection, "account.recovery_codes_replaced", account_id, of=of)

    async def switch_off(self, account_id: str) -> None:
        """Let an account sign in with its password alone again."""
        async with self._database.change() as connection:
            mine = second_steps.c.account_id == account_id
            gone = (await connection.execute(delete(second_steps).where(mine))).rowcount
            await connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
            if gone:
                of = await organisation_of(connection, account_id)
                await self._database.tell(connection, "account.second_step_off", account_id, of=of)


async def _hold(connection: AsyncConnection, account_id: str) -> None:
    """Of two who do this for one account at once, the second waits and finds what the first did."""
    row = select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True)
    await connection.execute(row)


async def _replace_codes(connection: AsyncConnection, account_id: str, hashes: Collection[str]) -> None:
    await connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
    rows = [{"account_id": account_id, "hash": each} for each in hashes]
    await connection.execute(insert(recovery_codes), rows)
