"""Limits of keys and organisations, a key's secret before the last rotation, and sums of usage.

The sums are filled from the records that are there. A record's day is no longer kept: nobody groups records
any more. A Hub of the version before that still finishes answers cannot store records from here on; they wait
in its spool, and the new one stores them once that process has ended.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROLLUPS = {"usage_hours": 3_600, "usage_days": 86_400, "usage_weeks": 604_800}
SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
FACETS = {"outcome": "outcome", "model": "model", "region": "COALESCE(region, '')", "node": "node_id"}


def upgrade() -> None:
    for table in ("organisations", "api_keys"):
        op.add_column(table, sa.Column("requests_per_minute", sa.Integer(), nullable=True))
        op.add_column(table, sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("concurrent_requests", sa.Integer(), nullable=True))
        op.add_column(table, sa.Column("monthly_tokens", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("previous_prefix", sa.String(length=16), nullable=True))
    op.add_column("api_keys", sa.Column("previous_hash", sa.String(length=64), nullable=True))
    op.add_column("api_keys", sa.Column("previous_expires_at", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("previous_used_at", sa.Double(), nullable=True))
    op.create_index("ix_api_keys_previous_hash", "api_keys", ["previous_hash"], unique=True)
    for name, width_s in ROLLUPS.items():
        _create(name)
        for facet, value in FACETS.items():
            _fill(name, width_s, facet, value)
    op.drop_column("usage_records", "day")


def _create(name: str) -> None:
    op.create_table(
        name,
        sa.Column("organisation_id", sa.String(length=40), nullable=False),
        sa.Column("facet", sa.String(length=16), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        *(sa.Column(each, sa.BigInteger(), nullable=False) for each in SUMS),
        sa.PrimaryKeyConstraint("organisation_id", "facet", "start", "key_id", "value", name=f"pk_{name}"),
        sqlite_with_rowid=False,
    )


def _fill(name: str, width_s: int, facet: str, value: str) -> None:
    key = "''" if facet == "node" else "key_id"
    start = f"CAST({_whole(f'created_at / {width_s}')} AS BIGINT) * {width_s}"
    totals = ", ".join(f"SUM({each})" for each in SUMS[1:])
    # Every part of it is written in this file: nothing comes from outside.
    op.execute(
        f"INSERT INTO {name} (organisation_id, facet, start, key_id, value, {', '.join(SUMS)}) "  # noqa: S608
        f"SELECT organisation_id, '{facet}', {start}, {key}, {value}, COUNT(*), {totals} "
        "FROM usage_records GROUP BY 1, 2, 3, 4, 5"
    )


def _whole(quotient: str) -> str:
    """PostgreSQL's cast to a whole number rounds, SQLite's cuts off."""
    return f"FLOOR({quotient})" if op.get_bind().dialect.name == "postgresql" else quotient


def downgrade() -> None:
    op.add_column("usage_records", sa.Column("day", sa.Integer(), nullable=False, server_default="0"))
    day = _whole("created_at / 86400")
    op.execute(f"UPDATE usage_records SET day = CAST({day} AS INTEGER)")  # noqa: S608 - written here
    for name in ROLLUPS:
        op.drop_table(name)
    op.drop_index("ix_api_keys_previous_hash", table_name="api_keys")
    for column in ("previous_prefix", "previous_hash", "previous_expires_at", "previous_used_at"):
        op.drop_column("api_keys", column)
    for table in ("organisations", "api_keys"):
        for column in ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "monthly_tokens"):
            op.drop_column(table, column)
