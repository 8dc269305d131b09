"""Nodes that are on drain: since when."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("draining_since", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("nodes", "draining_since")
