"""Rows for every table there is, made of the tables' own description: none that is added later is missed."""

from typing import Any

from sqlalchemy import Boolean, Column, Connection, Float, Integer, LargeBinary, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.storage.tables import metadata, settings

ROWS = 3


def fill_every_table(connection: Connection, tables: list[Table] | None = None) -> None:
    """Put a few rows into each; where a column may be empty, it is so in one of them."""
    made: dict[str, list[dict[str, Any]]] = {}
    for table in metadata.sorted_tables if tables is None else tables:
        made[table.name] = []
        for number in range(ROWS):
            row = {column.name: _value(column, number, made) for column in table.columns}
            connection.execute(insert(table), [row])
            made[table.name].append(row)


def _value(column: Column[Any], number: int, made: dict[str, list[dict[str, Any]]]) -> Any:
    if column.nullable and number == 1:
        return None
    for key in column.foreign_keys:
        others = made[key.column.table.name]
        if key.column.table is column.table:  # a tree: the first is its root
            return None if number == 0 else others[number - 1][key.column.name]
        return others[number][key.column.name]
    return _plain(column, number)


def _plain(column: Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, Integer):
        return 1000 + number
    if isinstance(kind, Float):
        return 1_700_000_000.1 + number / 3
    if isinstance(kind, LargeBinary):
        return bytes([0, 255, number])
    text = f"{number} ü\n\"'\\ {column.table.name}.{column.name}"
    return text[: kind.length] if getattr(kind, "length", None) else text


async def everything(connection: AsyncConnection, tables: list[Table] | None = None) -> dict[str, list[Any]]:
    """All rows of all tables, but for the revision counter."""
    found = {}
    for table in metadata.sorted_tables if tables is None else tables:
        query = select(table)
        if table.name == settings.name:
            query = query.where(table.c.name != "revision")
        rows = [dict(row) for row in (await connection.execute(query)).mappings()]
        found[table.name] = sorted(rows, key=repr)
    return found
