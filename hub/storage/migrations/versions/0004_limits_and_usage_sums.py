"""Limits of keys and organisations, a key's secret before the last rotation, and sums of usage.

The sums are filled from the records that are there. A record's day is no longer kept: nobody groups records
any more. A Hub of the version before that still finishes answers cannot store records from here on; they wait
in its spool and are stored by the next start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

HOUR_S, DAY_S = 3_600, 86_400
SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
BY_KEY = ("key_id", "model", "region", "outcome")
BY_NODE = ("node_id", "region")
ROLLUPS = (
    ("usage_hours", HOUR_S, BY_KEY),
    ("usage_days", DAY_S, BY_KEY),
    ("usage_node_hours", HOUR_S, BY_NODE),
    ("usage_node_days", DAY_S, BY_NODE),
)
LENGTHS = {"key_id": 40, "model": 200, "region": 32, "outcome": 64, "node_id": 40}


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
    for name, width_s, groups in ROLLUPS:
        _create(name, groups)
        _fill(name, width_s, groups)
    op.drop_column("usage_records", "day")


def _create(name: str, groups: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("organisation_id", sa.String(length=40), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False, autoincrement=False),
        *(sa.Column(group, sa.String(length=LENGTHS[group]), nullable=False) for group in groups),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("organisation_id", "start", *groups, name=f"pk_{name}"),
        sqlite_with_rowid=False,
    )
    op.create_index(f"ix_{name}_start", name, ["start"], unique=False)


def _fill(name: str, width_s: int, groups: tuple[str, ...]) -> None:
    names = sa.column
    records = sa.table("usage_records", *map(names, ("organisation_id", "created_at", *groups, *SUMS[1:])))
    sums = sa.table(name, *map(names, ("organisation_id", "start", *groups, *SUMS)))
    spans = records.c.created_at / width_s
    if op.get_bind().dialect.name == "postgresql":  # whose cast rounds; SQLite's cuts off
        spans = sa.func.floor(spans)
    keys = [
        records.c.organisation_id,
        (sa.cast(spans, sa.BigInteger) * width_s).label("start"),
        *(sa.func.coalesce(records.c[group], "").label(group) for group in groups),
    ]
    totals = [sa.func.count(), *(sa.func.sum(records.c[each]) for each in SUMS[1:])]
    chosen = sa.select(*keys, *totals).group_by(*keys)
    op.execute(sums.insert().from_select([column.name for column in sums.c], chosen))


def downgrade() -> None:
    op.add_column("usage_records", sa.Column("day", sa.Integer(), nullable=False, server_default="0"))
    spans = (
        "floor(created_at / 86400)" if op.get_bind().dialect.name == "postgresql" else "created_at / 86400"
    )
    op.execute(f"UPDATE usage_records SET day = CAST({spans} AS INTEGER)")  # noqa: S608 - both are ours
    for name, _, _ in ROLLUPS:
        op.drop_table(name)
    op.drop_index("ix_api_keys_previous_hash", table_name="api_keys")
    for column in ("previous_prefix", "previous_hash", "previous_expires_at", "previous_used_at"):
        op.drop_column("api_keys", column)
    for table in ("organisations", "api_keys"):
        for column in ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "monthly_tokens"):
            op.drop_column(table, column)
