"""Pages of things, for programs that read all of them.

Owns the order: by id, which is chance and never changes, so that whatever is added or changed between two
pages, no other thing is left out or given twice. Must not know what the things are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, select


def page_of(table: Table, organisation_id: str | None, *, after: str | None, limit: int) -> Select[Any]:
    """The things of one organisation, or of all.

    Args:
        table: with columns ``id`` and, where an organisation is named, ``organisation_id``.
        organisation_id: whose; ``None`` is everybody's.
        after: the last id of the page before.
        limit: so many at most.
    """
    query = select(table).order_by(table.c.id).limit(limit)
    if organisation_id is not None:
        query = query.where(table.c.organisation_id == organisation_id)
    return query if after is None else query.where(table.c.id > after)
